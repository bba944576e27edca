"""One call for a budget: it is met by the network that comes back, counted anew; and all that was decided is told."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.ao.nn import qat as nnqat
from torch.ao.quantization import get_default_qat_qconfig
from transformers import AutoModelForImageClassification, ViTConfig

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.goal import prune_to
from graphprune.train import Recipe

TINY = torch.zeros(1, 1, 8, 8)
IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return graphprune.models.seeded("tiny_cnn", 0, in_channels=1).eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return graphprune.models.seeded("resnet8", 0).eval()


@pytest.fixture(scope="module")
def every(tiny: nn.Module) -> dict[tuple[int, int], graphprune.Cost]:
    """The cost of each of the 12 networks there are, really pruned."""
    graph = graphprune.trace(tiny, TINY)
    found = {}
    for counts in itertools.product(range(1, 5), range(1, 4)):
        keep = {group.name: torch.arange(group.channels) < n for group, n in zip(graph.groups, counts, strict=True)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[counts] = graphprune.cost(graphprune.prune(tiny, graph, keep), TINY)
    return found


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from([1, 2, 3]), st.sampled_from(["uniform", "global"]))
@pytest.mark.filterwarnings("ignore:prune removes nothing")
def test_the_budget_is_met_and_nothing_more_fits(
    tiny: nn.Module, every: dict[tuple[int, int], graphprune.Cost], macs: float, params: float, round_to: int, how: str
) -> None:
    allowed = {
        counts
        for counts, its in every.items()
        if its.macs <= macs * every[4, 3].macs and its.params <= params * every[4, 3].params
        if all(n % round_to == 0 or n == whole for n, whole in zip(counts, (4, 3), strict=True))
    }
    if not allowed:
        with pytest.raises(ValueError, match=r"out of reach|must be a share"):
            prune_to(tiny, TINY, macs, params, round_to=round_to, how=how)
        return
    found = prune_to(tiny, TINY, macs, params, round_to=round_to, how=how)
    counts = (found.network.conv1.out_channels, found.network.conv3.out_channels)
    assert counts in allowed
    assert found.after == every[counts] == graphprune.cost(found.network, TINY)
    assert not any(other != counts and other[0] >= counts[0] and other[1] >= counts[1] for other in allowed)
    assert tuple(int(mask.sum()) for mask in found.keep.values()) == counts


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("how", ["uniform", "global"])
def test_half_the_multiply_adds_in_multiples_of_four(resnet: nn.Module, how: str, steps: int) -> None:
    found = prune_to(resnet, IMAGE, macs=0.5, round_to=4, how=how, steps=steps)
    share = graphprune.cost(found.network, IMAGE).macs / graphprune.cost(resnet, IMAGE).macs
    assert 0.45 < share <= 0.5
    assert all(width % 4 == 0 for width in found.widths["after"])
    again = graphprune.prune(resnet, found.graph, found.keep)
    assert [p.shape for p in again.parameters()] == [p.shape for p in found.network.parameters()]
    if steps == 1:
        assert all(a.equal(b) for a, b in zip(again.parameters(), found.network.parameters(), strict=True))


def test_a_number_above_one_is_a_number(tiny: nn.Module) -> None:
    found = prune_to(tiny, TINY, macs=9_000)
    assert (found.after.macs, found.before.macs) == (6_942, 18_462)
    assert prune_to(tiny, TINY, params=120).after.params <= 120


def test_channels_that_were_kept_over_several_steps_are_the_networks_own(resnet: nn.Module) -> None:
    """Nothing is trained, so the weights say which channels of the unpruned network are left."""
    found = prune_to(resnet, IMAGE, params=0.3, steps=3, scores=graphprune.importance.l2)
    right = graphprune.prune(resnet, found.graph, found.keep)
    assert all(a.equal(b) for a, b in zip(right.state_dict().values(), found.network.state_dict().values(), strict=True))


def test_scores_of_ones_own_decide(tiny: nn.Module) -> None:
    given = {"conv1": np.array([1.0, 4.0, 2.0, 3.0]), "conv3": [1, 2, 3]}
    found = prune_to(tiny, TINY, macs=9_000, scores=given)
    assert found.keep["conv1"].tolist() == [False, True, False, True]
    stepwise = prune_to(tiny, TINY, macs=9_000, scores=given, steps=3)
    assert stepwise.keep["conv1"].tolist() == [False, True, False, True], "the scores follow their channels"


def test_a_function_scores_the_network_that_is_left(tiny: nn.Module) -> None:
    widths = []

    def mine(network: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
        widths.append(network.conv1.out_channels)
        return graphprune.importance.l1(network, graph)

    prune_to(tiny, TINY, macs=0.2, scores=mine, steps=2)
    assert widths[0] == 4
    assert widths[1] < 4


def test_what_is_ignored_stays_whole(resnet: nn.Module) -> None:
    found = prune_to(resnet, IMAGE, macs=0.6, ignore=["layer2", resnet.layer3[0].conv1])
    assert found.network.layer2[0].conv1.out_channels == 32
    assert found.network.layer3[0].conv1.out_channels == 64
    assert found.frozen["layer3.0.conv1"] == "ignore='layer3.0.conv1' was asked for"
    assert "linear" in found.frozen


def test_a_callback_trains_between_the_steps(tiny: nn.Module) -> None:
    seen = []

    def train(network: nn.Module) -> None:
        seen.append(graphprune.cost(network, TINY).macs / 18_462)
        network.fc.bias.data.fill_(7)

    found = prune_to(tiny, TINY, macs=0.3, steps=2, finetune=train)
    assert len(seen) == 2
    assert seen[1] <= 0.3 < seen[0] <= 0.65
    assert found.network.fc.bias.tolist() == [7] * 10
    replaced = prune_to(tiny, TINY, macs=0.3, finetune=lambda network: network.double())
    assert replaced.network.fc.weight.dtype == torch.float64
    wrong = "finetune must train the network in place and return None, or return a network, and returned a list"
    with pytest.raises(TypeError, match=wrong):
        prune_to(tiny, TINY, macs=0.3, finetune=lambda network: [1.0])  # type: ignore[arg-type, return-value]


def test_a_function_may_return_what_fit_returns(tiny: nn.Module) -> None:
    digits, recipe = graphprune.data.load("digits", device="cpu"), Recipe(epochs=0.1, lr=0.05, batch_size=64)
    found = prune_to(tiny, TINY, macs=0.5, finetune=lambda network: graphprune.train.fit(network, digits, recipe, seed=0))
    right = prune_to(tiny, TINY, macs=0.5).network
    graphprune.train.fit(right, digits, recipe, seed=0)
    assert found.network.conv1.weight.equal(right.conv1.weight)


def test_data_renew_the_bn_statistics_and_a_recipe_trains(tiny: nn.Module) -> None:
    digits = graphprune.data.load("digits", device="cpu")
    plain = prune_to(tiny, TINY, macs=0.5)
    seen = prune_to(tiny, TINY, macs=0.5, data=digits)
    assert not seen.network.bn1.running_mean.equal(plain.network.bn1.running_mean)
    assert seen.network.conv1.weight.equal(plain.network.conv1.weight)
    recipe = Recipe(epochs=0.2, lr=0.05, batch_size=64, distil=True)
    tuned = prune_to(tiny, TINY, macs=0.5, data=digits, finetune=recipe, scores=graphprune.importance.taylor)
    assert not tuned.network.conv1.weight.equal(plain.network.conv1.weight)


def test_searched_widths_are_the_best_of_those_looked_at(tiny: nn.Module) -> None:
    digits = graphprune.data.load("digits", device="cpu")
    found = prune_to(tiny, TINY, macs=0.5, how="searched", data=digits, looks=6)
    assert found.after.macs <= 0.5 * found.before.macs
    again = prune_to(tiny, TINY, macs=0.5, how="searched", data=digits, looks=6)
    assert all(mask.equal(again.keep[name]) for name, mask in found.keep.items())
    losses = [
        graphprune.train.evaluate(prune_to(tiny, TINY, macs=0.5, how=how, data=digits, looks=6).network, digits.val).loss
        for how in ("searched", "uniform", "global")
    ]
    assert losses[0] <= min(losses[1:]) + 0.05, "BN statistics here come from more images than the search's"


class WidthInItsCode(nn.Module):
    """Attention whose heads are as wide as the input's width allows: no head goes, nor does the width."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.back, self.out = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.wide, self.narrow = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        heads = self.mix(self.norm(x)).view(rows, length, 2, width // 2)
        x = x + self.back(heads.softmax(1).reshape(rows, length, width))
        return self.out(x + self.narrow(self.wide(x).relu()))


