"""Coupled groups of networks small enough to write the answer down, and proof that they can be pruned."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from layer_nets import IMAGE, Net, conv, groups, head
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured

import graphprune
from graphprune.graph.channel_select import ChannelSelect
from graphprune.graph.rules import table
from graphprune.graph.rules.operation import Call
from graphprune.graph.rules.propagation import Propagation


def test_residual_channels_share_a_group() -> None:
    net = Net(lambda m, x: m.head(m.b(y := m.a(x)) + y), a=conv(3, 6), b=conv(6, 6), head=head(6))
    assert groups(net) == {"a": (6, ("a", "b"))}


def test_a_channel_concatenated_twice_is_one_atom() -> None:
    net = Net(lambda m, x: m.head(torch.cat([y := m.a(x), y], 1)), a=conv(3, 4), head=head(8))
    assert groups(net) == {"a": (4, ("a",))}


def test_an_add_of_concatenations_couples_by_position() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.cat([m.a(x), m.b(x)], 1) + torch.cat([m.c(x), m.d(x)], 1))

    net = Net(forward, a=conv(3, 2), b=conv(3, 6), c=conv(3, 5), d=conv(3, 3), head=head(8))
    assert groups(net) == {"a": (2, ("a", "c")), "b": (3, ("b", "c")), "b#2": (3, ("b", "d"))}


def test_chunks_stay_equal() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        value, gate = m.a(x).chunk(2, 1)
        return m.head(value * gate.sigmoid())

    net = Net(forward, a=conv(3, 8), head=head(4))
    assert groups(net) == {"a": (4, ("a",))}


def test_a_split_by_a_literal_size_freezes() -> None:
    net = Net(lambda m, x: m.head(torch.cat(m.a(x).split(4, 1), 1)), a=conv(3, 8), head=head(8))
    assert groups(net) == {}
    assert "split() at 'split' fixes a size" in graphprune.trace(net, IMAGE.double()).frozen["a"]


@pytest.mark.parametrize("index", [slice(8), slice(None), slice(0, None), slice(0, 20, 1)])
def test_a_slice_that_takes_everything_is_free(index: slice) -> None:
    net = Net(lambda m, x: m.head(m.a(x)[:, index]), a=conv(3, 8), head=head(8))
    assert groups(net) == {"a": (8, ("a",))}


@pytest.mark.parametrize("index", [slice(7), slice(-1), slice(1, None), slice(0, 8, 2)])
def test_a_slice_that_leaves_something_out_freezes(index: slice) -> None:
    net = Net(lambda m, x: m.head(m.a(x)[:, index]), a=conv(3, 8), head=head(len(range(8)[index])))
    assert groups(net) == {}
    assert "getitem() at 'getitem' picks fixed places" in graphprune.trace(net, IMAGE.double()).frozen["a"]


def test_a_slice_up_to_another_tensor_s_size_freezes_both() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.b(x)
        return m.head(m.a(x)[:, : y.shape[1]]) + m.last(y)

    net = Net(forward, a=conv(3, 8), b=conv(3, 8), head=head(8), last=head(8))
    assert groups(net) == {}


def test_channel_shuffle_ties_the_positions_of_its_groups() -> None:
    net = Net(lambda m, x: m.head(m.b(m.s(m.a(x)))), a=conv(3, 8), s=nn.ChannelShuffle(2), b=conv(8, 6), head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "b": (6, ("b",))}


def test_a_hand_written_shuffle_does_the_same() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        b, c, h, w = y.shape
        return m.head(m.b(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)))

    assert groups(Net(forward, a=conv(3, 8), b=conv(8, 6), head=head(6))) == {"a": (4, ("a",)), "b": (6, ("b",))}


def test_pixel_shuffle_ties_the_channels_of_one_pixel() -> None:
    net = Net(lambda m, x: m.head(m.b(m.s(m.a(x)))), a=conv(3, 12), s=nn.PixelShuffle(2), b=conv(3, 4), head=head(4))
    assert groups(net) == {"a": (3, ("a",)), "b": (4, ("b",))}


def test_squeeze_and_excite_couples_its_gate() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(y * m.up(F.relu(m.down(y.mean((2, 3), keepdim=True)))).sigmoid())

    net = Net(forward, a=conv(3, 8), down=conv(8, 3, 1), up=conv(3, 8, 1), head=head(8))
    assert groups(net) == {"a": (8, ("a", "up")), "down": (3, ("down",))}


def test_a_one_output_convolution_is_not_depthwise() -> None:
    net = Net(lambda m, x: m.head(m.c(m.b(m.a(x)))), a=conv(3, 4), b=conv(4, 1), c=conv(1, 6), head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "c": (6, ("c",))}
    assert graphprune.trace(net, IMAGE.double()).frozen["b"] == "all its channels are tied together, so none of them can go"


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_follows_its_input(multiplier: int) -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x))), a=conv(3, 4), b=conv(4, 4 * multiplier, groups=4), head=head(4 * multiplier))
    assert groups(net) == {"a": (4, ("a", "b"))}


def test_a_grouped_convolution_ties_the_positions_of_its_groups() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x))), a=conv(3, 8), b=conv(8, 6, groups=2), head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "b": (3, ("b",))}


def test_a_grouped_transposed_convolution_too() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x))), a=conv(3, 8), b=nn.ConvTranspose2d(8, 6, 2, 2, groups=2), head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "b": (3, ("b",))}


def test_a_module_used_twice_is_one_layer() -> None:
    net = Net(lambda m, x: m.head(m.b(m.b(m.a(x)))), a=conv(3, 4), b=conv(4, 4), head=head(4))
    assert groups(net) == {"a": (4, ("a", "b"))}


def test_flatten_spreads_a_channel_over_many_inputs() -> None:
    net = Net(lambda m, x: m.fc(torch.flatten(m.a(x), 1)), a=conv(3, 4), fc=nn.Linear(4 * 64, 5))
    assert groups(net) == {"a": (4, ("a",))}


def test_a_view_with_a_literal_size_freezes() -> None:
    net = Net(lambda m, x: m.fc(m.a(x).view(-1, 256)), a=conv(3, 4), fc=nn.Linear(256, 5))
    assert groups(net) == {}
    assert "view() at 'view' fixes a size in the model's code" in graphprune.trace(net, IMAGE.double()).frozen["a"]


def test_a_transposed_convolution_is_a_producer() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x))), a=conv(3, 4), b=nn.ConvTranspose2d(4, 6, 2, 2), head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "b": (6, ("b",))}


def test_prelu_and_norms_follow() -> None:
    body = nn.Sequential(conv(3, 8), nn.PReLU(8), nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True))
    assert groups(nn.Sequential(body, head(8))) == {"0.0": (8, ("0.0",))}


def test_group_norm_keeps_or_drops_whole_norm_groups() -> None:
    net = Net(lambda m, x: m.head(F.silu(m.n(m.a(x)))), a=conv(3, 8), n=nn.GroupNorm(4, 8), head=head(8))
    assert groups(net) == {"a": (4, ("a",))}


def test_layer_norm_freezes_what_it_normalises_over() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.norm(m.a(x).permute(0, 2, 3, 1))
        return m.head((y + m.down(F.gelu(m.up(y)))).permute(0, 3, 1, 2))

    net = Net(forward, a=conv(3, 6), norm=nn.LayerNorm(6), up=nn.Linear(6, 12), down=nn.Linear(12, 6), head=head(6))
    assert groups(net) == {"up": (12, ("up",))}
    assert "LayerNorm 'norm' normalises over it" in graphprune.trace(net, IMAGE.double()).frozen["a"]


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


def test_a_forward_of_its_own_freezes_what_it_touches() -> None:
    net = nn.Sequential(conv(3, 4), StandardisedConv(4, 6, 3), conv(6, 8), head(8))
    assert groups(net) == {"2": (8, ("2",))}
    frozen = graphprune.trace(net, IMAGE.double()).frozen
    assert set(frozen) == {"0", "1", "3.2"}
    assert frozen["1"] == "conv2d() at 'conv2d' has a weight or a bias that the forward computes"


class FunctionalConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 4, 3, 3))
        self.scale = nn.Parameter(torch.randn(6, 1, 1))
        self.unused = nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1) * self.scale + 1.5


def test_functional_convolutions_and_operand_parameters_are_cut() -> None:
    net = nn.Sequential(conv(3, 4), FunctionalConv(), head(6))
    assert groups(net) == {"0": (4, ("0",)), "1.kernel": (6, ("1.kernel",))}
    graph = graphprune.trace(net, IMAGE.double())
    keep = graph.full()
    keep["1.kernel"][0] = False
    small = graphprune.prune(net, graph, keep)
    assert (small[1].kernel.shape, small[1].scale.shape, small[1].unused.shape) == ((5, 4, 3, 3), (5, 1, 1), (7,))


class GainedNorm(nn.Module):
    """A functional normalisation whose weight is computed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight=self.gain * 2, training=True)


