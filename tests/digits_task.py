"""A pruning task small enough for tests: ResNet-8, two passes over real digits, and budgets of a fraction of a second."""

from functools import cache

from graphprune import data, models, trace, train
from graphprune.train import Recipe

LIGHT = Recipe(epochs=0.3, lr=0.05, batch_size=64)
FULL = Recipe(epochs=0.6, lr=0.05, batch_size=64)


@cache
def task():
    """(model, graph, data); the model knows something (about 0.85), so that pruned versions of it differ."""
    digits = data.load("digits", device="cpu")
    model = models.seeded("resnet8", 0, in_channels=1)
    train.fit(model, digits, Recipe(epochs=2, lr=0.1, batch_size=64), seed=0, device="cpu")
    return model, trace(model, digits.example()), digits


def setting(folder, **changes):
    """Keyword arguments that every arm takes."""
    return {"macs_window": (0.3, 0.4), "m": 4, "k": 2, "n_jobs": 1, "light": LIGHT, "full": FULL, "folder": folder} | changes
