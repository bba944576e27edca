"""Contrastive training of the graph encoder: triads of masks, the losses, the loop (SACP, section 3.4).

With cosines scaled by a temperature, s_ij = cos(z1_i, z2_j) / temperature, the paper's eq. 6 is for row i

    l_i = -log( exp(s_ii - max_j s_ij) / (sum_j exp(s_ij - max_j s_ij) + eps) ),

averaged over the positives, averaged over the negatives, and added (eq. 7, 8). It never uses the label y_i, so the
"negative" term attracts too: `loss_printed`. Two readings let negatives repel: `loss_repel_all` and `loss_repel_own`.

The paper leaves the anchor open as well. If it is the unpruned network, one z1 for every row, then s_ij = s_j and

    mean_i l_i = log sum_j exp(s_j) - mean_j s_j >= log N, with equality only where all s_j are equal (Jensen):

as printed, the loss is least when the encoder tells no two configurations apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import BoolTensor, Tensor, nn
from torch.nn import functional as F

from graphprune.encoders.encoder import GraphEncoder
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.importance import l1
from graphprune.pruning.masks import Scores, as_scores, first_scores, kept_masks, random_masks
from graphprune.pruning.rates import RATES, Rate, RateSpace, check_indices, exact_rates
from graphprune.runs.checkpoint import Checkpoint
from graphprune.runs.checks import at_least
from graphprune.runs.runtime import progress, seed_generator

__all__ = [
    "Anchor",
    "Loss",
    "Triads",
    "anchor_first",
    "anchor_l1",
    "anchor_unpruned",
    "embed_triads",
    "fit",
    "loss_printed",
    "loss_repel_all",
    "loss_repel_own",
    "neighbours",
    "similarity",
]


def __dir__() -> list[str]:
    return __all__


Loss = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
EPS = 1e-8
PAPER_N = 10_000  # training configurations of VGG-16 and ResNet-18 (SACP, section 4.3)


@dataclass(frozen=True)
class Triads:
    """Masks over all atoms, (B, num_atoms) bool each, True = kept."""

    anchor: BoolTensor
    positive: BoolTensor
    negative: BoolTensor


Anchor = Callable[[ChannelGraph, Tensor, Scores, torch.Generator], Triads]
"""A reading of the anchor; for other rates than the paper's it takes a keyword `rates` too."""


def anchor_unpruned(
    graph: ChannelGraph, indices: Tensor, scores: Scores, generator: torch.Generator, rates: Sequence[Rate] = RATES
) -> Triads:
    """Reading (a): every anchor is the unpruned network (SACP, introduction and section 2.3).

    Positive: the configuration with the best channels by `scores`; negative: the same rates, random channels.

    Args:
        graph: the traced network.
        indices: (B, groups) int64 rate indices.
        scores: importance of each channel; L1 in the paper.
        generator: for the random masks.
        rates: what the indices index.
    """
    positive = kept_masks(graph, indices, scores, rates)
    return Triads(torch.ones_like(positive), positive, random_masks(graph, indices, generator, rates))  # type: ignore[arg-type]


def anchor_l1(
    graph: ChannelGraph, indices: Tensor, scores: Scores, generator: torch.Generator, rates: Sequence[Rate] = RATES
) -> Triads:
    """Reading (b): the anchor is the configuration with the best channels by `scores` (L1 in the paper).

    Positive: a neighbouring configuration with its best channels; the neighbour differs in one group, drawn uniformly, by
    one rate step up or down (inwards at the ends). Negative: that neighbour's rates with random channels, so that positive
    and negative differ only in which channels survive [our reading]. Arguments as `anchor_unpruned`.
    """
    near = neighbours(indices, generator, len(rates))
    return Triads(
        kept_masks(graph, indices, scores, rates),
        kept_masks(graph, near, scores, rates),
        random_masks(graph, near, generator, rates),
    )


