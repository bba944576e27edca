"""SACP-1, the paper's ablation: the encoder trained on measured accuracies instead of by contrast (section 4.4, table 4).

A linear layer on the embedding predicts the accuracy of a configuration. The paper says neither from how many accuracies nor
how it was trained: here are squared error on standardised accuracies and Adam [our reading].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import Scores, kept_masks
from graphprune.ranking.fitting import minimise, squared_errors, standardise
from graphprune.runs.runtime import seed_generator


def predictor(
    graph: ChannelGraph,
    scores: Scores,
    indices: Tensor,
    accuracies: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
) -> tuple[Scorer, Tensor]:
    """Train an encoder and a linear layer to predict accuracies.

    Args:
        graph, scores: the network, and the importance that says which channels survive.
        indices, accuracies: (N, groups) rate indices and (N,) what was measured.
        epochs, batch_size, lr: of Adam.
        seed: of the initial weights and the order.

    Returns:
        A scorer and a direction w (D,): `scorer.embed(indices) @ w` orders configurations by their predicted accuracy.

    Raises:
        ValueError: fewer than 2 configurations, or not one accuracy for each.
    """
    if len(indices) < 2 or accuracies.shape != (len(indices),):
        raise ValueError(
            f"accuracies: got {tuple(accuracies.shape)} for {len(indices)} configurations; needs one each of 2 or more"
        )
    encoder = GraphEncoder.seeded(seed_generator(seed, "encoder").initial_seed(), graph.feature_index.shape[1])
    head = nn.Linear(encoder.hidden, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    x = graph.features(kept_masks(graph, indices, scores))

    def predict(rows: Tensor) -> Tensor:
        return head(encoder.embed(rows, graph.edge_index))[:, 0]  # type: ignore[no-any-return]

    losses = squared_errors(
        predict,
        x,
        standardise(accuracies),
        epochs=epochs,
        batch_size=batch_size,
        generator=seed_generator(seed, "regression"),
    )
    minimise(losses, torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=lr))
    return Scorer(encoder, graph, scores), head.weight[0].detach()
