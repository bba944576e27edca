"""ABCPruner's search as a ranker: what the bees liked best, and whatever lies next to it (Lin et al. 2020).

The search itself returns the few configurations it visited, best first. To let it order any configuration, one takes the
fitness of the nearest visited one, by the sum of the differences in rate indices [our reading].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.encoders.foraging import forage
from graphprune.encoders.ranker import Ranker
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning import importance
from graphprune.pruning.evaluator import MaskEvaluator
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.rates import RATES, check_indices
from graphprune.pruning.window import Score, Window, into_window
from graphprune.runs.runtime import seed_generator
from graphprune.training.data import Dataset

CHUNK = 8_192  # configurations at a time
STEP = 1e-6  # what a step away from the nearest visited configuration costs: it parts ties, and nothing else


@dataclass(frozen=True, eq=False)
class Bees(Ranker):
    """The fitness of the nearest configuration that the bees visited, less `STEP` for every rate step to it.

    Fitness is validation accuracy with BN statistics re-estimated, without training: ABCPruner's fitness trains each network
    for a few epochs, which no ranker here does [our reading].

    Attributes:
        data: `.train` calibrates, `.val` measures.
        macs: the window the bees stay in, shares of the whole network's MACs.
        evaluations: configurations they may try.
        foods, limit, changes: as `baselines.bee_colony` has them.
        seed: of their flight.
    """

    data: Dataset
    macs: tuple[float, float] = (0.2, 0.22)
    evaluations: int = 150
    foods: int = 10
    limit: int = 5
    changes: int = 2
    seed: int = 0

    def forage(self, graph: ChannelGraph, model: nn.Module) -> tuple[Tensor, Tensor]:
        """What the bees visited, the best first: (n, groups) rate indices and (n,) fitness; n < evaluations where few exist."""
        window, generator = Window(graph, self.data.example(), macs=self.macs), seed_generator(self.seed, "bees")
        evaluate, scores = MaskEvaluator(model, graph, self.data), importance.l1(model, graph)
        visited, fitness = forage(
            lambda indices: evaluate(kept_masks(graph, indices, scores)).accuracy,
            lambda n: window.draw(n, generator),
            lambda indices: into_window(window, indices, generator),
            window.counts,
            evaluations=self.evaluations,
            foods=self.foods,
            limit=self.limit,
            changes=self.changes,
            generator=generator,
        )
        order = fitness.argsort(descending=True, stable=True)
        return visited[order], fitness[order]

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        visited, fitness = self.forage(graph, model)
        places, later = visited.double(), torch.arange(len(visited)) / len(visited)

        def near(indices: Tensor) -> Tensor:
            distance = torch.cdist(indices.double(), places, p=1)  # (B, n), whole numbers
            nearest = (distance + later).argmin(1)  # of several, the best
            return fitness[nearest] - STEP * distance.gather(1, nearest[:, None])[:, 0]

        def scored(indices: Tensor) -> Tensor:
            check_indices(indices, len(graph.groups), len(RATES))
            return torch.cat([near(part) for part in indices.split(CHUNK)])

        return scored
