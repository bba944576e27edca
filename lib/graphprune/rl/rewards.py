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
    P' is over episodes within the budget only [our reading]: one that misses it may be a larger network, with which those
    that keep to it would compete in vain. Both averages begin with the first batch that has something to say on them.

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
        within, now = excess <= 0, {"excess": excess.mean().item()}
        if bool(within.any()):
            now["performance"] = performance[within].mean().item()
        past = {**now, **memory}
        by_excess = _sign(past["excess"] - excess)
        by_performance = _sign(performance - past.get("performance", 0.0))  # 0: nobody is within, so it is not looked at
        rewards = by_performance.where(within & (past["excess"] <= 0), by_excess)
        return rewards, {name: value + self.rate * (now.get(name, value) - value) for name, value in past.items()}


def _sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; NaN stays NaN, where torch's is 0 and would hide it."""
    return x.sign().where(~x.isnan(), x)


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
        if not self.multiplier >= 0:
            raise ValueError(f"multiplier={self.multiplier}: must be at least 0, e.g. 1")
        if not self.step > 0:
            raise ValueError(f"step={self.step}: must be above 0, e.g. 1")

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
