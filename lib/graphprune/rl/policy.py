"""A policy that says which channels stay: a GATv2 over a network's graph, and draws of masks that spend a budget.

    1 settings   2 the policy   3 drawing within a budget

Source: graph RL pruning (arXiv 2509.10526: GAT encoder over layers and channels, one binary action a channel), whose sizes
and code are not public; what follows is our reading. `agent` says how a policy learns.

1. Bits are drawn *given that they spend the budget*. So no draw is wasted on a network that is too large, and no reward has
   to weigh accuracy against cost.
2. One policy serves all networks and budgets. It sees relative numbers alone, and the budget is a node feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from graphprune.pruning.budget import Budget
from graphprune.runs.checks import at_least

# --- 1 settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How the agent learns.

    Args:
        evaluations: masks judged in all; the agent's cost.
        episodes: masks drawn for one network and budget in an update; they are compared with each other.
        pairs: networks and budgets in an update on a world; on one network there is one.
        reward: "self", better or worse than the average of its own past on this network and budget (self-competition), or
            "standard", the performance less its mean, over its standard deviation, among the masks of the update.
        rate: what an update weighs in the average of the past, above 0 and at most 1.
        lr: AdamW's learning rate; on a world it falls linearly to 0, on one network it stays.
        entropy: what a nat of the draw's entropy is worth.
        hidden, layers, heads: of the policy.
        graph: let nodes look at each other; without, each channel is judged by itself (an MLP: the ablation).
        edges: let them see weights between channels; without, attention knows nodes alone (the other ablation).

    Raises:
        ValueError: a value out of its range.
    """

    evaluations: int = 512
    episodes: int = 16
    pairs: int = 48
    reward: Literal["self", "standard"] = "self"
    rate: float = 0.3
    lr: float = 2e-3
    entropy: float = 0.05
    hidden: int = 32
    layers: int = 3
    heads: int = 4
    graph: bool = True
    edges: bool = True

    def __post_init__(self) -> None:
        at_least(2, episodes=self.episodes)
        at_least(1, pairs=self.pairs, hidden=self.hidden, heads=self.heads)
        at_least(0, layers=self.layers)
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be above 0, e.g. 0.002")
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate}: must be above 0 and at most 1, e.g. 0.3")
        if not self.entropy >= 0:
            raise ValueError(f"entropy={self.entropy}: must be at least 0")
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden}: must be a multiple of heads={self.heads}")
        if self.reward not in ("self", "standard"):
            raise ValueError(f"reward={self.reward!r}: must be 'self' or 'standard'")
        if self.evaluations < self.episodes:
            raise ValueError(f"evaluations={self.evaluations}: must be at least episodes={self.episodes}, for one update")


