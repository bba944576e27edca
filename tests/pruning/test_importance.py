from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import graphprune
from graphprune import importance
from graphprune.graph.channel_graph import ChannelGraph, Group, Node, Site
from graphprune.training.objective import CLASSIFICATION, Objective


class TwoBranches(nn.Module):
    """a and b are added (one group), c follows; the classifier is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.b = nn.Conv2d(1, 3, 1)
        self.c = nn.Conv2d(3, 2, 2, bias=False)
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(self.c(self.bn(self.a(x)) + self.b(x)).mean((2, 3)))


def network() -> tuple[TwoBranches, ChannelGraph]:
    torch.manual_seed(0)
    net = TwoBranches()
    net.a.weight.data = torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1, 1)
    net.b.weight.data = torch.tensor([-10.0, 20.0, 0.0]).view(3, 1, 1, 1)
    net.bn.weight.data = torch.tensor([0.5, -4.0, 1.0])
    net.c.weight.data = torch.stack([torch.full((3, 2, 2), 1.0), torch.tensor([3.0, -4.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)])
    nodes = (
        Node("a", "conv", 3, (0, 1, 2)),
        Node("bn", "bn", 3, (0, 1, 2)),
        Node("b", "conv", 3, (0, 1, 2)),
        Node("c", "conv", 2, (3, 4)),
        Node("fc", "fc", 2, (-1, -1)),
    )
    edges = torch.tensor([[0, 1, 2, 3], [1, 3, 3, 4]])
    groups = (Group("a", 3, ("a", "b"), 6), Group("c", 2, ("c",), 2))
    return net, ChannelGraph(nodes=nodes, edge_index=edges, groups=groups)


@dataclass
class Images:
    """Stands in for a data set's training split."""

    x: torch.Tensor
    y: torch.Tensor
    objective: Objective = CLASSIFICATION

    @property
    def train(self):
        return self

    def batches(self, batch_size, *, shuffle=False, generator=None):
        order = torch.randperm(len(self.x), generator=generator) if shuffle else torch.arange(len(self.x))
        for part in order.split(batch_size):
            yield self.x[part], self.y[part]


def as_lists(scores):
    return {name: [round(v, 4) for v in score.tolist()] for name, score in scores.items()}


def test_l1_sums_over_the_coupled_layers():
    assert as_lists(importance.l1(*network())) == {"a": [11, 22, 3], "c": [12, 28]}


def test_l2_sums_the_norms_of_the_coupled_filters():
    assert as_lists(importance.l2(*network())) == {"a": [11, 22, 3], "c": [round(12**0.5, 4), 10]}


def test_bn_scale_is_the_absolute_gamma():
    net, graph = network()
    graph = ChannelGraph(graph.nodes[:3], torch.tensor([[0], [1]]), graph.groups[:1])
    assert as_lists(importance.bn_scale(net, graph)) == {"a": [0.5, 4, 1]}


def test_bn_scale_names_the_group_without_one():
    with pytest.raises(ValueError, match=r"group 'c' .*use importance\.l1"):
        importance.bn_scale(*network())


def test_fpgm_sums_the_distances_within_each_layer():
    # a: 1, -2, 3 -> 5, 8, 7; b: -10, 20, 0 -> 40, 50, 30; c: the two filters are |(2, -5, -1)| x 2 apart.
    assert as_lists(importance.fpgm(*network())) == {"a": [45, 58, 37], "c": [round(2 * 30**0.5, 4)] * 2}


