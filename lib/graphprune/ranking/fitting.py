"""The one way an encoder and its head are trained on numbers: squared errors, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def minimise(
    losses: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """One step down each loss; the next one is made after the step.

    Args:
        losses: () each, with a gradient.
        optimizer: takes the steps.
        schedule: of the step size, moved on with every step; None leaves it.

    >>> x = torch.tensor(4.0, requires_grad=True)
    >>> minimise((x.square() for _ in range(2)), torch.optim.SGD([x], lr=0.25))
    >>> x.item()
    1.0
    """
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()


def squared_errors(
    predict: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, epochs: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """The mean squared error of each batch, every row once an epoch.

    Args:
        predict: (B, ...) rows of x -> (B,).
        x, y: (N, ...) and (N,).
        epochs, batch_size: passes over them, and rows a batch.
        generator: of the order.
    """
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            yield (predict(x[rows]) - y[rows]).square().mean()


def standardise(values: Tensor) -> Tensor:
    """Mean 0 and deviation 1; all 0 where they are equal, (N,) -> (N,) float32.

    >>> standardise(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return ((values - values.mean()) / values.std().clamp_min(1e-9)).float()
