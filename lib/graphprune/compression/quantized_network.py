"""A graph network with quantized layers, for training or for evaluation.

What is quantized, here and everywhere in this subpackage:

    what                                            Uniform, DegreeQuant          A2Q
    the weight of every linear map                  one grid a tensor             a step for each output channel, 4 bit
    what enters a linear map                        one grid a tensor             step and bits for each node
    messages (x W where a layer multiplies first)   one grid a tensor             no
    adjacency, sums, biases, batch normalisation    no                            no
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graphprune.compression.a2q import A2Q, ChannelQuantizer, NodeQuantizer
from graphprune.compression.degree_quant import ProtectedQuantizer, protection
from graphprune.compression.networks import GINLayer
from graphprune.compression.replacement import replace
from graphprune.compression.sparse_features import Linear, multiply
from graphprune.graph.copies import copy_model
from graphprune.runs.checks import demand_finite
from graphprune.runs.runtime import evaluating, import_pyg

import_pyg()
from torch_geometric.nn import GCNConv, GINConv, MessagePassing  # noqa: E402
from torch_geometric.nn import Linear as GeometricLinear  # noqa: E402
from torch_geometric.nn import norm as geometric_norm  # noqa: E402

CONVS = (GCNConv, GINConv, GINLayer)
LINEAR = (nn.Linear, Linear, GeometricLinear)
NORMS = (
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(getattr(geometric_norm, name) for name in geometric_norm.__all__),
)


class Scheme(Protocol):
    """How tensors are quantized: `Uniform`, `DegreeQuant` or `A2Q`."""

    def weight(self, weight: Tensor) -> nn.Module: ...

    def activation(self, sample: Tensor) -> nn.Module: ...

    def message(self, sample: Tensor) -> nn.Module: ...


class QuantizedLinear(nn.Module):
    """A linear map whose input and weight are quantized, and its product where that is sent as a message."""

    weight: Tensor
    bias: Tensor | None
    entering: nn.Module
    of_weight: nn.Module

    def __init__(self, linear: nn.Linear, scheme: Scheme, sample: Tensor, sends: bool) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.entering, self.of_weight = scheme.activation(sample), scheme.weight(self.weight)
        self.sent: nn.Module = nn.Identity()
        if sends:
            with torch.no_grad():
                self.sent = scheme.message(multiply(sample, self.weight))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sent(multiply(self.entering(x), self.of_weight(self.weight), self.bias))
        return out


class QuantizedGIN(MessagePassing):
    """The sum of a node's and its neighbours' messages, then the rest of a GIN layer's maps.

    Args:
        first: what makes messages of features: the layer's first linear map where it multiplies first, else nothing.
        rest: its other maps.
    """

    def __init__(self, first: nn.Module, rest: nn.Module) -> None:
        super().__init__(aggr="add")
        self.first, self.rest = first, rest
        self.bias: Tensor | None = None
        if isinstance(first, QuantizedLinear):
            self.bias, first.bias = first.bias, None  # added once, not with every message

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        y = self.first(x)
        y = self.propagate(edge_index, x=(y, y)) + y
        out: Tensor = self.rest(y if self.bias is None else y + self.bias)
        return out


class QuantizedConv(nn.Module):
    """A PyG layer whose linear maps are quantized, and its messages where they are its input."""

    def __init__(self, conv: nn.Module, messages: nn.Module) -> None:
        super().__init__()
        self.conv, self.messages = conv, messages

    def forward(self, x: Tensor, edge_index: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.training:
            for module in self.modules():
                if isinstance(module, ProtectedQuantizer):
                    module.chances = protection(edge_index, x.shape[0], *module.ends)
        out: Tensor = self.conv(self.messages(x), edge_index, *args, **kwargs)
        return out


def quantize(model: nn.Module, scheme: Scheme, *example: Any) -> nn.Module:
    """A copy of a graph network whose layers are quantized; the input model is untouched.

    A layer under several names stays one layer, and the ranges of a layer that is called several times are those of all calls.

    Args:
        model: of GCN and GIN layers (PyG's or those of `networks`), linear layers and normalisations.
        scheme: `Uniform(bits)`, `DegreeQuant(bits)` or `A2Q(bits)`.
        example: what the model is called with, features of all nodes and edge_index first. It sets the first ranges.
    Returns:
        a network that is called as the model is. Train it, or use `post_training.calibrate` for ranges without training.
    Raises:
        ValueError: a layer cannot be quantized (named), nothing can, bits are out of range, or the features are not finite.

    >>> from torch_geometric.nn import GCNConv
    >>> from graphprune.compression.quantizer import Uniform
    >>> layer = quantize(GCNConv(2, 1), Uniform(bits=4), torch.eye(3)[:, :2], torch.tensor([[0, 1], [1, 2]]))
    >>> layer(torch.eye(3)[:, :2], torch.tensor([[0, 1], [1, 2]])).shape
    torch.Size([3, 1])
    """
    paths = _layers(model)
    demand_finite(model)
    calls = _calls(copy_model(model), paths, example)
    if isinstance(scheme, A2Q) and scheme.groups is None:
        for path, several in calls.items():
            if len(several) > 1:
                many = f"is called {len(several)} times, and has a step for each node of one call only"
                raise ValueError(f"model: layer {path!r} {many}; use A2Q(groups=1000), whose steps all nodes choose among")
    samples = {path: _joined(several) for path, several in calls.items()}
    sends = _sending(model, samples)
    network = copy_model(model)
    modules = {path: network.get_submodule(path) for path in paths}
    for path in sorted(paths, key=lambda path: (not isinstance(modules[path], LINEAR), -len(path))):  # linear maps come first
        module, sample = modules[path], samples[path]
        if isinstance(module, LINEAR):
            new: nn.Module = QuantizedLinear(module, scheme, sample, path in sends)
        elif isinstance(module, GINLayer):
            first = _multiplies_first(module, sample)
            conv = QuantizedGIN(module.nn[0], module.nn[1:]) if first else QuantizedGIN(nn.Identity(), module.nn)
            new = QuantizedConv(conv, nn.Identity() if first else scheme.message(sample))
        else:
            new = QuantizedConv(module, nn.Identity() if isinstance(module, GCNConv) else scheme.message(sample))
        network = replace(network, module, new)
    network.train(model.training)
    return network


def _multiplies_first(layer: GINLayer, sample: Tensor) -> bool:
    return layer.narrows or sample.layout == torch.sparse_csr


def _sending(model: nn.Module, samples: Mapping[str, Tensor]) -> set[str]:
    """The first paths of the linear maps whose products are messages: layers that multiply before they add up.

    Raises:
        ValueError: such a map is shared with a layer that uses it in another way.
    """
    first = {module: path for path, module in model.named_modules()}
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, GCNConv):
            linear = module.lin
        elif isinstance(module, GINLayer) and _multiplies_first(module, samples[path]):
            linear = module.nn[0]
        else:
            continue
        owners = [other for other in model.modules() if any(child is linear for child in other.children())]
        if len(owners) > 1 and not all(isinstance(owner, GCNConv) for owner in owners):
            raise ValueError(
                f"model: the linear map of layer {path!r}, whose product is a message, is shared with another layer; "
                "give each layer a map of its own"
            )
        found.add(first[linear])
    return found


def _layers(model: nn.Module) -> list[str]:
    """The first paths of linear maps and message passing.

    Raises:
        ValueError: a layer with parameters is neither one of these nor a normalisation, or there is none.
    """
    found = []
    for path, module in model.named_modules():
        own = next(module.parameters(recurse=False), None) is not None
        if type(module) in LINEAR or type(module) in CONVS:
            found.append(path)
        elif isinstance(module, MessagePassing) or (own and not isinstance(module, NORMS)):
            raise ValueError(
                f"model: layer {path!r} ({type(module).__name__}) cannot be quantized; "
                "GCNConv, GINConv and Linear can, and normalisations stay in floating point"
            )
    if not found:
        raise ValueError("model: it has no linear map, so there is nothing to quantize")
    return found


def _calls(model: nn.Module, paths: list[str], example: tuple[Any, ...]) -> dict[str, list[Tensor]]:
    """What enters each layer in each of its calls when the model runs on the example in evaluation."""
    found: dict[str, list[Tensor]] = {}

    def keeper(path: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs.get("x")
            if not isinstance(x, Tensor):
                what = "a pair of feature matrices" if isinstance(x, tuple) else f"the arguments {', '.join(kwargs)}"
                raise ValueError(f"model: layer {path!r} is called with {what}; call it with one matrix of features, by place")
            found.setdefault(path, []).append(x.detach().clone() if x.layout == torch.strided else x.detach())

        return keep

    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(keeper(path), with_kwargs=True)
    with torch.no_grad():
        model.eval()(*example)
    first = {module: path for path, module in model.named_modules()}
    for path, module in model.named_modules():
        if isinstance(module, GINLayer) and path in found:  # where it multiplies first, it does not call its first linear map
            found.setdefault(first[module.nn[0]], found[path])
    missing = [path for path in paths if path not in found]
    if missing:
        raise ValueError(f"model: layer {missing[0]!r} was not used on the example, so it has no range; remove the layer")
    return found


def _joined(calls: list[Tensor]) -> Tensor:
    """The rows of all calls of a layer."""
    if len(calls) == 1:
        return calls[0]
    return torch.cat([(x.to_dense() if x.layout == torch.sparse_csr else x).reshape(-1, x.shape[-1]) for x in calls])


def learned_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The steps and the bits that A2Q learns, for learning rates of their own; both lists are empty for other schemes."""
    steps, bits = [], []
    for module in network.modules():
        if isinstance(module, NodeQuantizer | ChannelQuantizer):
            steps.append(module.step)
        if isinstance(module, NodeQuantizer):
            bits.append(module.bits)
    return steps, bits


@torch.no_grad()
def layer_output(network: nn.Module, layer: str, *example: Any) -> Tensor:
    """(N, width) what a layer puts out in evaluation when the network runs on the example.

    Args:
        layer: the path of a message-passing layer; `quantize` keeps it.
    """
    kept: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda module, args, out: kept.append(out))
    try:
        with evaluating(network):
            network(*example)
    finally:
        hook.remove()
    return kept[-1]


def node_errors(full: nn.Module, quantized: nn.Module, layer: str, *example: Any) -> Tensor:
    """(N,) the Euclidean distance of each node's output of a layer from that in floating point.

    Args:
        full: the network in floating point. quantized: what `quantize` made of it.
        layer, example: as in `layer_output`.
    """
    return (layer_output(full, layer, *example) - layer_output(quantized, layer, *example)).norm(dim=1)
