"""Splits of one's own: every sample once, the same bits for the same seed, known by what is in them."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from graphprune.runs import runtime
from graphprune.training.objective import CLASSIFICATION, Objective
from graphprune.training.own_splits import Items, OwnTensors, pair_of, scaled
from graphprune.training.splits import Augment

CPU = torch.device("cpu")
X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6)


def tensors(x: Tensor = X, y: Tensor = Y, **more: object) -> OwnTensors:
    return OwnTensors((), (), Augment(0, False), CPU, y, x, **more)  # type: ignore[arg-type]


class Noisy:
    """Samples with noise from every generator there is."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(1) + float(np.random.rand()) + random.random()
        return X[i] + noise, Y[i]


def items(source: object = None, told: str | None = None) -> Items:
    collate = torch.utils.data.default_collate
    return Items((), (), Augment(0, False), CPU, torch.zeros(6, 0), source or Noisy(), collate, told=told)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_tensors_come_as_they_are_and_bytes_scaled() -> None:
    (x, y), (rest, _) = tensors().batches(4)
    assert x.equal(X[:4])
    assert y.tolist() == [0, 1, 2, 3]
    assert rest.equal(X[4:])
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
    assert scaled(X.double()).dtype == torch.float32
    assert scaled(Y).dtype == torch.int64


def test_a_change_of_the_training_inputs_comes_from_the_seed() -> None:
    split = tensors(change=lambda x: x + torch.rand(1))
    state = torch.get_rng_state()
    first, again = (next(split.batches(6, augment=True, generator=generator()))[0] for _ in range(2))
    assert first.equal(again)
    assert not first.equal(X)
    assert torch.get_rng_state().equal(state)
    assert next(split.batches(6))[0].equal(X)


def test_noise_of_a_sample_comes_from_the_seed_and_its_place_alone() -> None:
    split, states = items(), (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    fixed = torch.cat([x for x, _ in split.batches(4)])
    assert torch.cat([x for x, _ in split.batches(5)]).equal(fixed), "whatever the batches"
    shuffled = next(split.batches(6, shuffle=True, generator=generator()))
    assert shuffled[0].equal(fixed[shuffled[1]]), "whatever the order"
    drawn, again = (next(split.batches(6, augment=True, generator=generator()))[0] for _ in range(2))
    assert drawn.equal(again)
    assert not drawn.equal(fixed)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    assert after[0].equal(states[0])
    assert after[1:] == states[1:]


def test_the_fingerprint_follows_the_content_and_the_objective() -> None:
    other = X.clone()
    other[0, 0] += 1
    squared = Objective(lambda outputs, targets: (outputs - targets).square().mean())
    prints = [split.fingerprint() for split in (tensors(), tensors(X.clone()), tensors(other), tensors(objective=squared))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3

    class Plain:
        def __init__(self, x: Tensor) -> None:
            self.x = x

        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            return self.x[i], Y[i]

    prints = [items(Plain(X)).fingerprint(), items(Plain(X.clone())).fingerprint(), items(Plain(other)).fingerprint()]
    assert prints[0] == prints[1] != prints[2]
    assert items(Plain(X), told="a").fingerprint() == items(Plain(other), told="a").fingerprint(), "as told"
    assert tensors().objective == CLASSIFICATION


def test_pairs_by_place_and_by_name() -> None:
    assert pair_of([1, 2]) == (1, 2)
    assert pair_of({"pixel_values": 1, "labels": 2, "more": 3}) == (1, 2)
    with pytest.raises(TypeError, match="the names \\['a', 'label'\\] has no input: call it one of pixel_values, image"):
        pair_of({"a": 1, "label": 2})
    with pytest.raises(TypeError, match=r"must be .* and is 3 parts"):
        pair_of((1, 2, 3))
    with pytest.raises(TypeError, match="and is a Tensor"):
        pair_of(X)


def test_seeds_of_runs_give_different_orders() -> None:
    orders = [next(tensors().batches(6, shuffle=True, generator=runtime.seed_generator(s)))[1].tolist() for s in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == [0, 1, 2, 3, 4, 5]
    assert orders[0] != orders[1]
