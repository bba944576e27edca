"""A graph encoder that predicts numbers of pruned networks: kept shares -> GCN -> embedding -> a small head.

    z = encoder(shares of the configuration),    y = W2 ReLU(W1 z + b1) + b2

It is trained on what a cheap measurement says of many configurations, and may be adapted to the few accuracies there are
[ours; SACP-1, section 4.4, puts a linear layer on masks]. The embedding of a million configurations comes from look-up tables
(`Scorer`), and the head is two matrix products, so that all of them are scored in a second or two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.encoders.width_features import WIDTH, shares
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import first_scores, kept_masks
from graphprune.pruning.rates import RATES
from graphprune.pruning.window import Score
from graphprune.ranking.fitting import minimise, squared_errors, standardise
from graphprune.runs.runtime import seed_generator, seeded

BATCH = 64
DECAY = 0.01  # AdamW's
TILT = 0.5  # nats a rate step


class Surrogate(nn.Module):
    """An encoder with two heads: what a teacher says of a configuration, and what labels say.

    The second starts as the first: without labels both say the same.

    Args:
        hidden: width of the encoder, its embedding and the head.
        layers: of the encoder.
        seed: of the initial weights.
    """

    def __init__(self, hidden: int = 64, layers: int = 2, seed: int = 0) -> None:
        super().__init__()
        start = seed_generator(seed, "surrogate").initial_seed()
        self.encoder = GraphEncoder.seeded(start, WIDTH, hidden=hidden, layers=layers)
        with seeded(start):
            self.inner, self.heads = nn.Linear(hidden, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """(B, nodes, 16) -> (B, 2)."""
        return self.read(self.encoder.embed(x, edge_index))

    def read(self, z: Tensor) -> Tensor:
        """The heads on embeddings, (B, hidden) -> (B, 2)."""
        return self.heads(F.relu(self.inner(z)))  # type: ignore[no-any-return]

    def on(self, graph: ChannelGraph) -> Score:
        """Scores of a network's configurations, the one it was trained on or another: the mean of both heads.

        Which channels survive has no part in it, only how many.
        """
        own = copy.deepcopy(self)
        scorer = Scorer(own.encoder, graph, first_scores(graph), features=shares(graph))
        return lambda indices: own.read(scorer.embed(indices)).mean(1).detach()


def ensemble(members: Sequence[Surrogate], graph: ChannelGraph) -> Score:
    """The mean of several surrogates' scores."""
    scores = [member.on(graph) for member in members]
    return lambda indices: torch.stack([score(indices) for score in scores]).mean(0)


def inputs(graph: ChannelGraph, indices: Tensor) -> Tensor:
    """Node features of configurations, (B, groups) -> (B, nodes, 16)."""
    return shares(graph)(kept_masks(graph, indices, first_scores(graph)))


def tilted(groups: int, n: int, generator: torch.Generator) -> Tensor:
    """Configurations of all sizes, (n, groups) rate indices: uniform draws would nearly all be of the middle size.

    Each configuration has a tilt u, uniform in [-0.5, 0.5], and each of its groups rate i with probability proportional to
    exp(u i): given the number of rate steps in all, every configuration is equally likely.
    """
    tilt = (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 2 - 1) * TILT
    chances = torch.softmax(tilt * torch.arange(len(RATES)), 1)
    return torch.multinomial(chances, groups, replacement=True, generator=generator)


def learn(
    surrogate: Surrogate, graph: ChannelGraph, indices: Tensor, taught: Tensor, *, epochs: int, lr: float, seed: int
) -> None:
    """Train both heads on what the teacher says, in place: squared error, AdamW, one cycle of the step size.

    Args:
        indices, taught: (N, groups) and (N,).
        epochs, lr, seed: passes over them, the highest step size, and the order.
    """
    x, y, generator = inputs(graph, indices), standardise(taught), seed_generator(seed, "surrogate, order")

    def predict(rows: Tensor) -> Tensor:
        return surrogate(rows, graph.edge_index)[:, 0]  # type: ignore[no-any-return]

    losses = squared_errors(predict, x, y, epochs=epochs, batch_size=BATCH, generator=generator)
    minimise(losses, *_optimizer(surrogate, lr, epochs * -(-len(x) // BATCH)))
    with torch.no_grad():
        surrogate.heads.weight[1], surrogate.heads.bias[1] = surrogate.heads.weight[0], surrogate.heads.bias[0]


def adapt(
    surrogate: Surrogate,
    graph: ChannelGraph,
    lessons: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
) -> None:
    """Adapt a trained surrogate to labels, in place: the second head learns them while the first keeps to the teacher.

    Every step sees all labels and as many of the teacher's lessons as a batch holds.

    Args:
        lessons: (N, groups) and (N,), as `learn` has them.
        labels: (L, groups) and (L,), what was measured.
        steps, lr, seed: as in `learn`.
    """
    x, y = inputs(graph, lessons[0]), standardise(lessons[1])
    known, truth, generator = inputs(graph, labels[0]), standardise(labels[1]), seed_generator(seed, "surrogate, tuning")

    def losses() -> Iterator[Tensor]:
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            found = surrogate(torch.cat([x[rows], known]), graph.edge_index)
            told, said = found[BATCH:, 1] - truth, found[:BATCH, 0] - y[rows]
            yield told.square().mean() + said.square().mean()

    minimise(losses(), *_optimizer(surrogate, lr, steps))


def _optimizer(
    surrogate: Surrogate, lr: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.AdamW(surrogate.parameters(), lr=lr, weight_decay=DECAY)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
