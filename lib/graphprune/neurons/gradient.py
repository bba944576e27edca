"""The third solver: projected gradient descent on the scores. It gives an upper bound, and the programs a start."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from graphprune.neurons import replay
from graphprune.neurons.bounds import Bounds
from graphprune.neurons.chain import Chain
from graphprune.runs import runtime


def descend(
    chain: Chain,
    bounds: Bounds,
    images: Tensor,
    labels: Tensor,
    lam: float,
    *,
    steps: int = 400,
    starts: int = 2,
    lr: float = 0.03,
    seed: int = 0,
    time_limit: float = float("inf"),
) -> tuple[list[Tensor], float]:
    """Scores of a low objective: Adam on s, clipped to [0, 1] after every step, from all ones and from random starts.

    At the end each score is set to 0 where that lowers the objective. Nothing is said about how far it is from the optimum.

    Args:
        steps: of each start. starts: the first is all ones. lr: falls to zero over the steps.
        time_limit: wall-clock seconds, after which the best scores so far are returned.
    Returns:
        the scores of each layer, (C,) float64, and their objective.
    """
    begun, best, found = time.monotonic(), float("inf"), replay.ones(chain)
    generator = runtime.seed_generator(seed, "neurons.descend")
    for start in range(starts):
        s = replay.ones(chain)
        if start:
            s = [1 - 0.5 * torch.rand(len(part), generator=generator, dtype=torch.float64) for part in s]
        s = [part.requires_grad_() for part in s]
        optimizer = torch.optim.Adam(s, lr=lr)
        for step in range(steps + 1):
            loss = replay.objective(chain, bounds, images, labels, s, lam)
            if loss.item() < best:
                best, found = loss.item(), [part.detach().clone() for part in s]
            if step == steps or time.monotonic() - begun > time_limit:
                break
            gradients = torch.autograd.grad(loss, s)
            for part, gradient in zip(s, gradients, strict=True):
                part.grad = gradient
            optimizer.param_groups[0]["lr"] = lr * (1.001 - step / steps)
            optimizer.step()
            with torch.no_grad():
                for part in s:
                    part.clamp_(0, 1)
    return _emptied(chain, bounds, images, labels, lam, found, best, begun + time_limit)


@torch.no_grad()
def _emptied(
    chain: Chain, bounds: Bounds, images: Tensor, labels: Tensor, lam: float, s: list[Tensor], best: float, until: float
) -> tuple[list[Tensor], float]:
    for part in s:
        for unit in part.argsort().tolist():
            old = part[unit].item()
            if old == 0 or time.monotonic() > until:
                continue
            part[unit] = 0.0
            now = replay.objective(chain, bounds, images, labels, s, lam).item()
            if now < best - 1e-12:
                best = now
            else:
                part[unit] = old
    return s, best
