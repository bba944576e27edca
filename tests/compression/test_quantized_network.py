"""Quantized layers on the path of three nodes, forward and backward by hand; which layers are refused."""

import math
from typing import Any

import pytest
import torch
from three_nodes import END, MIDDLE, PATH, convolved
from torch import Tensor, nn

from graphprune.compression.a2q import A2Q
from graphprune.compression.degree_quant import DegreeQuant
from graphprune.compression.networks import GINLayer, SAGELayer
from graphprune.compression.quantized_network import QuantizedLinear, learned_parameters, node_errors, quantize
from graphprune.compression.quantizer import Uniform
from graphprune.compression.sparse_features import to_csr
from graphprune.runs.runtime import import_pyg

import_pyg()
from torch_geometric.nn import (  # noqa: E402
    BatchNorm,
    GATConv,
    GCNConv,
    GINConv,
    GraphNorm,
    InstanceNorm,
    LayerNorm,
    PairNorm,
)

X = torch.tensor([[0.0, 1.4], [7.0, 0.0], [2.6, 3.0]])  # on a grid of 3 bits: (0, 1), (7, 0), (3, 3)
NO_EDGES = torch.empty(2, 0, dtype=torch.int64)


def gcn() -> GCNConv:
    layer = GCNConv(2, 1)
    with torch.no_grad():
        layer.lin.weight[:] = torch.tensor([[3.0, -0.6]])  # on a grid of 3 bits: (3, -1)
    return layer


def test_a_uniform_graph_convolution_forward_and_backward_by_hand():
    layer = quantize(gcn(), Uniform(bits=3), X, PATH).eval()
    x = X.clone().requires_grad_()
    out = layer(x, PATH)
    out.sum().backward()
    # x W is -1, 21 and 6; the messages' range was that of -0.84, 21 and 6, so that its step is 21.84 / 7 = 3.12
    assert torch.allclose(out, convolved([0.0, 7 * 3.12, 2 * 3.12]), atol=1e-5)
    assert torch.allclose(layer.conv.lin.weight.grad, torch.tensor([[3 * END + 7 * MIDDLE, 4 * END]]))
    assert torch.allclose(x.grad, torch.tensor([[END], [MIDDLE], [END]]) * torch.tensor([[3.0, -1.0]]))


def test_a_message_beyond_the_range_sends_no_gradient_back():
    layer = quantize(gcn(), Uniform(bits=3), X, PATH).eval()
    with torch.no_grad():
        layer.conv.lin.sent.high.fill_(10.0)
    x = X.clone().requires_grad_()
    layer(x, PATH).sum().backward()
    assert x.grad[1].tolist() == [0.0, 0.0]
    assert x.grad[0].tolist() == pytest.approx([3 * END, -END])


def test_degree_quant_without_protection_is_the_uniform_scheme():
    uniform, degree = (quantize(gcn(), scheme, X, PATH) for scheme in (Uniform(3), DegreeQuant(3, 0.0, 0.0, percentile=0.0)))
    assert torch.equal(uniform(X, PATH), degree(X, PATH))


def test_degree_quant_with_full_protection_quantizes_only_the_weight_in_training():
    layer = quantize(gcn(), DegreeQuant(3, 1.0, 1.0, percentile=0.0), X, PATH)
    x = X.clone().requires_grad_()
    out = layer(x, PATH)
    out.sum().backward()
    assert torch.allclose(out, convolved([-1.4, 21.0, 4.8]), atol=1e-5)
    assert torch.allclose(layer.conv.lin.weight.grad, torch.tensor([[2.6 * END + 7 * MIDDLE, 4.4 * END]]))
    assert torch.allclose(layer.eval()(X, PATH), convolved([0.0, 7 * 3.12, 2 * 3.12]), atol=1e-5)


def test_degree_quant_spares_the_middle_node_where_only_it_is_drawn():
    layer = quantize(gcn(), DegreeQuant(3, percentile=0.0, momentum=1e-9), X, PATH)
    layer(X, PATH)
    assert layer.conv.lin.entering.chances.tolist() == pytest.approx([0.1 * 2 / 3, 0.1, 0.1 * 2 / 3])
    for of in (layer.conv.lin.entering, layer.conv.lin.sent):
        of.chances = torch.tensor([0.0, 1.0, 0.0])
    messages = layer.conv.lin(X + 0.1)  # -0.1 and 1.5 become 0 and 1 or 2; node 1 stays (7.1, 0.1)
    assert messages[1].item() == pytest.approx(3 * 7.1 - 0.1)
    assert (messages[[0, 2]] / 3.12).round().flatten().tolist() == pytest.approx((messages[[0, 2]] / 3.12).flatten().tolist())


