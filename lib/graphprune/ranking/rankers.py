"""Rankers that train no network: configurations of rates in the order in which they are believed to be accurate.

A ranker is prepared once for a network and its graph, and then scores any number of configurations; higher = believed
better, so that what a network costs counts as it stands and R(r) with its sign turned. Here are SACP's similarity, the
same without training or encoder, and what can be said from sizes and importances alone. Rankers that learn from
measured accuracies are in `learners`, those that look at the pruned networks themselves in `proxies` and `colony_ranker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.encoders import contrast
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.ranker import Ranker as Ranker
from graphprune.encoders.scorer import Scorer
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning import importance
from graphprune.pruning.cost import CostModel
from graphprune.pruning.masks import Scores, kept_masks
from graphprune.pruning.rates import RATES, RateSpace, check_indices, kept_table
from graphprune.pruning.window import Score
from graphprune.runs.runtime import seed_generator

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

Importance = Callable[[nn.Module, ChannelGraph], Scores]
"""A network and its graph -> the importance of each channel, as the functions of `graphprune.importance`."""

CHUNK = 8_192  # configurations at a time: their rows stay in the cache


# --- SACP's similarity, and what is left of it without training or encoder ----------------------------------------------


@dataclass(frozen=True)
class Untrained(Ranker):
    """Cosine similarity to the unpruned network under an encoder with its initial weights.

    Attributes:
        kind, hidden, layers, undirected: as `GraphEncoder` takes them.
        seed: of the initial weights.
    """

    kind: str = "gcn"
    hidden: int = 64
    layers: int = 2
    undirected: bool = False
    seed: int = 0

    def encoder(self, graph: ChannelGraph) -> GraphEncoder:
        """The encoder before any training."""
        options = {"kind": self.kind, "hidden": self.hidden, "layers": self.layers, "undirected": self.undirected}
        return GraphEncoder.seeded(seed_generator(self.seed, "encoder").initial_seed(), graph.feature_index.shape[1], **options)

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return Scorer(self.encoder(graph), graph, importance.l1(model, graph))


@dataclass(frozen=True)
class Similarity(Untrained):
    """SACP's score: cosine similarity to the unpruned network under a contrastively trained encoder (sections 3.4, 3.5).

    With equal settings its numbers are those of `search.sacp`.

    Attributes:
        kind, hidden, layers, undirected, seed: as in `Untrained`; the seed is of the training as well.
        triads, loss: the readings of anchor and loss, functions of `graphprune.contrast`.
        n_train, epochs, temperature: the training's, as `contrast.fit` takes them.
        min_ratio: least R(r) of the training configurations; 0 = the whole space.
    """

    triads: contrast.Anchor = contrast.anchor_first
    loss: contrast.Loss = contrast.loss_printed
    n_train: int = 1024
    epochs: int = 10
    temperature: float = 0.5
    min_ratio: float = 0.0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        encoder, scores = self.encoder(graph), importance.l1(model, graph)
        contrast.fit(
            encoder,
            graph,
            model,
            indices=RateSpace(graph).sample(self.n_train, self.min_ratio, seed_generator(self.seed, "training configurations")),
            scores=scores,
            triads=self.triads,
            loss=self.loss,
            temperature=self.temperature,
            epochs=self.epochs,
            seed=self.seed,
        )
        return Scorer(encoder, graph, scores)


@dataclass(frozen=True)
class RawCosine(Ranker):
    """No encoder: the cosine between the mean of the raw +1, -1, 0 node features and the unpruned network's."""

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        scores, groups = importance.l1(model, graph), len(graph.groups)
        whole = graph.features(torch.ones(1, graph.num_atoms, dtype=torch.bool))[0].double().mean(0)  # (d,)
        single = torch.zeros(groups, len(RATES), groups, dtype=torch.int64)  # each group at each rate, all others whole
        single[torch.arange(groups), :, torch.arange(groups)] = torch.arange(len(RATES))
        masks = kept_masks(graph, single.flatten(0, 1), scores)
        change = graph.features(masks).double().mean(1).unflatten(0, (groups, -1)) - whole  # (groups, rates, d)

        def cosine(indices: Tensor) -> Tensor:  # a feature is of one channel, so that changes add up over groups
            return F.cosine_similarity(whole + _added(change, indices), whole[None], dim=1)

        return _by_chunks(cosine, groups)