def test_norms_are_proposed_only_where_they_help() -> None:
    with pytest.raises(ValueError, match=r"macs=0.1: out of reach, .*; ask for more$"):
        prune_to(nn.Sequential(nn.Linear(4, 8), WidthInItsCode()), torch.zeros(1, 5, 4), macs=0.1)


def test_the_width_of_a_transformer_goes_too_where_asked() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = AutoModelForImageClassification.from_config(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3)).eval()
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"macs=0.3: out of reach, .*% of 2\d,\d+ multiply-adds.*too, by norms='kept'"):
        prune_to(vit, image, macs=0.3)
    for steps in (1, 2):
        small = prune_to(vit, image, macs=0.3, norms="kept", steps=steps)
        assert small.after.macs <= 0.3 * small.before.macs
        right = graphprune.masked(vit, small.graph, small.keep)(image).logits
        assert torch.allclose(small.network(image).logits, right, atol=1e-5)


def test_errors_come_before_any_work_and_say_what_to_do(tiny: nn.Module) -> None:
    with pytest.raises(ValueError, match="give a budget"):
        prune_to(tiny, TINY)
    with pytest.raises(ValueError, match=r"macs=50 \(a number of them, as it is above 1\): out of reach"):
        prune_to(tiny, TINY, macs=50)
    with pytest.raises(ValueError, match="macs=0: must be a share"):
        prune_to(tiny, TINY, macs=0)
    with pytest.raises(ValueError, match=r"macs=0.3: out of reach, .* lower round_to=4"):
        prune_to(tiny, TINY, macs=0.3, round_to=4)
    with pytest.raises(ValueError, match="round_to=0"):
        prune_to(tiny, TINY, macs=0.5, round_to=0)
    with pytest.raises(
        ValueError, match="ignore='conv9': no layer of the model; those with channels to prune begin with: conv1"
    ):
        prune_to(tiny, TINY, macs=0.5, ignore="conv9")
    with pytest.raises(ValueError, match="ignore: the Linear given is no module of the model"):
        prune_to(tiny, TINY, macs=0.5, ignore=[nn.Linear(1, 1)])
    with pytest.raises(ValueError, match="how='searched' looks at validation images"):
        prune_to(tiny, TINY, macs=0.5, how="searched")
    with pytest.raises(ValueError, match="needs data="):
        prune_to(tiny, TINY, macs=0.5, finetune=Recipe(epochs=1, lr=0.1, batch_size=8))
    with pytest.raises(TypeError, match="finetune=3"):
        prune_to(tiny, TINY, macs=0.5, finetune=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data is a list: make a data set of it"):
        prune_to(tiny, TINY, macs=0.5, data=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Identity(), r": it has no convolution or linear layer.*whose outputs another layer reads; its layers: Identity$"),
        (nn.Linear(3, 2), r"(its layers: Linear|; the model itself: it is the network's output)$"),
        (nn.Sequential(), r"it has no layers at all$"),
        (nn.Sequential(nn.Linear(3, 2)), r"; 0: its channels are the network's output$"),
        (nnqat.Linear(3, 2, qconfig=get_default_qat_qconfig("x86")), r"(: Linear|s output); prune it before it is quantized$"),
    ],
)
def test_why_no_channel_can_be_pruned_is_said(model: nn.Module, why: str) -> None:
    with pytest.raises(ValueError, match=f"^model: no channel can be pruned.*{why}"):
        prune_to(model, torch.zeros(1, 3), macs=0.5)


