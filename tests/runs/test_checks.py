"""Argument checks: what passes, what does not, and what is said."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import graphprune
from graphprune.runs import checks


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_that_are_large_enough_pass(value: Any) -> None:
    checks.at_least(1, n=value)


@pytest.mark.parametrize(("value", "said"), [(0, "n=0: must be at least 1"), (-2, "n=-2: must be at least 1")])
def test_what_is_too_small_is_named(value: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}, e.g. 5$"):
        checks.at_least(1, ", e.g. 5", m=4, n=value)


@pytest.mark.parametrize("value", [1.5, 2.0, "3", None, True, math.nan, [1]])
def test_what_is_no_whole_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n=.*: must be a whole number, at least 1$"):
        checks.at_least(1, n=value)


def test_shares() -> None:
    checks.share(a=0, b=1, c=0.25)
    for value in (-0.01, 1.01, math.nan, math.inf, "0.5", None, True):
        with pytest.raises(ValueError, match=r"^a=.*: must be a number from 0 to 1$"):
            checks.share(a=value)


def test_what_is_no_network_is_named_with_the_remedy() -> None:
    small = graphprune.prune_to(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8), macs=0.5)
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    data = graphprune.data.from_tensors(train=(x, y), val=(x, y))
    recipe = graphprune.train.Recipe(epochs=1, lr=0.1, batch_size=10)
    checks.demand_network(small.network)
    for call in (
        lambda: graphprune.train.fit(small, data, recipe, seed=0),
        lambda: graphprune.train.finetune(small, data, recipe, seed=0),
        lambda: graphprune.train.evaluate(small, data),
        lambda: graphprune.train.reestimate_bn(small, data),
        lambda: graphprune.importance.l1(small, small.graph),
        lambda: graphprune.trace(small, x),
        lambda: graphprune.cost(small, x),
        lambda: graphprune.prune(small, small.graph, small.keep),
        lambda: graphprune.load_pruned("small.safetensors", small),
    ):
        with pytest.raises(TypeError, match=r"^model must be .*got Pruned; of what prune_to returned give \.network$"):
            call()


def test_a_function_with_other_arguments_is_named_with_those_that_it_takes() -> None:
    names = ["model", "graph"]
    for right in (lambda m, g: 0, lambda model, graph, data=None: 0, lambda *both: 0, lambda model, graph, *, seed: 0, max):
        checks.takes("scores", right, names, ["seed"])
    for wrong, found in (
        (lambda m: 0, "m"),
        (lambda graph, model: 0, "graph, model"),
        (lambda model, graph, size: 0, "model, graph, size"),
        (lambda model, graph, *, size: 0, "model, graph, size"),
    ):
        with pytest.raises(TypeError, match=rf"^scores: the function must take \(model, graph\), and takes \({found}\)$"):
            checks.takes("scores", wrong, names, ["seed"])


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(2), torch.tensor(0.5)])
def test_every_kind_of_number_is_one(value: Any) -> None:
    checks.demand_number("e.g. 0.5", sparsity=value)


@pytest.mark.parametrize("value", ["0.5", None, [0.5], torch.ones(1)])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"lam=.*: must be a number, got .*; e\.g\. 0\.5"):
        checks.demand_number("e.g. 0.5", lam=value)
