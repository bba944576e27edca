"""What an agent is told about a finished network, from how good it is and how far it is over the budget.

Each reward is a pure function (memory, performance, excess) -> (rewards, memory), so that an episode can be told again:

    performance P: (B,) float64, the share of correct validation images.
    excess V: (B,) float64, share of the cost that is kept - share that may be; above 0 the budget is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Memory = Mapping[str, float]


class Reward(Protocol):
    """A rule that turns the results of B episodes, played side by side, into their rewards."""

    @property
    def memory(self) -> Memory:
        """What it remembers before the first episode."""

    def __call__(self, memory: Memory, performance: Tensor, excess: Tensor) -> tuple[Tensor, Memory]:
        """(memory, (B,), (B,)) -> rewards (B,) and what is remembered after these episodes."""


@dataclass(frozen=True)
class SelfCompetition:
    """Be better than you were: no multiplier weighs accuracy against cost.

    Source: the reward of MuZero-RC (Mandhane et al. 2022, arXiv 2202.06626, section 3), which graph RL pruning names for
    its own [our reading of "competes with its own best"]. With moving averages P' and V' over past episodes,

        reward = sign(V' - V)  if V > 0 or V' > 0,  else sign(P - P').

    While the budget is missed on average only the excess counts; after that an episode within it is judged by P alone.
    P' is over episodes within the budget only [our reading]: one that misses it is a larger network, with which those
    that keep to it would compete in vain.

    Args:
        rate: what one batch of episodes weighs in the averages, above 0 and at most 1.
    """

    rate: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate}: must be above 0 and at most 1, e.g. 0.5")

    @property
    def memory(self) -> Memory:
        return {}

    def __call__(self, memory: Memory, performance: Tensor, excess: Tensor) -> tuple[Tensor, Memory]:
        within = excess <= 0
        past_excess = memory.get("excess", excess.mean().item())
        past_performance = memory.get("performance", (performance[within] if within.any() else performance).mean().item())
        by_excess = (past_excess - excess).sign()
        rewards = (performance - past_performance).sign().where(within & (past_excess <= 0), by_excess)
        averages = {"excess": past_excess + self.rate * (excess.mean().item() - past_excess)}
        gain = (performance[within].mean().item() - past_performance) if within.any() else 0.0
        return rewards, {**averages, "performance": past_performance + self.rate * gain}


@dataclass(frozen=True)
class Lagrangian:
    """P - multiplier V: the constraint priced, the price raised while the budget is missed and lowered while it is not.

    Source: PPO-Lagrangian (Ray et al. 2019, "Benchmarking Safe Exploration in Deep RL", section 5).

    Args:
        multiplier: before the first episode, at least 0.
        step: what the multiplier rises by when the mean excess is 1 (all of the network), above 0.
    """

    multiplier: float = 1.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.multiplier < 0 or self.step <= 0:
            raise ValueError(f"multiplier={self.multiplier}, step={self.step}: at least 0, and above 0")

    @property
    def memory(self) -> Memory:
        return {"multiplier": self.multiplier}

    def __call__(self, memory: Memory, performance: Tensor, excess: Tensor) -> tuple[Tensor, Memory]:
        multiplier = memory["multiplier"]
        raised = max(0.0, multiplier + self.step * excess.mean().item())
        return performance - multiplier * excess, {"multiplier": raised}


@dataclass(frozen=True)
class PlainAccuracy:
    """P where the budget is met, else 0."""

    @property
    def memory(self) -> Memory:
        return {}

    def __call__(self, memory: Memory, performance: Tensor, excess: Tensor) -> tuple[Tensor, Memory]:
        return performance * (excess <= 0), memory
