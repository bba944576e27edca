"""Searches in a world of look-ups, all networks and budgets side by side: what a mask is worth as a start."""

from __future__ import annotations

import torch
from torch import Tensor

from graphprune.rl.world import World
from graphprune.runs.checks import at_least


def top(scores: Tensor, allowed: Tensor, masks: Tensor) -> Tensor:
    """The allowed mask of the largest sum of scores: (n, C), (n, M) bool, (M, C) -> index (n,).

    >>> import torch
    >>> masks = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> top(torch.tensor([[0.2, 0.9]]), masks.sum(1)[None] == 1, masks).tolist()
    [2]
    """
    return (scores.double() @ masks.T.double()).masked_fill(~allowed, -torch.inf).argmax(1)


def uniform(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """An allowed mask of each row, all as likely: (n, M) bool -> index (n,)."""
    return allowed.float().multinomial(1, generator=generator)[:, 0]


def climb(world: World, start: Tensor, allowed: Tensor, evaluations: int, generator: torch.Generator) -> Tensor:
    """Hill climbing from a mask: swap a kept channel for a dropped one, and stay where it is better.

    Only masks that were not judged before are tried, each try is one evaluation. Where all neighbours were judged the
    climb goes on from a random mask that was not. With all masks of a budget judged, the curve stays where it is.

    Args:
        world: what judges: accuracy, ties broken by the loss.
        start: (n,) index, the first mask judged.
        allowed: (n, 2^C) bool; a neighbour is a mask that spends the budget and lies one swap, or for budgets of MACs one
            channel, away.
        evaluations: masks judged, the start included.

    Returns:
        (n, evaluations): points of accuracy below the best mask of the budget, the best so far by `world.judgement`.
    """
    at_least(1, evaluations=evaluations)
    steps = _steps(world.channels)
    here, seen = start.clone(), torch.zeros_like(allowed)
    seen.scatter_(1, here[:, None], True)
    best = world.judgement.gather(1, here[:, None])[:, 0]
    top_value = best.clone()
    curve = [world.regret(here, allowed)]
    found = here.clone()
    for _ in range(evaluations - 1):
        near = here[:, None] ^ steps  # (n, neighbours)
        fresh = allowed.gather(1, near) & ~seen.gather(1, near)
        lost = ~fresh.any(1)
        pick = near.gather(1, (fresh.float() + lost[:, None]).multinomial(1, generator=generator))[:, 0]
        if bool(lost.any()):
            left = (allowed & ~seen)[lost]
            done = ~left.any(1)
            jump = (left.float() + done[:, None]).multinomial(1, generator=generator)[:, 0]
            pick[lost] = torch.where(done, found[lost], jump)
        seen.scatter_(1, pick[:, None], True)
        value = world.judgement.gather(1, pick[:, None])[:, 0]
        better = (value > best) | lost
        here, best = torch.where(better, pick, here), torch.where(better, value, best)
        found = torch.where(value > top_value, pick, found)
        top_value = torch.maximum(top_value, value)
        curve.append(world.regret(found, allowed))
    return torch.stack(curve, 1)


def _steps(channels: int) -> Tensor:
    """What a neighbour differs by, as exclusive or: two bits or one."""
    one = 1 << torch.arange(channels)
    first, second = torch.triu_indices(channels, channels, 1)
    return torch.cat([one, one[first] | one[second]])