def test_a2q_forward_and_backward_by_hand():
    conv = GCNConv(1, 1, bias=False)
    with torch.no_grad():
        conv.lin.weight.fill_(1.0)
    layer = quantize(conv, A2Q(bits=2), torch.ones(3, 1), PATH)
    of = layer.conv.lin.entering
    with torch.no_grad():
        of.step.fill_(0.5)
        of.bits[:] = torch.tensor([[2.0], [1.0], [2.0]])
    x = torch.tensor([[0.6], [2.0], [0.2]], requires_grad=True)  # 1, beyond the one level there is, and 0 steps
    out = layer(x, PATH)
    out.sum().backward()
    assert torch.allclose(out, convolved([0.5, 0.5, 0.0]))
    assert of.step.grad.flatten().tolist() == pytest.approx([-0.2 * END, MIDDLE, -0.4 * END], rel=1e-5)
    assert of.bits.grad.flatten().tolist() == pytest.approx([0.0, MIDDLE * 0.5 * math.log(2) * 2, 0.0])
    assert x.grad.flatten().tolist() == pytest.approx([END, 0.0, END])
    assert layer.conv.lin.weight.grad.item() == pytest.approx(0.5 * (END + MIDDLE))


def test_a_graph_isomorphism_layer_by_hand():
    """GIN with a linear map: node i's own features and its neighbours' messages, on a grid of 2 bits from 0 to 3."""
    conv = GINConv(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        conv.nn.weight.fill_(2.0)
    x = torch.tensor([[0.0], [1.2], [3.0]])  # messages 0, 1, 3; sums 1, 4, 4, on a grid from 0 to 4.2 with the step 1.4
    layer = quantize(conv, Uniform(bits=2), x, PATH).eval()
    out = layer(x, PATH)
    assert out.flatten().tolist() == pytest.approx([2 * 1.4, 2 * 4.2, 2 * 4.2])
    assert conv(x, PATH).flatten().tolist() == pytest.approx([2.4, 8.4, 8.4])


def test_a_gin_layer_that_multiplies_first_by_hand():
    layer = GINLayer(2, 1, batch_norm=False)
    with torch.no_grad():
        layer.nn[0].weight[:], layer.nn[0].bias[:] = torch.tensor([[3.0, -0.6]]), 0.5
        layer.nn[2].weight[:], layer.nn[2].bias[:] = 1.0, 0.0
    network = quantize(layer, Uniform(bits=3), X, PATH).eval()
    network.conv.rest[1].entering = nn.Identity()  # the last map of the layer reads what is summed as it is
    out = network(X, PATH)
    assert torch.allclose(
        out, torch.tensor([[21.84 + 0.5], [28.08 + 0.5], [28.08 + 0.5]]), atol=1e-4
    )  # messages 0, 21.84, 6.24
    out.sum().backward()
    # the last weight is on its grid, so that each product counts as often as it is summed: 2, 3 and 2 times
    assert torch.allclose(network.conv.first.weight.grad, torch.tensor([[3 * 7 + 2 * 3.0, 2 * 1 + 2 * 3.0]]))
    assert network.conv.bias.grad.item() == pytest.approx(3.0)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("scheme", [Uniform(8), DegreeQuant(8, 0.5, 0.5), A2Q(8)])
def test_sparse_features_are_quantized_as_dense_ones_are(scheme: Any):
    torch.manual_seed(0)
    x = torch.rand(3, 16)
    model = NETS["gin that multiplies first"]().eval()
    dense, sparse = quantize(model, scheme, x, PATH), quantize(model, scheme, to_csr(x), PATH)
    full = model(x, PATH)
    assert (dense(x, PATH) - full).norm() / full.norm() < 0.25
    assert (sparse(to_csr(x), PATH) - full).norm() / full.norm() < 0.25


class Two(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.a, self.b = first, second

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.b(self.a(x, edge_index).relu(), edge_index)


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


NETS = {
    "gcn": lambda: Two(GCNConv(16, 8), GCNConv(8, 3)),
    "gin": lambda: Two(GINConv(mlp(16, 8)), GINConv(mlp(8, 3))),
    "gin that multiplies first": lambda: Two(GINLayer(16, 8, True), GINLayer(8, 12, True)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", [Uniform(8), DegreeQuant(8), A2Q(8), A2Q(8, groups=5)])
def test_every_network_is_quantized_near_its_own_outputs_and_learns(name: str, scheme: Any):
    torch.manual_seed(0)
    model = NETS[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(12, 16)
    edges = torch.randint(0, 12, (2, 30), generator=torch.Generator().manual_seed(1))
    network = quantize(model, scheme, x, edges)
    with torch.no_grad():
        full, found = model.eval()(x, edges), network.eval()(x, edges)
    tolerance = 0.25 if isinstance(scheme, A2Q) else 0.03  # A2Q has 4 bits in its weights
    assert 0 < (found - full).norm() / full.norm() < tolerance
    network.train()(x, edges).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("scheme", [Uniform(4), DegreeQuant(4), A2Q(4)])
@pytest.mark.parametrize("edges", [NO_EDGES, torch.tensor([[0], [1]])])
def test_graphs_without_edges_and_isolated_nodes_give_finite_results(scheme: Any, edges: Tensor):
    network = quantize(gcn(), scheme, X, edges)
    assert bool(network(X, edges).isfinite().all())


def test_what_is_not_quantized_stays():
    model = Two(GCNConv(2, 8), GINConv(mlp(8, 3)))
    network = quantize(model, Uniform(8), X, PATH)
    layers = [path for path, module in network.named_modules() if isinstance(module, QuantizedLinear)]
    assert layers == ["a.conv.lin", "b.conv.nn.0", "b.conv.nn.3"]
    assert isinstance(network.b.conv.nn[1], nn.BatchNorm1d)
    assert isinstance(network.a.messages, nn.Identity)  # it sends x W, which is quantized where it is computed
    assert not isinstance(network.b.messages, nn.Identity)


def test_learned_parameters_are_found_for_their_own_learning_rates():
    model = Two(GCNConv(2, 8), GCNConv(8, 3))
    steps, bits = learned_parameters(quantize(model, A2Q(), X, PATH))
    assert [len(step) for step in steps] == [3, 8, 3, 3]  # nodes, channels, nodes, channels
    assert [len(bit) for bit in bits] == [3, 3]
    assert learned_parameters(quantize(model, Uniform(8), X, PATH)) == ([], [])


def test_the_error_of_each_node_is_a_distance_at_a_layer():
    model = Two(gcn(), GCNConv(1, 2))
    network = quantize(model, Uniform(bits=3), X, PATH)
    found = node_errors(model, network, "a", X, PATH)
    wanted = (convolved([0.0, 7 * 3.12, 2 * 3.12]) - convolved([-0.84, 21.0, 6.0])).abs().flatten()
    assert torch.allclose(found, wanted, atol=1e-5)
    assert network.training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Two(GCNConv(2, 8), GATConv(8, 3)), r"layer 'b' \(GATConv\) cannot be quantized"),
        (Two(GCNConv(2, 8), SAGELayer(8, 3)), r"layer 'b' \(SAGELayer\) cannot be quantized"),
        (nn.Sequential(nn.Embedding(3, 2)), r"layer '0' \(Embedding\) cannot be quantized"),
        (nn.Sequential(nn.ReLU()), "no linear map"),
    ],
)
def test_what_cannot_be_quantized_is_named(model: nn.Module, message: str):
    with pytest.raises(ValueError, match=message):
        quantize(model, Uniform(8), X, PATH)


class FirstOnly(Two):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.a(x, edge_index)


def test_a_layer_that_does_not_run_is_named():
    with pytest.raises(ValueError, match="layer 'b' was not used"):
        quantize(FirstOnly(GCNConv(2, 3), nn.Linear(3, 3)), Uniform(8), X, PATH)


@pytest.mark.parametrize("scheme", [Uniform(1), DegreeQuant(40), A2Q(9)])
def test_bits_out_of_range_are_refused(scheme: Any):
    with pytest.raises(ValueError, match="bits="):
        quantize(gcn(), scheme, X, PATH)


def test_features_that_are_no_numbers_are_refused():
    for scheme in (Uniform(8), DegreeQuant(8), A2Q()):
        with pytest.raises(ValueError, match="NaN"):
            quantize(gcn(), scheme, X / 0, PATH)


def test_the_model_keeps_no_edges_of_the_example():
    model, edges = GCNConv(2, 1, cached=True).eval(), torch.tensor([[0, 2], [2, 0]])
    plain = GCNConv(2, 1).eval()
    plain.load_state_dict(model.state_dict())
    network = quantize(model, Uniform(16), X, PATH)
    assert torch.equal(model(X, edges), plain(X, edges))
    assert torch.allclose(network.eval()(X, edges), plain(X, edges), atol=1e-2)


class Twice(nn.Module):
    """The same layer under two names, called on x and on three times what it made of x."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.a = self.b = layer

    def forward(self, x: Tensor, *edges: Tensor) -> Tensor:
        return self.b(3 * self.a(x, *edges), *edges)


def test_a_layer_under_two_names_stays_one_with_the_ranges_of_both_calls():
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    network = quantize(Twice(layer), Uniform(8), X).eval()
    assert network.a is network.b
    assert isinstance(network.a, QuantizedLinear)
    assert (network.a.entering.low.item(), network.a.entering.high.item()) == (-9.0, 21.0)  # 7 x 3, and -3 x 3


@pytest.mark.parametrize("make", [lambda: GCNConv(4, 4), lambda: GINConv(mlp(4, 4)), lambda: GINLayer(4, 4, True)])
def test_a_graph_layer_that_is_called_twice_is_quantized_near_its_outputs(make: Any):
    torch.manual_seed(0)
    x, model = torch.rand(3, 4), Twice(make()).eval()
    network = quantize(model, Uniform(12), x, PATH)
    assert network.a is network.b
    full = model(x, PATH)
    assert 0 < (network(x, PATH) - full).norm() / full.norm() < 0.01
    with pytest.raises(ValueError, match=r"is called 2 times.*use A2Q\(groups=1000\)"):
        quantize(model, A2Q(8), x, PATH)
    grouped = quantize(model, A2Q(8, groups=3), x, PATH)
    assert bool(grouped(x, PATH).isfinite().all())


def test_a_map_of_messages_that_another_layer_uses_is_refused():
    layer = GCNConv(4, 4)
    with pytest.raises(ValueError, match=r"linear map of layer 'a', whose product is a message, is shared"):
        quantize(Two(layer, GINConv(layer.lin)), Uniform(8), torch.rand(3, 4), PATH)


class Keywords(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        return self.layer(edge_index=edge_index, x=x)


def test_layers_called_by_keyword_are_quantized():
    layer = gcn()
    network, by_place = quantize(Keywords(layer), Uniform(3), X, PATH), quantize(layer, Uniform(3), X, PATH)
    assert torch.equal(network(X, PATH), by_place(X, PATH))


def test_two_feature_matrices_and_other_keywords_are_refused():
    with pytest.raises(ValueError, match="layer 'layer' is called with a pair of feature matrices"):
        quantize(Keywords(GINConv(nn.Linear(2, 1))), Uniform(8), (X, X), PATH)
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_pre_hook(lambda module, args, kwargs: ((), {"input": args[0]}), with_kwargs=True)
    with pytest.raises(ValueError, match="layer '0' is called with the arguments input; call it with one matrix"):
        quantize(model, Uniform(8), X)


@pytest.mark.parametrize(
    "norm",
    [GraphNorm(8), LayerNorm(8), InstanceNorm(8, affine=True), BatchNorm(8), PairNorm(), nn.GroupNorm(2, 8), nn.RMSNorm(8)],
)
def test_normalisations_stay_in_floating_point(norm: nn.Module):
    class Normed(Two):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.b(self.a(x, edge_index))

    torch.manual_seed(0)
    model, x = Normed(GCNConv(4, 8), norm).eval(), torch.rand(3, 4)
    network = quantize(model, Uniform(16), x, PATH)
    assert type(network.b) is type(norm)
    assert torch.allclose(network(x, PATH), model(x, PATH), atol=1e-2)


def test_a_weight_that_is_no_number_is_named():
    layer = gcn()
    with torch.no_grad():
        layer.lin.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"its parameter 'lin\.weight' holds 1 NaN"):
        quantize(layer, Uniform(8), X, PATH)


@pytest.mark.parametrize("scheme", [Uniform(8), DegreeQuant(8), A2Q(8)])
def test_sparse_features_that_are_all_zero_have_a_range_of_zero(scheme: Any):
    model = NETS["gin that multiplies first"]().eval()
    x = torch.zeros(3, 16)
    dense, sparse = quantize(model, scheme, x, PATH), quantize(model, scheme, to_csr(x), PATH)
    assert torch.allclose(dense(x, PATH), sparse(to_csr(x), PATH), atol=1e-6)


def test_an_input_that_is_changed_in_place_sets_its_own_range():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = 1 * x
            out = self.layer(y)
            y.mul_(100)
            return out + y

    assert quantize(InPlace(), Uniform(8), X).layer.entering.high.item() == 7.0
