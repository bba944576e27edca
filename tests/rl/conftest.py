"""A small game and a small world that several tests play in, and the digits."""

import pytest
from tiny_game import QUICK

from graphprune import data, models
from graphprune.rl import world
from graphprune.rl.environment import game


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def rules(tiny, digits):
    return game(models.seeded("tiny_cnn", 0, in_channels=1), tiny, digits, 0.5, **QUICK)


@pytest.fixture(scope="module")
def few(digits):
    return world.make(["mlp"], digits, 4, seed=0, width=3, steps=60)
