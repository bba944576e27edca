"""Contrast with nested triads: the more is pruned of a network, the farther it lies from the unpruned one.

SACP's triads differ in which channels survive (section 3.4), but a search sees the best channels only, so they need not order
rates. Here [ours] the anchor is the unpruned network, the positive a configuration, and the negative the same pruned
further, every one of its channels kept in the positive, too. With the distance d to the anchor in place of the cosine, which
cannot tell how far embeddings lie apart along one direction,

    l_i = log(1 + exp((d(positive_i) - d(negative_i)) / temperature)),

eq. 6 on a row's own positive and negative, and the score is -d. No image is looked at and no label. On kept shares an
encoder puts nearly every such pair in the right order before it is trained: what orders networks of equal size is how much
each layer weighs, and that no nested pair says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.ranker import Ranker
from graphprune.encoders.scorer import Scorer
from graphprune.encoders.width_features import WIDTH, shares
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import first_scores, kept_masks
from graphprune.pruning.rates import RATES
from graphprune.pruning.window import Score
from graphprune.ranking.surrogate import tilted
from graphprune.runs.runtime import seed_generator

TEMPERATURE = 0.1
FURTHER = 0.25  # of the groups are pruned further, on average; one at least


@dataclass(frozen=True)
class Nested(Ranker):
    """Minus the distance to the unpruned network, the mean over encoders that differ in their seed.

    Attributes:
        steps: of training on fresh triads; 0 leaves the encoders as they were initialised.
        members: encoders.
        hidden, layers: of each.
        batch_size, lr: triads a step, and Adam's step size.
        seed: of weights and triads.
    """

    steps: int = 800
    members: int = 3
    hidden: int = 64
    layers: int = 2
    batch_size: int = 64
    lr: float = 3e-3
    seed: int = 0

    def encoder(self, graph: ChannelGraph, seed: int) -> GraphEncoder:
        """One member, trained."""
        start = seed_generator(seed, "nested").initial_seed()
        encoder = GraphEncoder.seeded(start, WIDTH, hidden=self.hidden, layers=self.layers)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=self.lr)
        generator, groups = seed_generator(seed, "nested triads"), len(graph.groups)
        features, first = shares(graph), first_scores(graph)
        for _ in range(self.steps):
            positive = tilted(groups, self.batch_size, generator)
            rows = torch.cat([positive.new_zeros(1, groups), positive, draw_further(positive, generator)])
            z = encoder.embed(features(kept_masks(graph, rows, first)), graph.edge_index)
            anchor, *rest = z.split([1, len(positive), len(positive)])
            near, far = (distance(part, anchor[0]) for part in rest)
            optimizer.zero_grad()
            F.softplus((near - far) / TEMPERATURE).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return encoder

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        seeds = range(self.members * self.seed, self.members * (self.seed + 1))
        encoders = [self.encoder(graph, seed) for seed in seeds]
        scorers = [Scorer(encoder, graph, first_scores(graph), features=shares(graph)) for encoder in encoders]
        return lambda indices: -torch.stack([distance(s.embed(indices), s.reference) for s in scorers]).mean(0)


def distance(z: Tensor, reference: Tensor) -> Tensor:
    """Euclidean, (B, D) and (D,) -> (B,)."""
    return (z - reference).norm(dim=1)


def draw_further(indices: Tensor, generator: torch.Generator) -> Tensor:
    """The same configurations pruned further in a quarter of their groups, in one at least: (B, groups) -> (B, groups).

    A group at the highest rate stays where it is.
    """
    chosen = torch.rand(indices.shape, generator=generator) < FURTHER
    chosen.scatter_(1, torch.randint(indices.shape[1], (len(indices), 1), generator=generator), True)
    steps = torch.randint(1, len(RATES), indices.shape, generator=generator)
    return torch.where(chosen, indices + steps, indices).clamp(max=len(RATES) - 1)
