"""Layers on hand-made labels, and where producers' and consumers' channels lie in the tensors of networks of two layers."""

import pytest
import torch
import torch.nn.functional as F
from one_call import Calls, channels
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_select import ChannelSelect

IMAGE = torch.zeros(1, 1, 4, 4)
HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def run() -> Calls:
    return Calls()


def sites(model: nn.Module, x: Tensor = IMAGE) -> dict[tuple[str, int], list[int]]:
    """(tensor, dimension) -> the prunable atom of each slice, -1 = it stays; without what stays as a whole."""
    graph = graphprune.trace(model, x)
    found = {(site.tensor, site.dim): torch.where(site.atoms < graph.num_atoms, site.atoms, -1) for site in graph.sites}
    return {key: atoms.tolist() for key, atoms in found.items() if bool((atoms >= 0).any())}


def frozen(model: nn.Module, x: Tensor = IMAGE) -> dict[str, str]:
    return graphprune.trace(model, x).frozen


# --- producers and consumers ------------------------------------------------------------------------------------------


def test_a_convolution_produces_its_rows_and_reads_its_columns() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1, bias=False), *HEAD, nn.Linear(3, 2))
    assert sites(model) == {
        ("0.weight", 0): [0, 1],
        ("0.bias", 0): [0, 1],
        ("1.weight", 1): [0, 1],
        ("1.weight", 0): [2, 3, 4],
        ("4.weight", 1): [2, 3, 4],
    }


def test_a_depthwise_convolution_is_its_inputs_with_any_multiplier() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 4, 1, groups=2), *HEAD, nn.Linear(4, 2))
    assert sites(model) == {
        ("0.weight", 0): [0, 1],
        ("1.weight", 0): [0, 0, 1, 1],
        ("1.bias", 0): [0, 0, 1, 1],
        ("4.weight", 1): [0, 0, 1, 1],
    }


def test_a_grouped_convolutions_groups_lose_the_same_places() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 6, 1, groups=2, bias=False), *HEAD, nn.Linear(6, 2))
    assert sites(model) == {
        ("0.weight", 0): [0, 1, 0, 1],
        ("1.weight", 1): [0, 1],
        ("1.weight", 0): [2, 3, 4, 2, 3, 4],
        ("4.weight", 1): [2, 3, 4, 2, 3, 4],
    }


def test_a_transposed_convolution_has_its_inputs_in_front() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ConvTranspose2d(2, 3, 2, 2), *HEAD, nn.Linear(3, 2))
    assert sites(model) == {
        ("0.weight", 0): [0, 1],
        ("1.weight", 0): [0, 1],
        ("1.weight", 1): [2, 3, 4],
        ("1.bias", 0): [2, 3, 4],
        ("4.weight", 1): [2, 3, 4],
    }


def test_a_linear_layer_reads_a_flattened_channel_in_all_its_places() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))
    assert sites(model, torch.zeros(1, 1, 2, 2)) == {
        ("0.weight", 0): [0, 1],
        ("2.weight", 1): [0, 0, 0, 0, 1, 1, 1, 1],
        ("2.weight", 0): [2, 3, 4],
        ("2.bias", 0): [2, 3, 4],
        ("3.weight", 1): [2, 3, 4],
    }


def test_a_linear_layer_over_places_freezes_the_channels_beside_them() -> None:
    """(B, C, W) -> Linear over W: its result has labels along W alone."""
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Linear(4, 5), nn.Conv1d(2, 1, 1))
    assert sites(model, torch.zeros(1, 1, 4)) == {}
    assert "Linear '1' mixes the dimension it lies along" in frozen(model, torch.zeros(1, 1, 4))["0"]


class Functional(nn.Module):
    """Functional layers, a computed weight among them if told so."""

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.a, self.kernel, self.last = nn.Conv2d(1, 2, 1), nn.Parameter(torch.ones(3, 2, 1, 1)), nn.Conv2d(3, 1, 1)
        self.computed = computed

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.conv2d(self.a(x), self.kernel * 2 if self.computed else self.kernel))


def test_a_functional_convolution_is_one_unless_its_weight_is_computed() -> None:
    assert sites(Functional(False)) == {
        ("a.weight", 0): [0, 1],
        ("a.bias", 0): [0, 1],
        ("kernel", 1): [0, 1],
        ("kernel", 0): [2, 3, 4],
        ("last.weight", 1): [2, 3, 4],
    }
    assert sites(Functional(True)) == {}


def test_a_select_layers_index_is_a_site_of_both_its_sides() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), ChannelSelect([-1, 1, 0]), *HEAD, nn.Linear(3, 2))
    assert sites(model) == {
        ("0.weight", 0): [0, 1],
        ("1.index", 1): [0, 1],
        ("1.index", 0): [2, 3, 4],
        ("4.weight", 1): [2, 3, 4],
    }


def test_prelu_has_one_slope_or_one_a_channel(run: Calls) -> None:
    x = run.fresh(1, 3, 2, 2)
    assert run(nn.PReLU(), x) is x
    assert run.sites == {}
    assert channels(run(nn.PReLU(3), x)) == [0, 1, 2]
    assert run.sites == {("layer.weight", 0): [0, 1, 2]}


# --- pooling, reduction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(1), nn.LPPool2d(2, 2)]
)
def test_pooling_works_within_each_channels_map(run: Calls, pool: nn.Module) -> None:
    out = run(pool, run.fresh(1, 3, 4, 4))
    assert channels(out) == [0, 1, 2]
    assert out.shape == pool(torch.zeros(1, 3, 4, 4)).shape
    assert run.layers == [("layer", "pool", [0, 1, 2])]
    assert run.frozen == []


def test_enlarging_a_map_is_no_layer(run: Calls) -> None:
    for op, options in ((nn.Upsample(scale_factor=2), {}), (F.interpolate, {"scale_factor": 2})):
        out = run(op, run.fresh(1, 2, 3, 3), **options)
        assert out.shape == (1, 2, 6, 6)
        assert len(set(channels(out))) == 2
    assert (run.layers, run.frozen) == ([], [])


def test_pooling_over_channels_that_lie_in_the_map_freezes_them(run: Calls) -> None:
    run(nn.MaxPool2d(2), run.fresh(1, 1, 4, 2, dim=2))
    assert run.frozen == [0, 1, 2, 3]


def test_a_mean_over_the_map_is_a_pooling_layer(run: Calls) -> None:
    out = run("mean", run.fresh(2, 3, 4, 4), (2, 3))
    assert (out.shape, channels(out)) == ((2, 3), [0, 1, 2])
    assert [(kind, labels) for _, kind, labels in run.layers] == [("pool", [0, 1, 2])]
    kept = run(torch.amax, run.fresh(2, 3, 4, 4), (-2, -1), True)
    assert (kept.shape, channels(kept)) == ((2, 3, 1, 1), [3, 4, 5])
    run(torch.sum, run.fresh(2, 3, 4, 4), (2, 3))
    assert len(run.layers) == 2, "a sum is none"
    assert run.frozen == []


@pytest.mark.parametrize(("op", "args"), [("sum", (1,)), (torch.mean, ()), ("amax", ((1, 2),)), ("std", (1,))])
def test_a_reduction_over_channels_freezes_them_and_has_no_labels_left(
    run: Calls, op: object, args: tuple[object, ...]
) -> None:
    out = run(op, run.fresh(2, 3, 4), *args)
    assert run.frozen == [0, 1, 2]
    assert bool((out == -1).all())
