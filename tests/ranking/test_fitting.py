"""The trainer against steps and sums by hand."""

import torch

from graphprune.ranking.fitting import minimise, squared_errors, standardise


def test_every_row_counts_once_an_epoch() -> None:
    x, y = torch.arange(5.0), torch.zeros(5)
    losses = list(squared_errors(lambda rows: rows, x, y, epochs=2, batch_size=2, generator=torch.Generator().manual_seed(0)))
    assert len(losses) == 2 * 3
    sizes = torch.tensor([2, 2, 1] * 2)
    assert (torch.stack(losses) * sizes).sum().item() == 2 * (1 + 4 + 9 + 16)


def test_the_order_is_the_generators() -> None:
    def first(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return next(
            squared_errors(lambda x: x, torch.arange(64.0), torch.zeros(64), epochs=1, batch_size=1, generator=generator)
        )

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_each_loss_is_made_after_the_step_before() -> None:
    """x = 8 and f = x^2 / 2: a step of size 1/2 halves x."""
    x, seen = torch.tensor(8.0, requires_grad=True), []

    def losses():
        for _ in range(3):
            seen.append(x.item())
            yield x.square() / 2

    minimise(losses(), torch.optim.SGD([x], lr=0.5))
    assert (seen, x.item()) == ([8.0, 4.0, 2.0], 1.0)


def test_a_schedule_moves_with_every_step() -> None:
    """Step sizes 1/2 and 1/4: 8 -> 4 -> 3."""
    x = torch.tensor(8.0, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=0.5)
    minimise((x.square() / 2 for _ in range(2)), optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    assert x.item() == 3.0


def test_standardised_numbers_have_mean_0_and_deviation_1() -> None:
    assert standardise(torch.tensor([4.0, 2.0, 6.0])).tolist() == [0.0, -1.0, 1.0]
    assert standardise(torch.full((3,), 0.5)).tolist() == [0.0, 0.0, 0.0]
    assert standardise(torch.tensor([1.0, 2.0], dtype=torch.float64)).dtype == torch.float32
