"""A network read as a chain of operations, and compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.graph.copies import copy_model
from graphprune.neurons.chain import Affine, Chain, Flatten, MaxPool, Operation, Relu, Score

PROGRAMS = ("published", "exact")
CLOSE = 1e-4  # of the logits' norm: what a network that computes in float32 in between may differ by
SKIPPED = (nn.Dropout, nn.Dropout2d, nn.Identity)  # they change nothing in evaluation mode


def read(model: nn.Module, images: Tensor, program: str = "exact") -> Chain:
    """A network as a chain, in float64, found by running it on the images and looking at what each layer is given.

    Every linear layer and convolution but the last is scored. With `exact` a BN layer that follows one directly is folded
    into it, so that the layer has its ReLU right after it; with `published` it stays a map of its own.

    Args:
        images: (B, *input shape).
        program: `published` or `exact`.
    Raises:
        ValueError: a layer is not supported (it is named), or the layers do not form a chain, or something between them
            changes a value, also in place; the chain's outputs are compared with the model's.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [score.layer for score in read(net, torch.zeros(1, 2)).scored]
    ['0']
    """
    check_program(program)
    operations: list[Operation] = []
    layers, logits = _layers(model, images)
    for name, layer, reshaped in layers:
        if reshaped:
            operations.append(Flatten())
        if isinstance(layer, _BatchNorm) and program == "exact" and _weighted(operations[-1:]):
            last = operations[-1]
            assert isinstance(last, Affine)
            operations[-1] = _folded(last, *_scale_shift(name, layer))
        else:
            operations.append(_operation(name, layer))
    chain = Chain(_with_scores(operations))
    _demand_equal(chain, images, logits)
    return chain


def check_program(program: str) -> None:
    """Raise ValueError unless it is the name of a program."""
    if program not in PROGRAMS:
        raise ValueError(f"program={program!r} is unknown: use 'published' or 'exact'")


@dataclass(frozen=True)
class _Seen:
    """A tensor as a layer read or made it; an operation in place raises its version and leaves its address."""

    tensor: Tensor
    version: int

    @classmethod
    def now(cls, tensor: Tensor) -> _Seen:
        return cls(tensor, tensor._version)

    def is_of(self, other: _Seen) -> bool:
        a, b = self.tensor, other.tensor
        return a.data_ptr() == b.data_ptr() and a.numel() == b.numel() and self.version == other.version


def _layers(model: nn.Module, images: Tensor) -> tuple[list[tuple[str, nn.Module, bool]], Tensor]:
    """Name, layer, and whether its input was flattened on the way, of every layer in the order of execution; the logits."""
    twin = copy_model(model).cpu().double().eval()
    calls: list[tuple[str, nn.Module, _Seen, _Seen]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda layer, given, made: calls.append((name, layer, _Seen.now(given[0]), _Seen.now(made)))

    for name, layer in twin.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(note(name))
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # it would change what is compared
    with torch.inference_mode(False), torch.no_grad():  # tensors of inference mode have no version
        entering = images.detach().cpu().double().clone()
        last = _Seen.now(entering)
        try:
            logits = twin(entering)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"images of shape {tuple(images.shape)}: the model does not take them: {error}") from error
    found: list[tuple[str, nn.Module, bool]] = []
    for name, layer, given, made in calls:
        if not given.is_of(last):
            before = "the output of the layer before it" if found else "the images as they are"
            raise ValueError(_no_chain(f"layer {name!r} does not read {before}"))
        flat = given.tensor.shape != last.tensor.shape
        if flat and given.tensor.ndim != 2:
            raise ValueError(_no_chain(f"layer {name!r} reads its input reshaped to {tuple(given.tensor.shape)}"))
        found.append((name, layer, flat))
        last = made
    if not found or not _Seen.now(logits).is_of(last) or logits.ndim != 2:
        raise ValueError(_no_chain(f"its outputs, of shape {tuple(logits.shape)}, are not those of its last layer"))
    if len({name for name, _, _ in found}) < len(found):
        raise ValueError(_no_chain("a layer is used twice"))
    return [entry for entry in found if not isinstance(entry[1], SKIPPED)], logits


def _demand_equal(chain: Chain, images: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless the chain computes the model's logits: else the model does something between its layers."""
    made = images.detach().cpu().double()
    with torch.no_grad():
        for op in chain.operations:
            if not isinstance(op, Score):
                made = op(made)
            elif op.gated:
                made = made.relu()
    if bool(logits.isfinite().all()) and not float((made - logits).norm()) <= CLOSE * float(logits.norm()):
        raise ValueError(_no_chain("its layers, one after the other, give other outputs than it does"))


