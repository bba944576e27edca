"""Pruned networks as vectors: the graph encoder, its contrastive training, and scoring by look-up tables (chapter 2)."""