def test_the_width_is_no_remedy_where_attention_of_torch_holds_it() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    for norms in ("whole", "kept"):
        with pytest.raises(ValueError, match=r"macs=0.1: out of reach, .*; ask for more$"):
            prune_to(layer, torch.zeros(1, 5, 16), macs=0.1, norms=norms)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_before_any_work(value: float) -> None:
    def never(network: nn.Module) -> None:
        raise AssertionError("work was done")

    model = graphprune.models.tiny_cnn()
    model.conv2.weight.data[0, 0, 0, :2] = value
    with pytest.raises(
        ValueError, match=rf"its parameter 'conv2.weight' holds 2 NaN or inf.* of {model.conv2.weight.numel()};"
    ):
        prune_to(model, TINY, macs=0.5, finetune=never)


def test_a_buffer_may_be_infinite_but_not_nan() -> None:
    model = graphprune.models.tiny_cnn(in_channels=1).eval()
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    prune_to(model, TINY, macs=0.5)
    model.bn1.running_var[1] = float("nan")
    with pytest.raises(ValueError, match=r"its buffer 'bn1.running_var' holds 1 NaN of 4 values"):
        prune_to(model, TINY, macs=0.5)


def test_networks_without_values_are_named() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(4, 3))
    for call in (prune_to, graphprune.trace, graphprune.cost):
        with pytest.raises(
            ValueError, match=r"'0.weight' of a lazy layer has no size yet; call the model once on a real input"
        ):
            call(lazy, TINY)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"'conv1.weight' is on the meta device, without values; materialise it first"):
        prune_to(graphprune.models.tiny_cnn().to("meta"), TINY, macs=0.5)