# --- 2 the policy -----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """A GATv2 layer (Brody et al. 2022, eq. 7) over all pairs of nodes: pair features enter the attention and the message."""

    def __init__(self, hidden: int, pair_features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.receiver, self.sender = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.pair = nn.Linear(pair_features, hidden, bias=False)
        self.attend = nn.Parameter(torch.randn(heads, hidden // heads) * (heads / hidden) ** 0.5)
        self.message, self.told = nn.Linear(hidden, hidden), nn.Linear(pair_features, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, pairs: Tensor, there: Tensor) -> Tensor:
        """h (B, N, hidden), pairs (B, N, N, D) at [receiver, sender], there (B, N) bool -> (B, N, hidden)."""
        x, (batch, nodes, hidden) = self.norm(h), h.shape
        seen = self.receiver(x)[:, :, None] + self.sender(x)[:, None] + self.pair(pairs)
        seen = nn.functional.leaky_relu(seen, 0.2).view(batch, nodes, nodes, self.heads, -1)
        weight = (seen * self.attend).sum(-1).masked_fill(~there[:, None, :, None], -1e9).softmax(2)  # (B, N, N, heads)
        message = torch.einsum("bijh,bjhd->bihd", weight, self.message(x).view(batch, nodes, self.heads, -1))
        edge = torch.einsum("bijh,bije->bihe", weight, pairs)  # the mean edge as each head weighs it
        told = torch.einsum("bihe,hde->bihd", edge, self.told.weight.view(self.heads, -1, pairs.shape[3]))
        return h + self.mix(torch.relu((message + told).reshape(batch, nodes, hidden)))


class Policy(nn.Module):
    """A network's graph and a budget -> a score for each node; a channel's score says how dear it is.

    It knows no network: what it has learned on some it can say of others.
    """

    def __init__(self, features: int, pair_features: int, settings: Settings) -> None:
        super().__init__()
        self.settings, hidden = settings, settings.hidden
        self.first = nn.Sequential(nn.Linear(features + 2, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.attend = nn.ModuleList(
            Attention(hidden, pair_features, settings.heads) for _ in range(settings.layers if settings.graph else 0)
        )
        self.think = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))
            for _ in range(settings.layers)
        )
        final = nn.Linear(hidden, 1)
        nn.init.normal_(final.weight, std=0.02)  # all masks about as likely, to begin with
        nn.init.zeros_(final.bias)
        self.last = nn.Sequential(nn.LayerNorm(hidden), final)

    def forward(self, x: Tensor, pairs: Tensor, budget: Tensor) -> Tensor:
        """x (B, N, F), pairs (B, N, N, D), budget (B,), the share that may stay -> scores (B, N)."""
        there = x.abs().sum(2) > 0
        share = budget.to(x)[:, None, None].expand(-1, x.shape[1], 1)
        h = self.first(torch.cat([x, share, share * share], 2))
        pairs = pairs if self.settings.edges else torch.zeros_like(pairs)
        for layer, think in enumerate(self.think):
            if self.settings.graph:
                h = self.attend[layer](h, pairs, there)
            h = h + think(h)
        return 10 * torch.tanh(self.last(h)[..., 0] / 10)


# --- 3 drawing within a budget ----------------------------------------------------------------------------------------


def log_chances(scores: Tensor, masks: Tensor, allowed: Tensor) -> Tensor:
    """The logarithm of each mask's chance, given that the budget is spent, exactly, by going through all masks.

    Args:
        scores: (B, C).
        masks: (M, C), all of them, 1 = kept.
        allowed: (B, M) bool, the masks that spend the budget.

    >>> import torch
    >>> masks = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> chances = log_chances(torch.tensor([[0.0, 1.0]]), masks, masks.sum(1)[None] == 1).exp()
    >>> [round(chance, 3) for chance in chances[0].tolist()]  # one of two channels: e / (1 + e) and 1 / (1 + e)
    [0.731, 0.269, 0.0]
    """
    return (scores @ masks.T).masked_fill(~allowed, -torch.inf).log_softmax(1)


def draw(budget: Budget, scores: Tensor, count: int, generator: torch.Generator, slack: float = 0.02) -> Tensor:
    """Masks of a network that is too large to go through all of them: (count, num_atoms) bool.

    Independent bits, each with the chance sigmoid(score + shift), of which those are taken that cost between share - slack
    and share: the same distribution, given the budget, by rejection. The shift makes the budget likely. Masks that 20 rounds
    of 512 do not find are the draws nearest to it, fitted.

    Args:
        budget: what may stay.
        scores: (num_atoms,).
        slack: of the share.
    """
    graph, low, high = budget.costs.graph, -40.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        chance = (scores + middle).sigmoid()
        counts = torch.zeros(len(graph.groups), dtype=chance.dtype).index_add_(0, graph.owner, chance)
        above = float(budget.shares_of_counts(counts[None])) > budget.share - slack / 2
        low, high = (low, middle) if above else (middle, high)
    found: list[Tensor] = []
    for _ in range(20):
        masks = torch.rand(512, len(scores), generator=generator) < (scores + low).sigmoid()
        masks = masks[(budget.counts(masks) > 0).all(1)]
        shares = budget.shares(masks)
        found.append(masks[(shares <= budget.share) & (shares > budget.share - slack)])
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count]
    noise = torch.rand(count, len(scores), generator=generator).clamp(1e-6, 1 - 1e-6).logit()
    return torch.cat([*found, budget.fit(scores + noise)])[:count]