def test_random_follows_its_generator():
    net, graph = network()
    first, again, other = (importance.random(net, graph, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert as_lists(first) == as_lists(again) != as_lists(other)
    assert {name: len(score) for name, score in first.items()} == {"a": 3, "c": 2}


def test_taylor_is_the_slope_of_the_loss_as_a_filter_fades():
    net, graph = network()
    net.eval()
    data = Images(torch.randn(8, 1, 4, 4), torch.arange(8) % 2)

    def slope(layer: str, filter_: int) -> float:
        gate = torch.ones(len(getattr(net, layer).weight), 1, 1, 1, requires_grad=True)
        weights = {f"{layer}.weight": getattr(net, layer).weight.detach() * gate}
        logits = torch.func.functional_call(net, weights, data.x)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, data.y), gate)
        return abs(gradient[filter_].item())

    scores = importance.taylor(net, graph, data, batches=1, batch_size=8)
    torch.testing.assert_close(scores["a"], torch.tensor([slope("a", i) + slope("b", i) for i in range(3)]))
    torch.testing.assert_close(scores["c"], torch.tensor([slope("c", i) for i in range(2)]))


def test_hrank_is_the_mean_rank_of_the_feature_maps():
    net, graph = network()
    ramp = torch.arange(3.0)
    flat, cross, eye = torch.zeros(3, 3), torch.outer(ramp + 1, ramp + 1), torch.eye(3)
    net.a.bias.data.zero_()
    net.b.bias.data.zero_()
    data = Images(torch.stack([flat, cross, eye])[:, None], torch.zeros(3, dtype=torch.long))
    scores = importance.hrank(net, graph, data, batch_size=3)
    # 1x1 convolutions scale the image: ranks 0, 1, 3 for a and for b, but b's last filter is zero.
    assert as_lists(scores)["a"] == pytest.approx([8 / 3, 8 / 3, 4 / 3], abs=1e-3)
    assert scores["c"].shape == (2,)


@pytest.mark.parametrize("score", [importance.taylor, importance.hrank])
def test_data_driven_scores_leave_the_model_alone_and_repeat(score):
    net, graph = network()
    net.train()
    net.a.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data = Images(torch.randn(12, 1, 4, 4), torch.arange(12) % 2)
    first, again = (score(net, graph, data, batches=2, batch_size=4, seed=3) for _ in range(2))
    assert as_lists(first) == as_lists(again)
    assert net.training
    assert not net.a.weight.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.a._forward_hooks


def test_a_transposed_convolution_is_scored_by_its_output_filters():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False))
    graph = ChannelGraph((Node("0", "conv", 6, tuple(range(6))),), torch.zeros(2, 0).long(), (Group("0", 6, ("0",), 6),))
    response = [net(F.one_hot(torch.tensor(i), 4).float().view(1, 4, 1, 1)).abs().sum((0, 2, 3)) for i in range(4)]
    torch.testing.assert_close(importance.l1(net, graph)["0"], sum(response))


@given(weights=st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6))
def test_l1_is_blind_to_signs_and_scales_linearly(weights):
    net, graph = network()
    net.a.weight.data = torch.tensor(weights[:3]).view(3, 1, 1, 1)
    net.b.weight.data = torch.tensor(weights[3:]).view(3, 1, 1, 1)
    base = importance.l1(net, graph)["a"]
    net.a.weight.data *= -2
    net.b.weight.data *= 2
    torch.testing.assert_close(importance.l1(net, graph)["a"], 2 * base)


def test_bad_arguments_are_named():
    net, graph = network()
    with pytest.raises(ValueError, match="layer 'a' has 5 channels, not 3"):
        importance.l1(nn.ModuleDict({"a": nn.Conv2d(1, 5, 1), "b": nn.Conv2d(1, 3, 1), "c": nn.Conv2d(3, 2, 2)}), graph)
    with pytest.raises(ValueError, match="group 'a' has a channel that cannot be scored"):
        importance.l1(nn.Identity(), graph)
    data = Images(torch.randn(2, 1, 4, 4), torch.arange(2))
    with pytest.raises(ValueError, match="batches=0"):
        importance.taylor(net, graph, data, batches=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        importance.hrank(net, graph, data, batch_size=0)


class Functional(nn.Module):
    """F.linear with parameters of its own: w makes three channels, v reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1.0, -1.0], [0.5, 0.0], [-3.0, 4.0]]))
        self.v = nn.Parameter(torch.full((2, 3), 100.0))

    def forward(self, x):
        return F.linear(F.linear(x, self.w).relu(), self.v)


class Scaled(nn.Module):
    """One image channel times a parameter for each of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1))
        self.c = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.c(x * self.gain).mean((2, 3))


