"""Steps and learning rates of a recipe, counted by hand."""

from dataclasses import replace

import pytest

from graphprune.training.recipe import Recipe

RECIPE = Recipe(epochs=1.5, lr=0.5, batch_size=4)


@pytest.mark.parametrize(("images", "batches"), [(8, 2), (9, 2), (10, 3), (1, 1), (3, 1)])
def test_a_single_left_over_image_is_no_batch(images, batches) -> None:
    assert RECIPE.steps_per_epoch(images) == batches


def test_steps_are_rounded_up_and_at_least_one() -> None:
    assert RECIPE.steps(10) == 5  # 1.5 x 3
    assert replace(RECIPE, epochs=0.01).steps(8) == 1
    assert replace(RECIPE, epochs=0.1).steps(40) == 1  # 0.1 x 10 is 1, not a little more


def test_a_cosine_falls_from_the_peak() -> None:
    """(1 + cos(pi t / 4)) / 4 for t = 0 ... 3."""
    assert [round(RECIPE.rate(step, 4), 4) for step in range(4)] == [0.5, 0.4268, 0.25, 0.0732]


def test_a_warm_up_climbs_to_the_peak_in_a_line() -> None:
    warm = replace(RECIPE, warmup=0.5)
    assert [round(warm.rate(step, 8), 4) for step in range(5)] == [0.125, 0.25, 0.375, 0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be a finite number above 0"),
        ({"lr": float("inf")}, "lr=inf: must be a finite number above 0"),
        ({"batch_size": True}, "batch_size=True: must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"momentum": 1}, "momentum=1: must be at least 0 and below 1"),
        ({"warmup": -0.1}, "warmup=-0.1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"nesterov": True, "momentum": 0}, "nesterov=True: must be False where momentum is 0"),
        ({"temperature": 0}, "temperature=0"),
        ({"teacher_weight": 1.1}, "teacher_weight=1.1: must be from 0 to 1"),
    ],
)
def test_what_is_out_of_range_is_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)


@pytest.mark.parametrize("name", ["epochs", "lr", "momentum", "weight_decay", "label_smoothing", "warmup", "temperature"])
def test_text_is_no_number(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}='0\.1': must be a number, got str; give it without quotes"):
        replace(RECIPE, **{name: "0.1"})
