"""A network as a graph: tracing, label propagation, groups of coupled channels, and the proof that they can be pruned."""
