"""Who stands in the contest of rankers: every reading of SACP's similarity, its ablations, baselines, learners, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from graphprune.encoders import contrast, local_search
from graphprune.encoders.ranker import Ranker, RankFunction, prepare
from graphprune.encoders.scorer import Scorer
from graphprune.exact import solve
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.window import Score
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.colony_ranker import Bees
from graphprune.ranking.distilled import Distilled, Taught
from graphprune.ranking.learners import Regression, Ridge, Trees
from graphprune.ranking.nested_contrast import Nested
from graphprune.ranking.proxies import Naswot, Recalibrated, SynFlow
from graphprune.ranking.rankers import (
    KeptRatio,
    LogWidths,
    Macs,
    Params,
    RandomOrder,
    RawCosine,
    RetainedMass,
    Similarity,
    Taylor,
    Untrained,
)
from graphprune.ranking.surrogate import ensemble
from graphprune.runs import runtime
from graphprune.studies.census import Survey

ANCHORS = {"unpruned": contrast.anchor_unpruned, "l1": contrast.anchor_l1, "first": contrast.anchor_first}
LOSSES = {"printed": contrast.loss_printed, "all": contrast.loss_repel_all, "own": contrast.loss_repel_own}
FULLY = ("random", "similarity", "log_widths", "default")
"""Whose candidates are trained fully, too."""
KINDS = ("gcn", "gat", "sage")
APART = 3  # groups in which any two of a diverse choice differ
PATIENCE = 180.0  # seconds for a proof
TAU = 0.5  # least R(r) of constrained training configurations
KNOWN = 128  # labels of the learner that names candidates
LABELS = (16, 32, 64, 128, 256, 512)


def readings(seeds: int) -> dict[str, Ranker]:
    """SACP's similarity under every reading of encoder, anchor and loss."""
    return {
        f"similarity_{kind}_{anchor}_{loss}_{seed}": Similarity(kind, seed=seed, triads=ANCHORS[anchor], loss=LOSSES[loss])
        for kind in KINDS
        for anchor in ANCHORS
        for loss in LOSSES
        for seed in range(seeds)
    }