def _no_chain(why: str) -> str:
    return f"model: {why}; the program needs a plain chain of modules (no skips, no functional ReLU), as nn.Sequential makes"


def _operation(name: str, layer: nn.Module) -> Operation:
    if isinstance(layer, nn.Linear):
        weight = layer.weight.detach()
        linear, absolute = (partial(F.linear, weight=w) for w in (weight, weight.abs()))
        return Affine(name, linear, absolute, _bias(layer, weight, 0), weighted=True)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        weight = layer.weight.detach()
        about: dict[str, Any] = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
        linear, absolute = (partial(F.conv2d, weight=w, **about) for w in (weight, weight.abs()))
        return Affine(name, linear, absolute, _bias(layer, weight, 2), weighted=True)
    if isinstance(layer, _BatchNorm):
        scale, shift = _scale_shift(name, layer)
        places = [1] * (2 if isinstance(layer, nn.BatchNorm2d) else 0)
        scale, shift = scale.reshape(-1, *places), shift.reshape(-1, *places)
        return Affine(name, lambda x: x * scale, lambda x: x * scale.abs(), shift)
    if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return Affine(name, layer, layer, torch.zeros((), dtype=torch.float64))
    if isinstance(layer, nn.ReLU):
        return Relu()
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return Flatten()
    if isinstance(layer, nn.MaxPool2d) and layer.padding in (0, (0, 0)) and layer.dilation in (1, (1, 1)):
        stride = layer.kernel_size if layer.stride is None else layer.stride
        return MaxPool(_pair(layer.kernel_size), _pair(stride), layer.ceil_mode)
    raise ValueError(
        f"model: layer {name!r} ({layer!r}) is not supported; the program knows Linear, Conv2d with zeros as padding, "
        "BatchNorm, ReLU, AvgPool2d, AdaptiveAvgPool2d, MaxPool2d without padding, Flatten, Dropout and Identity"
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _bias(layer: nn.Linear | nn.Conv2d, weight: Tensor, places: int) -> Tensor:
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    return bias.reshape(-1, *[1] * places)


def _scale_shift(name: str, layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"model: BN layer {name!r} keeps no running statistics; build it with track_running_stats=True")
    mean, var = layer.running_mean, layer.running_var
    scale = (var + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight.detach())
    return scale, (0.0 if layer.bias is None else layer.bias.detach()) - mean * scale


def _folded(layer: Affine, scale: Tensor, shift: Tensor) -> Affine:
    wide = [t.reshape(layer.bias.shape) for t in (scale, shift)]
    linear, absolute = layer.linear, layer.absolute
    return Affine(
        layer.name, lambda x: linear(x) * wide[0], lambda x: absolute(x) * wide[0].abs(), layer.bias * wide[0] + wide[1], True
    )


def _weighted(operations: list[Operation]) -> bool:
    return bool(operations) and isinstance(operations[-1], Affine) and operations[-1].weighted


def _with_scores(operations: list[Operation]) -> tuple[Operation, ...]:
    layers = [place for place, op in enumerate(operations) if isinstance(op, Affine) and op.weighted]
    if len(layers) < 2:
        raise ValueError("model: it has no hidden layer to score; the last linear layer or convolution makes the logits")
    found: list[Operation] = []
    for place, op in enumerate(operations):
        absorbed = place - 1 in layers[:-1] and isinstance(op, Relu)
        if not absorbed:
            found.append(op)
        if place in layers[:-1]:
            assert isinstance(op, Affine)
            gated = isinstance(operations[place + 1], Relu)
            found.append(Score(op.name, op.bias.numel(), gated))
    return tuple(found)
