"""Scores of whole networks: groups, status, bound and gap, and what is refused before any work."""

import math
from functools import partial

import pytest
import torch
from tiny_programs import conv, fc, images
from torch import nn

import graphprune
from graphprune import neurons
from graphprune.neurons import gradient
from graphprune.neurons.scores import Scores, mean_of

Y = torch.tensor([0, 1])


@pytest.fixture(autouse=True)
def short_descent(monkeypatch):
    """Fewer steps of gradient descent than users have, to save time."""
    monkeypatch.setattr(gradient, "descend", partial(gradient.descend, steps=40, starts=1))


def test_scores_are_of_the_graphs_groups_and_carry_their_proof():
    net, x = fc(0, 2, 3, 2, 2), images(0, 2, 2)
    found = neurons.scores(net, x, Y, lam=2.0)
    assert {name: len(part) for name, part in found.items()} == {"0": 3, "2": 2}
    assert all(bool(((part >= 0) & (part <= 1)).all()) for part in found.values())
    assert found.status == "optimal"
    assert found.gap == found.objective - found.bound <= 3e-3
    assert found.sizes["images"] == 2
    assert 1 <= found.sizes["binaries"] <= 4


@pytest.mark.parametrize("solver", ["mip", "relaxation", "gradient"])
@pytest.mark.parametrize("program", ["exact", "published"])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_every_solver_takes_convolutions_bn_and_pooling(program, solver, pool):
    net = conv(0, pool)
    found = neurons.scores(net, images(1, 2, 1, 5, 5), Y, program=program, solver=solver, time_limit=20)
    assert {name: len(part) for name, part in found.items()} == {"0": 2, "4": 3}
    allowed = {"mip": {"optimal"}, "relaxation": {"optimal", "relaxation"}, "gradient": {"local"}}
    assert found.status in allowed[solver]
    assert found.objective <= math.inf if solver == "gradient" else found.objective >= found.bound - 1e-6


def test_gradient_descent_knows_no_bound():
    found = neurons.scores(fc(0, 2, 3, 2), images(0, 2, 2), Y, solver="gradient")
    assert (found.status, found.bound, found.gap) == ("local", -math.inf, math.inf)


def test_scores_fit_wherever_l1_does():
    net, x = fc(1, 2, 6, 4, 2), images(1, 2, 2)
    graph = graphprune.trace(net, x[:1])
    keep = graphprune.keep_from_rates(graph, [5, 5], neurons.scores(net, x, Y, solver="gradient"))
    small = graphprune.prune(net, graph, keep)
    assert [small[0].out_features, small[2].out_features] == [3, 2]


def test_classes_of_their_own_are_averaged():
    net, x = fc(2, 2, 3, 2, 2), images(2, 2, 2)
    found = neurons.per_class(net, x, Y, lam=2.0)
    alone = [neurons.scores(net, x[i : i + 1], Y[i : i + 1], lam=2.0) for i in range(2)]
    assert torch.allclose(found["0"], (alone[0]["0"] + alone[1]["0"]) / 2)
    assert found.status == "optimal"
    assert found.objective == pytest.approx((alone[0].objective + alone[1].objective) / 2)
    assert found.sizes["rows"] == alone[0].sizes["rows"] + alone[1].sizes["rows"]


def test_one_time_limit_makes_the_mean_no_optimum():
    good = Scores({"a": torch.ones(1)}, "optimal", 1.0, 1.0, 0.1, {"rows": 1})
    bad = Scores({"a": torch.zeros(1)}, "time limit", 2.0, 0.0, 0.1, {"rows": 2})
    both = mean_of([good, bad])
    assert both.status == "time limit"
    assert both["a"].item() == 0.5
    assert both.gap == 1.0


def test_a_short_time_is_a_time_limit_with_the_best_scores_seen():
    found = neurons.scores(fc(3, 4, 16, 16, 2), images(3, 4, 4), torch.tensor([0, 1, 0, 1]), time_limit=0.05)
    assert found.status == "time limit"
    assert found.gap > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": "mine"}, "program='mine'"),
        ({"solver": "simplex"}, "solver='simplex'"),
        ({"lam": 0.0}, r"lam=0\.0"),
        ({"lam": math.nan}, "lam=nan"),
        ({"radius": -1e-5}, "radius=-1e-05"),
        ({"radius": math.inf}, "radius=inf"),
        ({"time_limit": 0}, "time_limit=0"),
        ({"labels": torch.tensor([0, 2])}, "the network has the classes 0 to 1"),
        ({"labels": torch.tensor([0])}, r"labels: torch.int64 \(1,\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels: torch.float32"),
        ({"images": torch.full((2, 2), math.nan)}, "of finite numbers only"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, message):
    given = {"images": images(0, 2, 2), "labels": Y} | change
    with pytest.raises(ValueError, match=message):
        neurons.scores(fc(0, 2, 3, 2), **given)


def test_weights_that_are_not_finite_are_refused():
    net = fc(0, 2, 3, 2)
    net[2].bias.data[0] = math.inf
    with pytest.raises(ValueError, match="outputs are not finite"):
        neurons.scores(net, images(0, 2, 2), Y)


def test_a_layer_too_large_for_a_program_is_named():
    layers = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9216, 2),
    ]
    with pytest.raises(ValueError, match=r"layer '2' maps 9,216 numbers to 9,216, too many for one program"):
        neurons.scores(nn.Sequential(*layers), images(0, 1, 1, 48, 48), Y[:1], program="published")


@pytest.mark.parametrize("argument", ["lam", "radius", "time_limit"])
@pytest.mark.parametrize("score", [neurons.scores, neurons.per_class])
def test_text_is_no_number(score, argument):
    with pytest.raises(TypeError, match=rf"{argument}='5': must be a number, got str; e\.g\."):
        score(fc(0, 2, 3, 2), images(0, 2, 2), Y, **{argument: "5"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": Y[:1]}, r"labels: torch.int64 \(1,\); must be whole numbers of shape \(2,\)"),
        ({"images": images(0, 0, 2), "labels": Y[:0]}, r"images of shape \(0, 2\): there must be one or more"),
        ({"time_limit": -1}, "time_limit=-1: must be above 0 seconds"),
    ],
)
def test_programs_by_class_name_what_they_were_given(change, message):
    with pytest.raises(ValueError, match=message):
        neurons.per_class(fc(0, 2, 3, 2), **({"images": images(0, 2, 2), "labels": Y} | change))
