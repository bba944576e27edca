"""Paths from input to output: what flows through each weight and neuron when all weights are positive numbers.

The network is copied, its weights replaced, its biases and normalisations left out, maximum pooling averaged. What comes
out is then the sum, over all paths, of the product of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from graphprune.graph.copies import copy_model
from graphprune.pruning.weight_masks import prunable

LEFT_OUT = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm, _DropoutNd)
POOLINGS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
}


@dataclass(frozen=True, eq=False)
class Flow:
    """What flows where.

    Attributes:
        weights: parameter name -> in the weight's shape, the sum over the paths through that weight.
        neurons: parameter name -> (out,), the sum over the paths through each output of that layer.
        inputs: (C, H, W), the sum over the paths that start at each input.
        outputs: (classes,), the sum over the paths that end at each output.
    """

    weights: dict[str, Tensor]
    neurons: dict[str, Tensor]
    inputs: Tensor
    outputs: Tensor


def flow(model: nn.Module, example: Tensor, values: Mapping[str, Tensor]) -> Flow:
    """The sums over paths with `values` in the place of the weights, in float64.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow", eq. 1;
    that its normalisations are left out is our reading.

    Args:
        model: a network of modules whose activations map 0 to 0 and positive numbers to themselves (ReLU).
        example: one input; only its shape counts.
        values: parameter name -> non-negative numbers in the weight's shape.
    Raises:
        ValueError: a value is negative, the sum is too large for a float64, or the network has an `nn.MultiheadAttention`,
            whose `in_proj_weight` no mask prunes and `values` do not hold.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> found = flow(net, torch.ones(1, 1), {"0.weight": torch.tensor([[2.0], [3.0]]), "2.weight": torch.tensor([[5.0, 0.0]])})
    >>> found.neurons["0.weight"].tolist(), found.outputs.tolist()
    ([10.0, 0.0], [10.0])
    """
    if any(bool((value < 0).any()) for value in values.values()):
        raise ValueError("values: there are negative ones; give absolute values")
    return flow_through(skeleton(model), example, values)


def flow_through(twin: nn.Module, example: Tensor, values: Mapping[str, Tensor]) -> Flow:
    """`flow` with a `skeleton` made before: for many flows through one network."""
    weights, seen, hooks = prunable(twin), dict[str, Tensor](), []
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])
            layer = twin.get_submodule(name.rpartition(".")[0])
            hooks.append(layer.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out)))
    start = torch.ones_like(example[:1], dtype=torch.float64, device="cpu").requires_grad_()
    end = twin(start)
    for hook in hooks:
        hook.remove()
    if not bool(torch.isfinite(end).all()):
        raise ValueError("values: the sum over all paths is too large for a float64; divide each layer by its largest value")
    wanted = [*weights.values(), *seen.values(), start]
    gradients = torch.autograd.grad(end.sum(), wanted, allow_unused=True)
    through = [torch.zeros_like(w) if g is None else (w * g).detach() for w, g in zip(wanted, gradients, strict=True)]
    neurons = dict(zip(seen, through[len(weights) : -1], strict=True))
    channels = {name: _by_output(twin, name, value) for name, value in neurons.items()}
    return Flow(dict(zip(weights, through, strict=False)), channels, through[-1][0], end.detach()[0])


def _by_output(model: nn.Module, name: str, through: Tensor) -> Tensor:
    """(1, C, H, W) of a convolution or (1, ..., C) of a linear layer -> (C,)."""
    convolution = isinstance(model.get_submodule(name.rpartition(".")[0]), _ConvNd)
    return through[0].flatten(1).sum(1) if convolution else through.reshape(-1, through.shape[-1]).sum(0)


def skeleton(model: nn.Module) -> nn.Module:
    """A float64 copy on the CPU without biases, normalisations and dropout, its maximum pooling averaged.

    Raises:
        ValueError: it has an attention.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            raise ValueError(
                f"model: layer {path!r} is an attention, through which no paths are summed: its in_proj_weight is in no mask; "
                "use a rule without paths, e.g. 'resistance' or magnitude"
            )
    twin = copy_model(model).double().cpu().eval()
    for path, module in list(twin.named_modules()):
        if isinstance(module, LEFT_OUT):
            twin.set_submodule(path, nn.Identity())
        elif (mean := _averaged(module)) is not None:
            twin.set_submodule(path, mean)
        elif isinstance(module, nn.ReLU):
            module.inplace = False
    weights = set(map(id, prunable(twin).values()))
    with torch.no_grad():
        for parameter in twin.parameters():
            if id(parameter) not in weights:
                parameter.zero_()
    return twin


def _averaged(module: nn.Module) -> nn.Module | None:
    """The pooling that takes means where this one takes the largest; None if it is no such pooling."""
    make = next((make for kind, make in POOLINGS.items() if isinstance(module, kind)), None)
    if make is None:
        return None
    if hasattr(module, "output_size"):
        return make(module.output_size)
    return make(module.kernel_size, module.stride, module.padding, module.ceil_mode)