def ablations(seeds: int) -> dict[str, Ranker]:
    """The paper's most literal reading, one thing changed at a time (SACP, table 4, and what it leaves open)."""
    literal = Similarity()
    changes: dict[str, Callable[[int], Ranker]] = {
        "no_graph": lambda seed: Redrawn(replace(literal, seed=seed), drop_edges),
        "no_bn": lambda seed: Redrawn(replace(literal, seed=seed), drop_batch_norm),
        "undirected": lambda seed: replace(literal, seed=seed, undirected=True),
        "constrained": lambda seed: replace(literal, seed=seed, min_ratio=TAU),
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

    ranker: Ranker | RankFunction
    change: Callable[[ChannelGraph], ChannelGraph]

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return prepare(self.ranker, self.change(graph), model)


def drop_edges(graph: ChannelGraph) -> ChannelGraph:
    """The same nodes without edges: what a multilayer perceptron on each node sees."""
    return replace(graph, edge_index=graph.edge_index[:, :0])


def drop_batch_norm(graph: ChannelGraph) -> ChannelGraph:
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


def draw_labels(indices: Tensor, accuracies: Tensor, n: int, draw: int) -> tuple[Tensor, Tensor]:
    """The first n of the labels, in an order of their own for each draw."""
    some = torch.randperm(len(indices), generator=runtime.seed_generator(draw, "labels"))[:n]
    return indices[some], accuracies[some]


def learners(indices: Tensor, accuracies: Tensor, draws: int) -> dict[str, Ranker]:
    """Rankers that learn from n labels, each from several draws of them.

    Args:
        indices, accuracies: (N, groups) and (N,), the labels there are.
    """
    found: dict[str, Ranker] = {}
    for n in (n for n in LABELS if n <= len(indices)):
        for draw in range(draws):
            known = draw_labels(indices, accuracies, n, draw)
            found[f"sacp1_{n}_{draw}"] = Regression(*known, seed=draw)
            found[f"trees_{n}_{draw}"] = Trees(*known, seed=draw)
            found[f"ridge_{n}_{draw}"] = Ridge(*known)
    return found


def own_rankers(distilled: Distilled, indices: Tensor, accuracies: Tensor, draws: int) -> dict[str, Ranker]:
    """The suite's own: "default" and "nested_DRAW" without labels, "ours_N_DRAW" tuned on n of them."""
    found: dict[str, Ranker] = {"default": distilled}
    for draw in range(draws):
        found[f"nested_{draw}"] = Nested(seed=draw)
        found[f"nested_untrained_{draw}"] = Nested(steps=0, seed=draw)
    for n in (n for n in LABELS if n <= len(indices)):
        for draw in range(draws):
            found[f"ours_{n}_{draw}"] = Taught(*draw_labels(indices, accuracies, n, draw), replace(distilled, seed=draw))
    return found


@dataclass(frozen=True, eq=False)
class Carried(Ranker):
    """What was learned on one network, applied to another."""

    ranker: Distilled | Taught
    source: Survey

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return ensemble(self.ranker.fit(self.source.graph, self.source.model), graph)


def carry_rankers(source: Survey, ours: Mapping[str, Ranker]) -> dict[str, Ranker]:
    """The suite's own rankers as they were made on another network."""
    return {
        f"carried_{name}": Carried(ranker, source) for name, ranker in ours.items() if isinstance(ranker, Distilled | Taught)
    }


def bees(survey: Survey) -> Bees:
    """ABCPruner's colony, in the window of stratum T."""
    return Bees(survey.looked, survey.census.window, survey.census.flights)


def baselines(survey: Survey) -> dict[str, Ranker]:
    """What stands beside SACP: chance, sizes, importance kept, no training, no encoder, and the networks themselves."""
    data, example = survey.looked, survey.data.example()
    found: dict[str, Ranker] = {
        "ratio": KeptRatio(),
        "macs": Macs(example),
        "params": Params(example),
        "log_widths_groups": LogWidths("groups"),
        "log_widths_layers": LogWidths("layers"),
        "l1_mass": RetainedMass(),
        "taylor_mass": RetainedMass(Taylor(data)),
        "raw_cosine": RawCosine(),
        "class_means": ClassMeans(data),
        "recalibrated_accuracy": Recalibrated(data),
        "recalibrated_loss": Recalibrated(data, "loss"),
        "synflow": SynFlow(),
        "naswot": Naswot(data),
        "bees": bees(survey),
    }
    found |= {f"random_{seed}": RandomOrder(seed) for seed in range(10)}
    return found | {f"untrained_{kind}_{seed}": Untrained(kind, seed=seed) for kind in KINDS for seed in range(10)}


def candidates(default: Distilled, indices: Tensor, accuracies: Tensor) -> dict[str, Ranker]:
    """The main rankers: each names the best of a million draws, which are then measured (stratum T).

    Args:
        default: the suite's own.
        indices, accuracies: (N, groups) and (N,), the labels there are; `KNOWN` of them are used.
    """
    return {
        "random": RandomOrder(),
        "similarity": Similarity(),
        "similarity_own": Similarity(triads=contrast.anchor_unpruned, loss=contrast.loss_repel_own),
        "untrained": Untrained(),
        "log_widths": LogWidths("layers"),
        "sacp1": Regression(*draw_labels(indices, accuracies, KNOWN, 0)),
        "default": default,
        f"ours_{KNOWN}": Taught(*draw_labels(indices, accuracies, KNOWN, 0), default),
    }


def climbers(survey: Survey, ranker: Ranker | RankFunction) -> dict[str, Tensor]:
    """What looks further up a score than a million draws do, (n, groups) each, the best first.

    "local" and "evolution" ask for scores only (`local_search`). Where the score is a similarity, "optimum" is the proven
    best of all, and in "diverse" any two networks differ in at least `APART` groups (`exact.optimum`).
    """
    census, window, few = survey.census, replace(survey.anywhere, macs=survey.census.window), -(-survey.census.top // 3)
    score = prepare(ranker, survey.graph, survey.model)
    found: dict[str, Tensor] = {
        "local": local_search.climb(score, window, k=few).indices,
        "evolution": local_search.evolve(score, window, k=few).indices,
    }
    if isinstance(score, Scorer):
        highest = partial(solve.optimum, score, window.space, costs=window.costs, macs=census.window, seconds=PATIENCE)
        found["optimum"] = highest(k=census.top).indices
        found["diverse"] = highest(k=few, apart=APART).indices
    return found
