"""A training's place in its course: batches from any step on, sums that are stored, a loss that has diverged."""

import math

import pytest
import torch
from torch import Tensor, nn

from graphprune.training.recipe import Recipe
from graphprune.training.splits import Augment, TensorSplit
from graphprune.training.training_state import CHECK_EVERY, EpochSums, TrainingState

RECIPE = Recipe(epochs=2, lr=0.1, batch_size=2, augment=False)


def split() -> TensorSplit:
    """Six images of one pixel, the class of each its number."""
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    return TensorSplit((0.0,), (1.0,), Augment(0, False), torch.device("cpu"), torch.arange(6), images)


def course(seed: int = 0) -> TrainingState:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return TrainingState(model, optimizer, split(), RECIPE, torch.Generator().manual_seed(seed), seed)


def classes(one: TrainingState, steps: int) -> list[list[int]]:
    """The labels of the next batches, gone through as a training does."""
    found = []
    batches = one.batches()
    for _ in range(steps):
        found.append(next(batches)[1].tolist())
        one.step += 1
    return found


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    one = course()
    assert (one.steps, one.per_epoch) == (6, 3)
    found = classes(one, 6)
    first, second = ([label for batch in epoch for label in batch] for epoch in (found[:3], found[3:]))
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert list(one.batches()) == []


@pytest.mark.parametrize("stop", range(7))
def test_from_any_step_on_the_batches_are_those_that_were_to_come(stop: int) -> None:
    whole = classes(course(), 6)
    begun = course()
    assert classes(begun, stop) == whole[:stop]
    again = course(seed=1)
    again.restore(begun.state())
    assert again.step == stop
    assert classes(again, 6 - stop) == whole[stop:]


def test_a_state_holds_weights_momentum_and_the_global_generator() -> None:
    one, other = course(), course()
    nn.init.constant_(one.model[1].weight, 7.0)
    one.model[1](torch.ones(1, 1)).sum().backward()
    one.optimizer.step()
    state = one.state()
    drawn = torch.rand(3)
    other.restore(state)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other.model[1].weight, one.model[1].weight)
    first, second = (next(iter(course.optimizer.state.values()))["momentum_buffer"] for course in (one, other))
    assert torch.equal(first, second)
    assert other.optimizer.param_groups[0]["momentum"] == 0.9


def test_an_epoch_ends_at_its_last_step_and_at_the_last_of_all() -> None:
    one = course()
    ends = []
    for one.step in range(1, 7):
        ends.append(one.at_epochs_end)
    assert ends == [False, False, True, False, False, True]
    one.steps = one.step = 5
    assert one.at_epochs_end


def row(loss: float, hits: int = 1, n: int = 2) -> tuple[Tensor, Tensor, int]:
    return torch.tensor(loss), torch.tensor(hits), n


def test_a_mean_loss_is_over_images_and_an_epoch_starts_at_nothing() -> None:
    tally = EpochSums(seed=0)
    tally.add(*row(1.0, hits=3, n=4))
    tally.add(*row(4.0, hits=0, n=2))
    assert tally.close() == {"loss": 2.0, "accuracy_train": 0.5}
    tally.add(*row(5.0, hits=2))
    assert tally.close() == {"loss": 5.0, "accuracy_train": 1.0}


def test_a_tally_that_was_stored_goes_on() -> None:
    tally, again = EpochSums(seed=0), EpochSums(seed=0)
    tally.add(*row(9.0))
    tally.close()
    tally.add(*row(1.0, hits=0))
    again.restore(tally.state(), torch.device("cpu"))
    for one in (tally, again):
        one.add(*row(3.0, hits=2))
    assert tally.close() == again.close() == {"loss": 2.0, "accuracy_train": 0.5}
    again.restore(EpochSums(seed=0).state(), torch.device("cpu"))
    assert (again.seen, again.rows) == (0, [])


def test_a_diverged_loss_is_named_by_its_step_since_the_training_began() -> None:
    tally = EpochSums(seed=3)
    tally.add(*row(1.0))
    tally.close()
    tally.add(*row(2.0))
    tally.add(*row(math.inf))
    with pytest.raises(FloatingPointError, match=r"the loss is inf at step 3 \(seed 3\): lower lr, or add warmup=0\.1"):
        tally.close()


def test_losses_are_looked_at_before_an_epoch_ends() -> None:
    tally = EpochSums(seed=0)
    for number in range(CHECK_EVERY - 1):
        tally.add(*row(math.nan if number == 4 else 1.0))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5 "):
        tally.add(*row(1.0))
