"""A graph network with quantized layers, for training or for evaluation.

What is quantized, here and everywhere in this subpackage:

    what                                            Uniform, DegreeQuant          A2Q
    the weight of every linear map                  one grid a tensor             a step for each output channel, 4 bit
    what enters a linear map                        one grid a tensor             step and bits for each node
    messages (x W where a layer multiplies first)   one grid a tensor             no
    adjacency, sums, biases, batch normalisation    no                            no
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graphprune.compression.a2q import ChannelQuantizer, NodeQuantizer
from graphprune.compression.degree_quant import ProtectedQuantizer, protection
from graphprune.compression.networks import GINLayer
from graphprune.compression.sparse_features import Linear, multiply
from graphprune.graph.copies import copy_model
from graphprune.runs.runtime import evaluating, import_pyg

import_pyg()
from torch_geometric.nn import GCNConv, GINConv, MessagePassing  # noqa: E402
from torch_geometric.nn import Linear as GeometricLinear  # noqa: E402

CONVS = (GCNConv, GINConv, GINLayer)
LINEAR = (nn.Linear, Linear, GeometricLinear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


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
    samples = _samples(model, paths, example)
    holder = nn.ModuleDict({"network": copy_model(model)})  # so that a model that is itself a layer has a parent
    sends = _sending(model, samples)
    for path in sorted(paths, key=len, reverse=True):  # what is inside a layer before the layer
        full = f"network.{path}".rstrip(".")
        module, sample = holder.get_submodule(full), samples[path]
        if isinstance(module, LINEAR):
            new: nn.Module = QuantizedLinear(module, scheme, sample, path in sends)
        elif isinstance(module, GINLayer):
            first = f"{path}.nn.0".lstrip(".") in sends
            conv = QuantizedGIN(module.nn[0], module.nn[1:]) if first else QuantizedGIN(nn.Identity(), module.nn)
            new = QuantizedConv(conv, nn.Identity() if first else scheme.message(sample))
        else:
            new = QuantizedConv(module, nn.Identity() if isinstance(module, GCNConv) else scheme.message(sample))
        parent, _, name = full.rpartition(".")
        setattr(holder.get_submodule(parent), name, new)
    network = holder["network"]
    network.train(model.training)
    return network


def _sending(model: nn.Module, samples: dict[str, Tensor]) -> set[str]:
    """The paths of the linear maps whose products are messages: layers that multiply before they add up."""
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, GCNConv):
            found.add(f"{path}.lin".lstrip("."))
        elif isinstance(module, GINLayer) and (module.narrows or samples[path].layout == torch.sparse_csr):
            found.add(f"{path}.nn.0".lstrip("."))
    return found


def _layers(model: nn.Module) -> list[str]:
    """The paths of linear maps and message passing.

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


def _samples(model: nn.Module, paths: list[str], example: tuple[Any, ...]) -> dict[str, Tensor]:
    """What enters each layer when the model runs on the example in evaluation."""
    found: dict[str, Tensor] = {}

    def keeper(path: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0]
            found[path] = (x[0] if isinstance(x, tuple) else x).detach()

        return keep

    training = model.training
    hooks = [model.get_submodule(path).register_forward_pre_hook(keeper(path)) for path in paths]
    try:
        with torch.no_grad():
            model.eval()(*example)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for path, module in model.named_modules():
        if isinstance(module, GINLayer) and path in found:  # where it multiplies first, it does not call its first linear map
            found.setdefault(f"{path}.nn.0".lstrip("."), found[path])
    missing = [path for path in paths if path not in found]
    if missing:
        raise ValueError(f"model: layer {missing[0]!r} was not used on the example, so it has no range; remove the layer")
    return found


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
