"""A function is a ranker, and so is an object with something to prepare."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from graphprune import models
from graphprune.encoders.ranker import Ranker, prepare
from graphprune.ranking import rankers
from graphprune.studies.entrants import Redrawn, drop_edges

ROWS = torch.tensor([[0, 9], [3, 4]])


def by_first(graph, model, indices):
    """A ranker that likes a first group that is left whole."""
    return -indices[:, 0].double()


class Plain(Ranker):
    """No dataclass."""

    def prepare(self, graph, model):
        return lambda indices: by_first(graph, model, indices)


@dataclass(frozen=True)
class Storing(Ranker):
    """Says where its score comes from."""

    def prepare(self, graph, model):
        return lambda indices: indices[:, 1].double()

    def prepare_stored(self, graph, model, stage):
        return lambda indices: stage("name.safetensors", lambda: {"score": indices[:, 1].double()}, ())["score"] + 100


@pytest.mark.parametrize("ranker", [by_first, Plain(), lambda graph, model, indices: -indices[:, 0].double()])
def test_functions_and_plain_objects_rank(ranker, tiny) -> None:
    assert prepare(ranker, tiny, nn.Identity())(ROWS).tolist() == [0.0, -3.0]
    assert prepare(Redrawn(ranker, drop_edges), tiny, nn.Identity())(ROWS).tolist() == [0.0, -3.0]


def test_a_function_is_given_the_network_and_its_graph(tiny) -> None:
    model, seen = models.tiny_cnn(), []

    def spy(*given):
        seen.extend(given)
        return given[2].sum(1)

    assert prepare(spy, tiny, model)(ROWS).tolist() == [9, 7]
    assert seen[0] is tiny
    assert seen[1] is model


def test_a_stage_reaches_those_that_store(tiny) -> None:
    made = []

    def stage(name, compute, modules, **parameters):
        made.append(name)
        return compute()

    assert prepare(Storing(), tiny, nn.Identity(), stage)(ROWS).tolist() == [109.0, 104.0]
    assert made == ["name.safetensors"]
    assert prepare(Storing(), tiny, nn.Identity())(ROWS).tolist() == [9.0, 4.0]
    assert prepare(Plain(), tiny, nn.Identity(), stage)(ROWS).tolist() == [0.0, -3.0]  # it stores nothing


@pytest.mark.parametrize("ranker", [None, 3, "LogWidths", rankers.LogWidths])
def test_what_is_no_ranker_is_refused(ranker, tiny) -> None:
    with pytest.raises(TypeError, match=r"must be a rankers.Ranker, e.g. rankers.LogWidths\(\), or a function"):
        prepare(ranker, tiny, nn.Identity())


def test_a_ranker_that_takes_other_arguments_is_refused(tiny) -> None:
    with pytest.raises(TypeError, match=r"must take \(graph, model, indices\), and takes \(model, graph, indices\)"):
        prepare(lambda model, graph, indices: indices[:, 0], tiny, nn.Identity())


def test_the_base_class_is_where_it_was() -> None:
    assert rankers.Ranker is Ranker