def anchor_first(
    graph: ChannelGraph, indices: Tensor, scores: Scores, generator: torch.Generator, rates: Sequence[Rate] = RATES
) -> Triads:
    """Reading (c): the anchor is the configuration with an importance-free mask, each group's first channels.

    Positive: the same rates with the best channels by `scores` (L1 in the paper); negative: the same rates with random
    channels. The most literal reading of section 3.4. Arguments as `anchor_unpruned`.
    """
    return Triads(
        kept_masks(graph, indices, first_scores(graph), rates),
        kept_masks(graph, indices, scores, rates),
        random_masks(graph, indices, generator, rates),
    )


def neighbours(indices: Tensor, generator: torch.Generator, rates: int = len(RATES)) -> Tensor:
    """Configurations one rate step away in one group, (B, groups) -> (B, groups); indices lie below `rates`, 2 or more."""
    count, groups = indices.shape
    at = torch.randint(groups, (count, 1), generator=generator)
    step = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    now = indices.cpu().gather(1, at)
    last = rates - 1
    moved = torch.where((now + step < 0) | (now + step > last), now - step, now + step)
    return indices.cpu().scatter(1, at, moved).to(indices.device)


def loss_printed(z_anchor: Tensor, z_pos: Tensor, z_neg: Tensor, temperature: float, eps: float = EPS) -> Tensor:
    """Eq. 6 to 8 to the letter: the positives' loss plus the negatives', each of the same attracting form.

    Args:
        z_anchor, z_pos, z_neg: (B, D) embeddings, row i of each from triad i.
        temperature: > 0; the cosines are divided by it. Eq. 5 has no normalisation, the text says cosine: normalised.
        eps: added to the denominator.

    Returns:
        The scalar loss, at least about 2 log B where all similarities of a row are equal.
    """
    positive, negative = similarity(z_anchor, z_pos, temperature), similarity(z_anchor, z_neg, temperature)
    return _row_losses(positive.diagonal(), positive, eps).mean() + _row_losses(negative.diagonal(), negative, eps).mean()


def loss_repel_all(z_anchor: Tensor, z_pos: Tensor, z_neg: Tensor, temperature: float, eps: float = EPS) -> Tensor:
    """Eq. 6 over the positives, with all the batch's negatives in every row's denominator [our reading].

    Arguments as `loss_printed`.
    """
    positive, negative = similarity(z_anchor, z_pos, temperature), similarity(z_anchor, z_neg, temperature)
    return _row_losses(positive.diagonal(), torch.cat([positive, negative], 1), eps).mean()


def loss_repel_own(z_anchor: Tensor, z_pos: Tensor, z_neg: Tensor, temperature: float, eps: float = EPS) -> Tensor:
    """Eq. 6 over the positives, each row's denominator holding its own positive and negative only [our reading].

    Arguments as `loss_printed`.
    """
    own = torch.stack([F.cosine_similarity(z_anchor, z, dim=1) for z in (z_pos, z_neg)], 1) / temperature
    return _row_losses(own[:, 0], own, eps).mean()


