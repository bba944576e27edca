"""Neurons and channels scored by a mixed integer program over a few images (chapter 07).

>>> import torch
>>> keep_above({"fc": torch.tensor([0.9, 0.05, 0.4])}, 0.2)["fc"].tolist()
[True, False, True]
"""

from graphprune.neurons.bounds import propagate
from graphprune.neurons.decoupled import blocks, decoupled
from graphprune.neurons.images import pick
from graphprune.neurons.reading import read
from graphprune.neurons.removal import mask_units, remove
from graphprune.neurons.replay import objective
from graphprune.neurons.scores import Scores, per_class, scores
from graphprune.neurons.selection import keep_above, keep_share, overlap, tied

__all__ = [
    "Scores",
    "blocks",
    "decoupled",
    "keep_above",
    "keep_share",
    "mask_units",
    "objective",
    "overlap",
    "per_class",
    "pick",
    "propagate",
    "read",
    "remove",
    "scores",
    "tied",
]


def __dir__() -> list[str]:
    return __all__