def test_a_norm_with_a_computed_weight_freezes_what_it_touches() -> None:
    net = nn.Sequential(conv(3, 4), GainedNorm(4), conv(4, 6), head(6))
    assert groups(net) == {"2": (6, ("2",))}


def test_a_mean_over_channels_freezes_them() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x)) * m.a(x).mean(1, keepdim=True)), a=conv(3, 4), b=conv(4, 6), head=head(6))
    assert groups(net) == {"b": (6, ("b",))}


def test_padding_channels_freezes_what_it_is_added_to() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(m.b(y) + F.pad(y, (0, 0, 0, 0, 1, 1)))

    net = Net(forward, a=conv(3, 4), b=conv(4, 6), head=head(6))
    assert groups(net) == {"a": (4, ("a", "b"))}  # b's first and last channel stay
    assert "fixed size" in graphprune.trace(net, IMAGE.double()).frozen["b"]


def test_channel_select_is_cut_and_renumbered() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(m.b(y) + m.s(y))

    select = ChannelSelect([-1, 0, 1, 2, 3, -1])
    net = Net(forward, a=conv(3, 4), b=conv(4, 6), s=select, head=head(6))
    assert groups(net) == {"a": (4, ("a",)), "b": (6, ("b",))}
    graph = graphprune.trace(net, IMAGE.double())
    keep = {"a": torch.tensor([True, False, True, True]), "b": torch.tensor([True, True, True, False, False, True])}
    assert graphprune.prune(net, graph, keep).s.index.tolist() == [-1, 0, -1, -1]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 4), conv(1, 4), head(4)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = self.a(x) + self.b(y)
        return {"logits": self.head(z), "size": z.sum((1, 2, 3))}