def similarity(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Pairwise scaled cosines (eq. 5), (B, D) and (B', D) -> (B, B')."""
    return F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature


def _row_losses(own: Tensor, row: Tensor, eps: float) -> Tensor:
    """Eq. 6 for each row: own (B,) similarity against row (B, K), the largest subtracted from both."""
    largest = row.max(1).values
    return -(own - largest) + torch.log(torch.exp(row - largest[:, None]).sum(1) + eps)


def fit(
    encoder: GraphEncoder,
    graph: ChannelGraph,
    model: nn.Module,
    *,
    indices: Tensor | None = None,
    scores: Scores | None = None,
    triads: Anchor = anchor_first,
    loss: Loss = loss_printed,
    temperature: float = 0.5,
    epochs: int = 15,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    rates: Sequence[Rate] = RATES,
) -> list[float]:
    """Train the encoder in place with Adam on triads drawn afresh in every iteration (SACP, section 3.4).

    Args:
        encoder: the encoder; where it starts is its own affair (`GraphEncoder.seeded`).
        graph: the traced network.
        model: the network the graph is of; its L1 norms pick the positives' channels, as in the paper.
        indices: (N, groups) int64 training configurations; N = 10,000 drawn without constraint, as in the paper, if not given.
        scores: another importance in place of L1, group name -> (C,).
        triads: the reading of the anchor, `anchor_unpruned`, `anchor_l1` or `anchor_first`.
        loss: the reading of the loss, `loss_printed`, `loss_repel_all` or `loss_repel_own`.
        temperature: of the similarities; the paper gives no value.
        epochs: passes over the configurations, 10 to 20 in the paper.
        batch_size: triads a step, 32 in the paper.
        lr: Adam's step size; the paper gives none.
        seed: of the configurations drawn, their order and the random masks.
        checkpoint: goes on from the state stored there, offers it the state after every epoch, and so may stop at one.
        rates: what the indices index.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: an argument out of range, or `indices` or `scores` that do not fit the graph.
        FloatingPointError: the loss is not finite.
        checkpoint.Paused: the checkpoint's time is up.

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> len(fit(graphprune.GraphEncoder(hidden=8), graph, net, indices=torch.randint(10, (64, len(graph.groups))), epochs=2))
    2
    """
    scores = l1(model, graph) if scores is None else scores
    if indices is None:
        indices = RateSpace(graph, rates).sample(PAPER_N, 0, seed_generator(seed, "training configurations"))
    _check(graph, scores, indices, len(rates), temperature, epochs, batch_size, lr)
    if exact_rates(rates) != exact_rates(RATES):
        triads = partial(triads, rates=tuple(rates))  # type: ignore[call-arg]
    encoder.materialise(graph.feature_index.shape[1])
    optimizer = torch.optim.Adam(encoder.parameters(), lr=lr)
    generator = seed_generator(seed, "contrast")
    history: list[float] = []

    def state() -> dict[str, Any]:
        parts = {"model": encoder.state_dict(), "optimizer": optimizer.state_dict()["state"]}
        return {**parts, "generator": generator.get_state(), "history": history, "step": len(history)}

    if checkpoint is not None and (stored := checkpoint.load()) is not None:
        encoder.load_state_dict(stored["model"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": stored["optimizer"]})
        generator.set_state(stored["generator"])
        history += stored["history"]
    for epoch in progress(range(len(history), epochs), "contrastive training"):
        total = 0.0
        for rows in torch.randperm(len(indices), generator=generator).split(batch_size):
            z = embed_triads(encoder, graph, triads(graph, indices[rows], scores, generator))
            value = loss(*z, temperature, EPS)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.item() * len(rows)
        history.append(total / len(indices))
        if not math.isfinite(history[-1]):
            raise FloatingPointError(f"the loss is {history[-1]} in epoch {epoch + 1}: lower lr={lr} or raise temperature")
        if checkpoint is not None:
            checkpoint.offer(state)
    return history


def embed_triads(encoder: GraphEncoder, graph: ChannelGraph, triads: Triads) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of anchors, positives and negatives, (B, D) each, in one pass."""
    kept = torch.cat([triads.anchor, triads.positive, triads.negative])
    carriers, carries = _distinct(graph)
    device = next(encoder.parameters()).device
    x = carriers.features(kept.to(device))
    z_anchor, z_pos, z_neg = encoder.embed(x, graph.edge_index, carries.to(device)).chunk(3)
    return z_anchor, z_pos, z_neg


@lru_cache(maxsize=8)
def _distinct(graph: ChannelGraph) -> tuple[ChannelGraph, Tensor]:
    """The nodes that differ in features (a BN carries its convolution's), and which of them each node carries."""
    rows, carries = graph.feature_index.unique(dim=0, return_inverse=True)
    nodes = tuple(graph.nodes[int((carries == row).nonzero()[0])] for row in range(len(rows)))
    return replace(graph, nodes=nodes), carries


def _check(
    graph: ChannelGraph,
    scores: Scores,
    indices: Tensor,
    rates: int,
    temperature: float,
    epochs: int,
    batch_size: int,
    lr: float,
) -> None:
    as_scores(graph, scores)
    check_indices(indices, len(graph.groups), rates)
    if len(indices) < 2:
        raise ValueError(f"indices holds {len(indices)} configurations: a contrast needs at least 2, such as 2,000")
    for name, value in (("temperature", temperature), ("lr", lr)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value}: must be a positive number")
    at_least(1, epochs=epochs)
    at_least(2, batch_size=batch_size)
