"""Training: same seed, same bits; the best epoch stays; the seams do what they say."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from graphprune.compression import graph_data, networks, recipes, training
from graphprune.compression.link_task import LinkTask
from graphprune.compression.recipes import Recipe

KARATE = graph_data.load("karate")
RECIPE = replace(recipes.find("karate", "gcn"), epochs=6)


class Table(nn.Module):
    """Logits that do not depend on the graph."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.logits


def trained(seed: int) -> dict[str, Tensor]:
    net = networks.build("gcn", KARATE, RECIPE, seed=0)
    training.fit(net, KARATE, RECIPE, seed=seed)
    return net.state_dict()


def test_a_seed_gives_the_same_bits_and_another_gives_others() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = trained(0), trained(0), trained(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_best_epoch_on_validation_stays() -> None:
    net = networks.build("gcn", KARATE, RECIPE, seed=0)
    history = training.fit(net, KARATE, replace(RECIPE, epochs=20), seed=0)
    best = max(history, key=lambda row: (row["accuracy_val"], -row["loss_val"]))
    found = training.evaluate(net, KARATE, "val")
    assert (found.scores["accuracy"], found.loss) == (best["accuracy_val"], best["loss_val"])
    assert (len(history), history[0]["epoch"], net.training) == (20, 1.0, False)


def test_one_step_of_adam_by_hand() -> None:
    """Adam's first step moves every weight with a gradient by the learning rate, against the gradient's sign."""
    net = Table(torch.zeros(34, 2))
    training.fit(net, KARATE, Recipe(lr=0.1, weight_decay=0.0, epochs=1), seed=0)
    wanted = torch.zeros(34, 2)
    for node in KARATE.nodes["train"].tolist():
        right = int(KARATE.y[node])
        wanted[node, right], wanted[node, 1 - right] = 0.1, -0.1
    assert torch.allclose(net.logits, wanted, rtol=0, atol=1e-6)


def test_groups_penalty_and_the_hook_after_a_step_are_used() -> None:
    def slow(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
        return [{"params": list(model.parameters()), "lr": 0.01}]

    net = Table(torch.zeros(34, 2))
    training.fit(net, KARATE, Recipe(lr=0.1, weight_decay=0.0, epochs=1), seed=0, groups=slow)
    assert float(net.logits.detach().abs().max()) == pytest.approx(0.01, abs=1e-6)
    pulled = Table(torch.zeros(34, 2))
    training.fit(pulled, KARATE, Recipe(lr=0.1, weight_decay=0.0, epochs=1), seed=0, penalty=lambda m: 1e3 * m.logits.sum())
    assert torch.allclose(pulled.logits, torch.full((34, 2), -0.1), rtol=0, atol=1e-6)
    calls: list[float] = []
    net, recipe = Table(torch.zeros(34, 2)), Recipe(lr=0.1, epochs=3)
    training.fit(net, KARATE, recipe, seed=0, after_step=lambda _, optimizer: calls.append(optimizer.param_groups[0]["lr"]))
    assert calls == [0.1, 0.1, 0.1]


def test_evaluation_weighs_batches_by_their_graphs() -> None:
    atlas = graph_data.load("atlas")
    net = networks.build("gin", atlas, recipes.find("atlas", "gin"), seed=0)
    whole, parts = (training.evaluate(net, atlas, "test", batch_size=size) for size in (512, 100))
    assert whole.scores == parts.scores
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    with pytest.raises(FloatingPointError, match=r"no number in epoch 1: lower recipe.lr=0.01"):
        training.fit(Table(torch.full((34, 2), math.nan)), KARATE, Recipe(), seed=0)


@pytest.mark.data("graphs")
def test_a_gcn_on_cora_learns_what_it_should_in_sixty_epochs() -> None:
    cora, recipe = graph_data.load("cora"), replace(recipes.find("cora", "gcn"), epochs=60)
    net = networks.build("gcn", cora, recipe, seed=0)
    training.fit(net, cora, recipe, seed=0)
    assert training.evaluate(net, cora, "test").scores["accuracy"] > 0.78


@pytest.mark.parametrize("metric", ["auc", "ap"])
def test_validation_of_one_class_is_refused_before_any_step(metric: str) -> None:
    x, links = torch.eye(4), torch.tensor([[0, 1], [1, 2]])
    labels = {part: torch.ones(2, dtype=torch.int64) for part in ("train", "val", "test")}
    task = LinkTask("one", x, dict.fromkeys(labels, links), dict.fromkeys(labels, links), labels, metric=metric)
    net = Table(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="all 2 labels of val are 1, so the area under its curve is undefined"):
        training.fit(net, task, Recipe(epochs=1), seed=0)
    assert not net.logits.detach().any()
    assert net.logits.grad is None
