"""The contest of rankers: the tables there are, who stands in them, and how one is made, piece by piece.

`build` draws stratum U, lets every ranker score it and name the best of a million (stratum T), measures what was drawn
and named, and writes the table with its card. All it makes is stored at once, so that a killed build goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from graphprune import contrast
from graphprune.census import Census
from graphprune.graph import ChannelGraph
from graphprune.rankers import (
    Ranker,
    Similarity,
)
from graphprune.recipe import Recipe
from graphprune.window import Score

_TRAINED = Recipe(epochs=30, lr=0.1, batch_size=64, warmup=0.1)
_LIGHT, _FULL = Recipe(epochs=1, lr=0.02, batch_size=64), Recipe(epochs=5, lr=0.05, batch_size=64)

CENSUSES = (
    Census("digits", "digits", "resnet20", _TRAINED, _LIGHT, _FULL, per_band=84, fully=300),
    Census("digits_seed1", "digits", "resnet20", _TRAINED, _LIGHT, _FULL, per_band=16, fully=0, top=0, seed=1),
    Census("digits_resnet8", "digits", "resnet8", _TRAINED, _LIGHT, _FULL, per_band=16, fully=0, top=0),
)

ANCHORS = {"unpruned": contrast.anchor_unpruned, "l1": contrast.anchor_l1, "first": contrast.anchor_first}
LOSSES = {"printed": contrast.loss_printed, "all": contrast.loss_repel_all, "own": contrast.loss_repel_own}
KINDS = ("gcn", "gat", "sage")
LABELS = (16, 32, 64, 128, 256, 512)


# --- who stands in it -------------------------------------------------------------------------------------------------


def readings(seeds: int) -> dict[str, Ranker]:
    """SACP's similarity under every reading of encoder, anchor and loss."""
    return {
        f"similarity_{kind}_{anchor}_{loss}_{seed}": Similarity(kind, seed=seed, triads=ANCHORS[anchor], loss=LOSSES[loss])
        for kind in KINDS
        for anchor in ANCHORS
        for loss in LOSSES
        for seed in range(seeds)
    }


def ablations(seeds: int, tau: float) -> dict[str, Ranker]:
    """The paper's most literal reading, one thing changed at a time (SACP, table 4, and what it leaves open)."""
    literal = Similarity()
    changes: dict[str, Callable[[int], Ranker]] = {
        "no_graph": lambda seed: Redrawn(replace(literal, seed=seed), unconnected),
        "no_bn": lambda seed: Redrawn(replace(literal, seed=seed), without_bn),
        "undirected": lambda seed: replace(literal, seed=seed, undirected=True),
        "constrained": lambda seed: replace(literal, seed=seed, min_ratio=tau),
        "temperature_0.1": lambda seed: replace(literal, seed=seed, temperature=0.1),
        "temperature_1": lambda seed: replace(literal, seed=seed, temperature=1.0),
        "n_256": lambda seed: replace(literal, seed=seed, n_train=256),
        "n_4096": lambda seed: replace(literal, seed=seed, n_train=4096),
        "layers_1": lambda seed: replace(literal, seed=seed, layers=1),
        "layers_3": lambda seed: replace(literal, seed=seed, layers=3),
        "hidden_16": lambda seed: replace(literal, seed=seed, hidden=16),
        "hidden_256": lambda seed: replace(literal, seed=seed, hidden=256),
    }
    return {f"ablation_{name}_{seed}": make(seed) for name, make in changes.items() for seed in range(seeds)}


@dataclass(frozen=True)
class Redrawn(Ranker):
    """A ranker that sees another graph of the same network."""

    ranker: Ranker
    change: Callable[[ChannelGraph], ChannelGraph]

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return self.ranker.prepare(self.change(graph), model)


def unconnected(graph: ChannelGraph) -> ChannelGraph:
    """The same nodes without edges: what a multilayer perceptron on each node sees."""
    return replace(graph, edge_index=graph.edge_index[:, :0])


def without_bn(graph: ChannelGraph) -> ChannelGraph:
    """No batch normalisation nodes: what led into one leads on to where it led."""
    edges = {(source, target) for source, target in graph.edge_index.T.tolist()}
    for node in (number for number, node in enumerate(graph.nodes) if node.kind == "bn"):
        into, out = [s for s, t in edges if t == node], [t for s, t in edges if s == node]
        edges = {edge for edge in edges if node not in edge} | {(s, t) for s in into for t in out}
    kept = [number for number, node in enumerate(graph.nodes) if node.kind != "bn"]
    place = {number: new for new, number in enumerate(kept)}
    pairs = sorted((place[s], place[t]) for s, t in edges)
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    return replace(graph, nodes=tuple(graph.nodes[number] for number in kept), edge_index=edge_index)