def test_two_inputs_and_a_dictionary_of_outputs() -> None:
    assert groups(TwoInputs(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))) == {}  # a sum over channels is put out


def test_data_dependent_control_flow_is_an_error_that_names_the_line() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(y if y.sum() > 0 else -y)

    with pytest.raises(ValueError, match=r"test_groups.py:\d+ .*y.sum\(\) > 0.*out of the forward"):
        graphprune.trace(Net(forward, a=conv(3, 4), head=head(4)), IMAGE)


def test_an_input_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"model rejects example_input of shape \(1, 4, 8, 8\)"):
        graphprune.trace(nn.Sequential(conv(3, 4), head(4)), torch.zeros(1, 4, 8, 8))
    with pytest.raises(TypeError, match="example_input must be a tensor"):
        graphprune.trace(nn.Sequential(conv(3, 4), head(4)), [1, 2])
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
        graphprune.trace("resnet20", IMAGE)  # type: ignore[arg-type]


def test_a_split_by_a_computed_size_ties_its_parts() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        first, second = y.split(y.shape[1] // 2, 1)
        return m.head(first * second)

    assert groups(Net(forward, a=conv(3, 8), head=head(4))) == {"a": (4, ("a",))}


def test_a_softmax_over_branches_ties_the_branches() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = torch.stack([m.a(x), m.b(x)], 1)
        gate = m.select(y.sum(1).mean((2, 3), keepdim=True)).view(x.shape[0], 2, -1, 1, 1)
        return m.head((y * gate.softmax(1)).sum(1))

    net = Net(forward, a=conv(3, 4), b=conv(3, 4), select=conv(4, 8, 1), head=head(4))
    assert groups(net) == {"a": (4, ("a", "b", "select"))}


class Tables(nn.Module):
    """A tensor that is neither parameter nor buffer, and one that the forward makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.shift = conv(3, 4), head(4), torch.full((1, 1, 8, 8), 0.5, dtype=torch.double)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x) + self.shift + torch.arange(8, dtype=torch.double))


def test_tensors_that_the_network_makes_itself_are_constants() -> None:
    assert groups(Tables()) == {"a": (4, ("a",))}


FAMILIES = ("densenet121", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "resnext50_32x4d")


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_families_prune_without_a_line_for_any(name: str) -> None:
    options = {"init_weights": True} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    assert len(groups(model, torch.zeros(1, 3, 64, 64))) >= 20


def test_tracing_leaves_the_model_alone() -> None:
    model = graphprune.models.build("resnet8", in_channels=1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


NUMPY_STYLE = {
    "cat": (lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], axis=1)), 16, {"a": (8, ("a",)), "b": (8, ("b",))}),
    "expand": (lambda m, x: m.head(m.a(x)[:, :, :1, :1].expand(size=(-1, -1, 4, 4))), 8, {"a": (8, ("a",))}),
    "mean": (lambda m, x: m.head(m.a(x) * m.b(x).mean(axis=(2, 3), keepdims=True)), 8, {"a": (8, ("a", "b"))}),
    "std": (lambda m, x: m.head(m.a(x) * torch.std(m.b(x), (2, 3), False, True)), 8, {"a": (8, ("a", "b"))}),
    "norm": (lambda m, x: m.head(m.a(x) * m.b(x).norm(2, (2, 3), True)), 8, {"a": (8, ("a", "b"))}),
    "softmax": (lambda m, x: m.head(m.a(x).softmax(axis=3)), 8, {"a": (8, ("a",))}),
    "reshape": (lambda m, x: m.head(torch.reshape(m.a(x), shape=(2, -1, 8, 8))), 8, {"a": (8, ("a",))}),
}


@pytest.mark.parametrize("name", NUMPY_STYLE)
def test_keywords_may_be_numpys(name: str) -> None:
    forward, width, expected = NUMPY_STYLE[name]
    assert groups(Net(forward, a=conv(3, 8), b=conv(3, 8), head=head(width))) == expected


def test_a_sampled_softmax_normalises_over_the_dimension_it_is_given() -> None:
    net = Net(lambda m, x: m.head(F.gumbel_softmax(m.a(x), 3, False, 1e-10, 1)), a=conv(3, 8), head=head(8))
    assert "gumbel_softmax() at 'gumbel_softmax' normalises over it" in graphprune.trace(net, IMAGE).frozen["a"]


def test_a_rule_that_fails_freezes_what_it_touches_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(run: Propagation, call: Call) -> Tensor:
        run.produce("a.weight", 0, 4)
        raise IndexError("no such dimension\nand a long story")

    monkeypatch.setitem(table.BY_NAME, "relu", failing)
    net = Net(lambda m, x: m.head(m.b(F.relu(m.a(x)))), a=conv(3, 4), b=conv(4, 6), head=head(6))
    assert groups(net) == {"b": (6, ("b",))}
    reason = "relu() at 'relu' is used in a form that is not known (IndexError: no such dimension)"
    assert graphprune.trace(net, IMAGE.double()).frozen["a"] == reason


def test_labels_that_a_failing_rule_made_are_frozen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(run: Propagation, call: Call) -> Tensor:
        run.produce("b.weight", 0, 6)
        raise IndexError

    monkeypatch.setitem(
        table.BY_MODULE, nn.Conv2d, lambda run, call: failing(run, call) if "b" in call.what else plain(run, call)
    )
    plain = table.convolution
    net = Net(lambda m, x: m.head(m.c(m.b(m.a(x)))), a=conv(3, 4), b=conv(4, 6), c=conv(6, 3), head=head(3))
    assert groups(net) == {"c": (3, ("c",))}


COMPUTED_WEIGHTS: list[tuple[Callable[[nn.Module], nn.Module], str]] = [
    (nn.utils.parametrizations.weight_norm, "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"),
    (nn.utils.parametrizations.spectral_norm, "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"),
    (lambda layer: l1_unstructured(layer, "weight", 0.3), "torch.nn.utils.prune.remove(module, 'weight')"),
    (nn.utils.weight_norm, "torch.nn.utils.remove_weight_norm(module)"),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("change", "remedy"), COMPUTED_WEIGHTS)
def test_a_layer_that_computes_its_weight_stays_and_the_remedy_is_named(
    change: Callable[[nn.Module], nn.Module], remedy: str
) -> None:
    net = nn.Sequential(conv(3, 4), conv(4, 6), conv(6, 8), head(8))
    change(net[1])
    graph = graphprune.trace(net, IMAGE)
    assert [group.name for group in graph.groups] == ["2"]
    assert remedy in graph.frozen["0"]
    assert remedy in graph.frozen["1"]
    keep = {"2": torch.arange(8) < 3}
    small = graphprune.prune(net, graph, keep, check=False)
    macs, _ = graphprune.CostModel(graph, IMAGE).of_counts(torch.tensor([[3]]))
    assert int(macs) == graphprune.cost(small, IMAGE).macs
    assert small(IMAGE).shape == (2, 5)


def test_a_layer_in_a_plain_list_stays_and_the_remedy_is_named() -> None:
    hidden = [conv(4, 6)]
    net = Net(lambda m, x: m.head(m.c(hidden[0](m.a(x)))), a=conv(3, 4), c=conv(6, 8), head=head(8))
    graph = graphprune.trace(net, IMAGE)
    assert [group.name for group in graph.groups] == ["c"]
    assert "in an nn.ModuleList, not in a list" in graph.frozen["a"]
    graphprune.CostModel(graph, IMAGE)


class Sampling(nn.Module):
    """A variational autoencoder that samples in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.spread, self.out = nn.Linear(9, 16), nn.Linear(16, 4), nn.Linear(16, 4), nn.Linear(4, 9)

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x).relu()
        mean = self.mean(h)
        return self.out(mean + torch.randn_like(mean) * self.spread(h).exp())


def test_channels_that_random_numbers_are_drawn_for_stay() -> None:
    small = graphprune.prune_to(Sampling(), torch.zeros(1, 9), macs=0.5)
    assert list(small.keep) == ["hidden"]
    assert small.frozen["mean"] == small.frozen["spread"] == "the forward draws random numbers for it"


def test_complex_weights_stay() -> None:
    layers = {"a": conv(3, 4), "b": nn.Conv2d(4, 4, 1, dtype=torch.cfloat), "head": head(4)}
    net = Net(lambda m, x: m.head(m.b(m.a(x).to(torch.cfloat)).abs()), **layers)
    graph = graphprune.trace(net, IMAGE)
    assert (graph.groups, graph.frozen["b"]) == ((), "Conv2d 'b' has complex weights")
