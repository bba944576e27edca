"""What orders pruned networks without training each: rankers, learners, proxies, and how well they agree (chapter 5)."""
