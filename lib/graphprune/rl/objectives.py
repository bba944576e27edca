"""What the agent's objective is compared with: teachers that know the tables, and rewards that leave the bits free.

Each is an `agent.Objective`. The free ones draw every bit by itself, so that a mask may miss the budget; nothing behind them
projects it back, and what the constraint costs shows in their share of masks over the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphprune.rl.agent import regrets
from graphprune.rl.policy import Settings, log_chances
from graphprune.rl.rewards import Memory, SelfCompetition
from graphprune.rl.world import World


def imitate(
    world: World, rows: Tensor, _places: Tensor, allowed: Tensor, scores: Tensor, _generator: torch.Generator
) -> Tensor:
    """Supervised: minus the log-chance of the best mask of the budget, which only a table tells."""
    best = world.judgement[rows].masked_fill(~allowed, -torch.inf).argmax(1)
    return -log_chances(scores, world.masks, allowed).gather(1, best[:, None]).mean()


@dataclass(frozen=True)
class Regress:
    """Supervised: sums of scores are fitted to the standardised performance of random masks of the budget.

    Args:
        episodes: masks drawn for each network and budget.
    """

    episodes: int = 16

    def __call__(
        self, world: World, rows: Tensor, _places: Tensor, allowed: Tensor, scores: Tensor, generator: torch.Generator
    ) -> Tensor:
        drawn = allowed.float().multinomial(self.episodes, replacement=True, generator=generator)
        performance = world.performance[rows[:, None], drawn]
        truth = (performance - performance.mean(1, keepdim=True)) / (performance.std(1, keepdim=True) + 1e-3)
        said = torch.einsum("bsc,bc->bs", world.masks[drawn], scores)
        return ((said - said.mean(1, keepdim=True)) - truth).square().mean()


class Free:
    """Each bit drawn by itself: the constraint is left to the reward.

    Args:
        settings: `episodes`, `entropy` and `rate` are used.
        shares: (budgets,), the share of the MACs that may stay.
        networks: of the world.
        multiplier: of a Lagrangian at first, and `step`, what it rises by when the mean excess is 1; None: self-competition
            by MuZero-RC's rule (`rewards.SelfCompetition`), with one memory for each network and budget.

    Attributes:
        over: the share of masks over their budget, one number an update.
        regrets: points of those within it below the best, a mean an update; NaN where there is none.
    """

    def __init__(
        self, settings: Settings, shares: Tensor, networks: int, multiplier: float | None = None, step: float = 1.0
    ) -> None:
        self.settings, self.shares, self.step = settings, shares, step
        self.price = None if multiplier is None else torch.full((len(shares),), multiplier)
        self.rule = SelfCompetition(settings.rate)
        self.memories: list[list[Memory]] = [[{} for _ in shares] for _ in range(networks)]
        self.over: list[float] = []
        self.regrets: list[float] = []

    def __call__(
        self, world: World, rows: Tensor, places: Tensor, allowed: Tensor, scores: Tensor, generator: torch.Generator
    ) -> Tensor:
        chance = scores.sigmoid()
        drawn = torch.rand(len(rows), self.settings.episodes, world.channels, generator=generator) < chance.detach()[:, None]
        index = (drawn * (1 << torch.arange(world.channels))).sum(2)
        performance = world.performance[rows[:, None], index]
        excess = world.macs[rows[:, None], index] - self.shares[places, None]
        over = excess > 1e-6
        self.over.append(over.float().mean().item())
        self.regrets.append(regrets(world, rows, allowed, index)[~over].mean().item())
        if self.price is not None:
            reward = self._priced(places, performance, excess)
        else:
            reward = self._competing(rows, places, performance, torch.where(over, excess, excess.clamp(max=0)))
        gain = reward - reward.mean(1, keepdim=True)
        log_p = torch.distributions.Bernoulli(logits=scores[:, None]).log_prob(drawn.float()).sum(2)
        entropy = torch.distributions.Bernoulli(logits=scores).entropy().sum(1).mean()
        return -(gain * log_p).mean() - self.settings.entropy * entropy

    def _priced(self, places: Tensor, performance: Tensor, excess: Tensor) -> Tensor:
        assert self.price is not None
        spread = performance.std(1, keepdim=True) + 1e-3
        reward = performance / spread - self.price[places, None] * excess.clamp(min=0) * 10
        raised = torch.zeros_like(self.price).index_add_(0, places, excess.mean(1)) / len(places)
        self.price = (self.price + self.step * len(self.price) * raised).clamp(min=0)
        return reward

    def _competing(self, rows: Tensor, places: Tensor, performance: Tensor, excess: Tensor) -> Tensor:
        rewards = torch.empty_like(performance)
        for place, (row, budget) in enumerate(zip(rows.tolist(), places.tolist(), strict=True)):
            past = self.memories[row][budget]
            rewards[place], self.memories[row][budget] = self.rule(past, performance[place], excess[place])
        return rewards
