"""Neurons and channels scored by a mixed integer program over a few images (chapter 07)."""

from graphprune.neurons.scores import Scores, per_class, scores

__all__ = ["Scores", "per_class", "scores"]
