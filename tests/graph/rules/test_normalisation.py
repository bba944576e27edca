"""Normalisations on hand-made labels: what they tie, what they freeze, and where their parameters follow."""

import pytest
import torch.nn.functional as F
from one_call import Calls, channels
from torch import nn


@pytest.fixture
def run() -> Calls:
    return Calls()


def test_batch_norm_has_a_number_of_its_own_for_every_channel(run: Calls) -> None:
    assert channels(run(nn.BatchNorm2d(3).eval(), run.fresh(2, 3, 2, 2))) == [0, 1, 2]
    names = ("layer.weight", "layer.bias", "layer.running_mean", "layer.running_var")
    assert run.sites == {(name, 0): [0, 1, 2] for name in names}
    assert run.layers == [("layer", "bn", [0, 1, 2])]
    assert run.frozen == []


def test_an_instance_norm_without_parameters_has_no_sites(run: Calls) -> None:
    assert channels(run(nn.InstanceNorm2d(3), run.fresh(2, 3, 2, 2))) == [0, 1, 2]
    assert run.sites == {}
    assert run.layers == [("layer", "norm", [0, 1, 2])]


def test_batch_norm_of_flattened_maps_ties_what_lies_in_one_place_of_them(run: Calls) -> None:
    """(B, C, L) with labels along both: C tells them apart, so that the places of L live or die together."""
    labels = run.ledger.fresh(4).view(1, 2, 2)
    assert channels(run(nn.BatchNorm1d(2).eval(), labels)) == [0, 2]
    assert run.tied == [[0, 1], [2, 3]]


def test_group_norm_drops_whole_norm_groups_and_a_literal_number_of_them_freezes(run: Calls) -> None:
    assert channels(run(nn.GroupNorm(2, 4), run.fresh(1, 4, 2, 2))) == [0, 1, 2, 3]
    assert run.tied == [[0, 1], [2, 3]]
    assert run.frozen == []
    run(F.group_norm, run.fresh(1, 4, 2, 2), 2)
    assert run.frozen == [4, 5, 6, 7]


def test_layer_norm_freezes_channels_that_it_averages_over_and_no_others(run: Calls) -> None:
    assert channels(run(nn.LayerNorm(4), run.fresh(1, 3, 4))) == [0, 1, 2]
    assert run.frozen == []
    assert run.layers == [("layer", "norm", [0, 0, 0, 0])]
    run(nn.LayerNorm(4), run.fresh(1, 3, 4, dim=2))
    assert run.frozen == [3, 4, 5, 6]
    assert run.reasons == {"LayerNorm 'layer' normalises over it (norms=\"kept\" prunes it)"}


def test_local_response_norm_looks_at_neighbouring_channels(run: Calls) -> None:
    run(nn.LocalResponseNorm(2), run.fresh(1, 3, 2, 2))
    assert run.frozen == [0, 1, 2]


@pytest.mark.parametrize(
    ("op", "args", "kept"),
    [
        (nn.Softmax(1), (), False),
        (nn.Softmax(2), (), True),
        (F.softmax, (-1,), True),
        (F.log_softmax, (1,), False),
        (F.normalize, (2.0, 2), True),
        (F.normalize, (), False),
    ],
)
def test_a_softmax_freezes_the_channels_that_it_runs_over(run: Calls, op: object, args: tuple[float, ...], kept: bool) -> None:
    assert channels(run(op, run.fresh(1, 3, 2, 2), *args)) == ([0, 1, 2] if kept else [0, 0, 0])
    assert run.frozen == ([] if kept else [0, 1, 2])
