"""Data sets and splits, the networks, and how they are trained."""