def test_channels_that_a_bare_parameter_makes_are_scored_by_its_slices():
    net = Functional()
    graph = graphprune.trace(net, torch.zeros(1, 2))
    assert importance.l1(net, graph)["w"].tolist() == [2.0, 0.5, 7.0]
    torch.testing.assert_close(importance.l2(net, graph)["w"], torch.tensor([2**0.5, 0.5, 5.0]))
    far = [[0, 1.25**0.5, 41**0.5], [1.25**0.5, 0, 28.25**0.5], [41**0.5, 28.25**0.5, 0]]
    torch.testing.assert_close(importance.fpgm(net, graph)["w"], torch.tensor(far).sum(1))
    net = Scaled()
    graph = graphprune.trace(net, torch.zeros(1, 1, 4, 4))
    assert [group.layers for group in graph.groups] == [()]
    assert importance.l1(net, graph)["parameter"].tolist() == [2.0, 1.0, 0.5]


def test_channels_that_nothing_makes_are_scored_by_all_that_carry_them():
    net = nn.Sequential(nn.Conv2d(3, 2, 1))
    net[0].weight.data = torch.tensor([[1.0, 2.0, 3.0], [4.0, -5.0, 6.0]]).view(2, 3, 1, 1)
    sites = (Site("0.weight", 1, torch.arange(3)), Site("0.weight", 0, torch.tensor([3, 4])))
    nodes, groups = (Node("0", "conv", 2, (-1, -1)),), (Group("parameter", 3, (), 0),)
    graph = ChannelGraph(nodes, torch.zeros(2, 0).long(), groups, sites=sites)
    assert importance.l1(net, graph)["parameter"].tolist() == [5.0, 7.0, 9.0]


def test_taylor_of_a_bare_parameter_is_its_weight_times_gradient():
    net = Functional()
    graph = graphprune.trace(net, torch.zeros(1, 2))
    data = Images(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
    found = importance.taylor(net, graph, data, batches=1, batch_size=2)["w"]
    loss = F.cross_entropy(net(data.x), data.y)
    (gradient,) = torch.autograd.grad(loss, [net.w])
    torch.testing.assert_close(found, (net.w * gradient).sum(1).abs().detach())


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_torchs_default_precision_does_not_matter(default):
    net, graph = network()
    data = Images(torch.randn(8, 1, 4, 4), torch.arange(8) % 2)
    wanted = {name: getattr(importance, name)(net, graph) for name in ("l1", "l2", "fpgm")}
    wanted |= {name: getattr(importance, name)(net, graph, data) for name in ("taylor", "hrank")}
    torch.set_default_dtype(default)
    try:
        for name in ("l1", "l2", "fpgm"):
            assert as_lists(getattr(importance, name)(net, graph)) == as_lists(wanted[name])
        for name in ("taylor", "hrank"):
            assert as_lists(getattr(importance, name)(net, graph, data)) == as_lists(wanted[name])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("criterion", [importance.l1, importance.l2, importance.fpgm])
def test_half_precision_is_summed_in_single(criterion, precision):
    net, graph = network()
    net.a.weight.data *= 10_000  # the sum with b's would not fit into half precision
    assert as_lists(criterion(net.to(precision), graph)) == as_lists(criterion(net.float(), graph))


def test_swapped_arguments_and_networks_without_values_are_named():
    net, graph = network()
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got ChannelGraph; give the network itself$"):
        importance.l1(graph, net)
    for criterion in (importance.bn_scale, importance.random):
        with pytest.raises(TypeError, match=r"^graph must be a ChannelGraph, got TwoBranches; give what trace"):
            criterion(net, net)
    with pytest.raises(ValueError, match=r"^model: its parameter 'a.weight' is on the meta device.*materialise it first"):
        importance.l1(net.to("meta"), graph)
