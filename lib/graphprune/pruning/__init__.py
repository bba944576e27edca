"""Remove channels for real: masks, files, importance, cost and latency, and the space of pruning rates."""