# --- sizes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Macs(Ranker):
    """The multiply-adds that are left, for an input of the shape of `example`."""

    example: Tensor

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        costs = CostModel(graph, self.example)
        return lambda indices: costs.of_rates(indices)[0].double()


@dataclass(frozen=True, eq=False)
class Params(Ranker):
    """The parameters that are left; any `example` input the network accepts."""

    example: Tensor

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        costs = CostModel(graph, self.example)
        return lambda indices: costs.of_rates(indices)[1].double()


@dataclass(frozen=True)
class KeptRatio(Ranker):
    """-R(r): the smaller the share of channels removed (SACP, eq. 1), the better."""

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        space = RateSpace(graph)
        return lambda indices: -space.ratio(indices)


@dataclass(frozen=True)
class LogWidths(Ranker):
    """The sum of log kept channels, over groups or over layers: a single narrow layer is worse than many slightly narrower.

    Attributes:
        per: "layers" counts a group as often as it has producing layers, "groups" once.
    """

    per: Literal["layers", "groups"] = "layers"

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        weight = torch.tensor([len(group.layers) if self.per == "layers" else 1 for group in graph.groups])
        return _sum_of(kept_table(graph).double().log() * weight[:, None])


@dataclass(frozen=True, eq=False)
class Taylor:
    """`importance.taylor` on one data set: an importance whose settings can be read and stored.

    Attributes:
        data, batches, batch_size, seed: as `importance.taylor` takes them.
    """

    data: Dataset
    batches: int = 8
    batch_size: int = 128
    seed: int = 0

    def __call__(self, model: nn.Module, graph: ChannelGraph) -> Scores:
        return importance.taylor(model, graph, self.data, batches=self.batches, batch_size=self.batch_size, seed=self.seed)


@dataclass(frozen=True)
class RetainedMass(Ranker):
    """The share of a group's importance that its surviving channels hold, mean over groups.

    Attributes:
        mass: the importance that is added up, such as `importance.l1` or `Taylor(data)`.
        kept_by: the importance that says which channels survive; L1 in the paper, and in every network pruned here.
    """

    mass: Importance = importance.l1
    kept_by: Importance = importance.l1

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        uniform = torch.arange(len(RATES))[:, None].expand(-1, len(graph.groups))
        kept, mass = kept_masks(graph, uniform, self.kept_by(model, graph)), self.mass(model, graph)
        shares = []
        for name, span in graph.slices.items():
            own = mass[name].double().cpu()
            shares.append((kept[:, span] * own).sum(1) / own.sum().clamp_min(1e-300))
        return _sum_of(torch.stack(shares) / len(shares))


@dataclass(frozen=True)
class RandomOrder(Ranker):
    """A hash of the configuration, uniform in [0, 1): the same configuration always scores the same.

    Each rate of each group has a random 64-bit word, and a configuration the sum of its words modulo 2^53 (Zobrist
    1970): any two different configurations score independently.
    """

    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        shape, least = (len(graph.groups), len(RATES)), torch.iinfo(torch.int64).min
        words = torch.empty(shape, dtype=torch.int64).random_(least, None, generator=seed_generator(self.seed, "random order"))
        total = _sum_of(words)
        return lambda indices: (total(indices) & (2**53 - 1)).double() / 2**53


# --- tables -------------------------------------------------------------------------------------------------------------


def _sum_of(table: Tensor) -> Score:
    """Scores that add up over groups; table: (groups, rates), what a group adds at a rate."""
    return _by_chunks(lambda indices: _added(table, indices), len(table))


def _added(table: Tensor, indices: Tensor) -> Tensor:
    """(groups, rates, ...) and (B, groups) -> (B, ...), the sum over groups."""
    total = table[0][indices[:, 0]]
    for rows, column in zip(table[1:], indices.T[1:], strict=True):
        total += rows[column]
    return total


def _by_chunks(score: Score, groups: int) -> Score:
    def scored(indices: Tensor) -> Tensor:
        check_indices(indices, groups, len(RATES))
        return torch.cat([score(part) for part in indices.split(CHUNK)])

    return scored