@pytest.mark.parametrize("made_within", [False, True])
def test_what_was_pruned_in_inference_mode_can_be_trained(made_within: bool, tmp_path: Path) -> None:
    with torch.inference_mode(made_within):
        model = graphprune.models.tiny_cnn(in_channels=1)
    with torch.inference_mode():
        small = prune_to(model, TINY, macs=0.5)
        once = graphprune.prune(model, small.graph, small.keep)
        loaded = graphprune.load_pruned(small.save(tmp_path / "small.safetensors"), model)
    for network in (small.network, once, loaded):
        assert not any(tensor.is_inference() for tensor in (*network.parameters(), *network.buffers()))
        network.train()(torch.randn(2, 1, 8, 8)).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_double_precision_by_default_changes_nothing(tiny: nn.Module) -> None:
    wanted = prune_to(tiny, TINY, macs=0.5, round_to=2).keep
    torch.set_default_dtype(torch.float64)
    try:
        found = prune_to(tiny, TINY, macs=0.5, round_to=2).keep
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        graph = graphprune.trace(tiny, TINY)
        assert graphprune.round_keep(tiny, graph, wanted, 2).keys() == wanted.keys()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("images", [8, 1])
def test_a_search_uses_as_many_training_images_as_there_are(tiny: nn.Module, images: int) -> None:
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    few = graphprune.data.from_tensors(train=(x[:images], y[:images]), val=(x[8:], y[8:]))
    if images == 1:
        with pytest.raises(ValueError, match=r"^data: how='searched' needs 2 training images or more, and there are 1$"):
            prune_to(tiny, TINY, macs=0.5, how="searched", data=few)
    else:
        assert prune_to(tiny, TINY, macs=0.5, how="searched", looks=3, data=few).after.macs <= 9_231


class Bare(nn.Module):
    """A parameter of its own scales 24 channels, which no layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.arange(1.0, 25.0).view(1, 24, 1, 1))
        self.c, self.d, self.fc = nn.Conv2d(24, 16, 3), nn.Conv2d(16, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.d(self.c(x * self.gain).relu()).relu().mean((2, 3)))


def test_channels_of_a_bare_parameter_are_pruned_lowest_first() -> None:
    found = prune_to(Bare(), TINY, macs=0.5)
    assert found.after.macs <= 0.5 * found.before.macs
    kept = found.keep["parameter"].nonzero().flatten().tolist()
    assert kept == list(range(24 - len(kept), 24))
    assert found.network.gain.shape == (1, len(kept), 1, 1)


@pytest.mark.parametrize("name", ["gain", "parameter"])
def test_a_bare_parameter_that_is_ignored_stays_whole(name: str) -> None:
    found = prune_to(Bare(), TINY, macs=0.7, ignore=[name], steps=2)
    assert found.network.gain.shape == (1, 24, 1, 1)
    assert found.frozen["gain"] == f"ignore={name!r} was asked for"
    with pytest.raises(ValueError, match=r"those with channels to prune begin with: gain, c, d$"):
        prune_to(Bare(), TINY, macs=0.7, ignore=["gains"])


def test_it_is_public() -> None:
    assert graphprune.prune_to is prune_to


class Row(nn.Module):
    """Eight layers; their outputs side by side, or each summed up along the channels before the next one."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.layers, self.deep = nn.ModuleList(nn.Linear(4, 4) for _ in range(8)), deep

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if not self.deep:
            return [layer(x) for layer in self.layers]
        for layer in self.layers:
            x = x.cumsum(-1) + layer(x)
        return x


def test_a_network_of_many_layers_without_a_group_gets_a_short_answer() -> None:
    with pytest.raises(
        ValueError, match=r"no channel can be pruned; layers.0 and 7 more: its channels are the network's output$"
    ):
        prune_to(Row(deep=False), torch.rand(1, 4), macs=0.5)
    with pytest.raises(ValueError, match=r"; layers.4: [^;]*; 3 more reasons in graphprune.trace\(...\).frozen$"):
        prune_to(Row(deep=True), torch.rand(1, 4), macs=0.5)
