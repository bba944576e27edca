"""Spectral one-shot pruning: a layer is a weighted bipartite graph, and the edges that hold its spectrum stay (chapter 06).

>>> import torch
>>> effective_resistance(torch.ones(2, 2)).tolist()  # four equal edges in a ring: 1 beside 3
[[0.75, 0.75], [0.75, 0.75]]
"""

from graphprune.spectral.channels import channel_scores
from graphprune.spectral.connectivity import Connectivity, connectivity
from graphprune.spectral.edges import layer_edges
from graphprune.spectral.pruning import keep_chances, prune_weights, reweight
from graphprune.spectral.resistance import components, degree_resistance, effective_resistance
from graphprune.spectral.scores import polar, scores
from graphprune.spectral.spectrum import mean_spectral_error, singular_values, spectral_error

__all__ = [
    "Connectivity",
    "channel_scores",
    "components",
    "connectivity",
    "degree_resistance",
    "effective_resistance",
    "keep_chances",
    "layer_edges",
    "mean_spectral_error",
    "polar",
    "prune_weights",
    "reweight",
    "scores",
    "singular_values",
    "spectral_error",
]


def __dir__() -> list[str]:
    return __all__
