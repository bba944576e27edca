"""Two more readings of SACP's contrastive training (section 3.4), beside those of `contrast`.

Eq. 6 sums "over j = 1 .. N", and eq. 7 averages over positives P and negatives N. If the sum runs over all contrasts of a
batch, positives and negatives stand in one denominator, and the negatives keep a loss of their own: `loss_joint`.

The paper's negative is "generated through random pruning". If not only its channels but its rates, too, are random, it is a
network of another size than the positive: `random_rates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphprune.encoders.contrast import EPS, Anchor, Triads, anchor_first, similarity
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import Scores, random_masks
from graphprune.pruning.rates import RATES, Rate


def loss_joint(z_anchor: Tensor, z_pos: Tensor, z_neg: Tensor, temperature: float, eps: float = EPS) -> Tensor:
    """Eq. 6 to 8 with positives and negatives of the batch in one denominator, both losses kept [our reading].

        mean_i [ log D_i - s_i^pos ] + mean_i [ log D_i - s_i^neg ],   D_i = sum_j exp(s_ij^pos) + sum_j exp(s_ij^neg)

    An anchor's own negative is still attracted like its own positive, and both are repelled by all others.

    Args:
        z_anchor, z_pos, z_neg: (B, D) embeddings, row i of each from triad i.
        temperature: > 0; the cosines are divided by it.
        eps: added to the denominator after the largest similarity was taken out.

    Returns:
        The scalar loss, 2 log(2 B) where all similarities of a row are equal.

    >>> round(loss_joint(torch.eye(3), torch.ones(3, 3), torch.ones(3, 3), 1.0).item(), 4)  # 2 log 6
    3.5835
    """
    positive, negative = similarity(z_anchor, z_pos, temperature), similarity(z_anchor, z_neg, temperature)
    row = torch.cat([positive, negative], 1)
    largest = row.max(1).values
    total = largest + torch.log(torch.exp(row - largest[:, None]).sum(1) + eps)
    return (total - positive.diagonal()).mean() + (total - negative.diagonal()).mean()


def random_rates(
    graph: ChannelGraph,
    indices: Tensor,
    scores: Scores,
    generator: torch.Generator,
    rates: Sequence[Rate] = RATES,
    *,
    triads: Anchor = anchor_first,
) -> Triads:
    """Triads whose negative has random rates as well as random channels [our reading].

    Args:
        graph, indices, scores, generator, rates: as `contrast.anchor_first`.
        triads: the reading that anchor and positive come from.

    >>> import graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> whole = torch.zeros(1, len(graph.groups), dtype=torch.long)  # rate 0 everywhere
    >>> made = random_rates(graph, whole, graphprune.importance.l1(net, graph), torch.Generator().manual_seed(0))
    >>> bool(made.positive.all()), bool(made.negative.all())
    (True, False)
    """
    made = triads(graph, indices, scores, generator, rates)  # type: ignore[call-arg]
    elsewhere = torch.randint(len(rates), indices.shape, generator=generator)
    return replace(made, negative=random_masks(graph, elsewhere.to(indices.device), generator, rates))
