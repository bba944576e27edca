"""Quantized weights as the integers they are: stored in 4, 8 or 16 bits each, and multiplied by an int8 kernel.

PyTorch's own kernel for whole numbers is `torch._int_mm`. Its quantized tensors and `torch.ao.quantization` are deprecated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.compression.a2q import ChannelQuantizer, NodeQuantizer
from graphprune.compression.quantized_network import QuantizedLinear
from graphprune.compression.quantizer import (
    Grid,
    RangeQuantizer,
    WeightQuantizer,
    check_bits,
    symmetric_grid,
    to_integers,
    value_range,
)
from graphprune.compression.replacement import replace
from graphprune.compression.storage import first_names, layout
from graphprune.graph.copies import copy_model
from graphprune.runs import safe_files, store

PARTS = ("dense", "places", "values")


def pack(values: Tensor, bits: int) -> Tensor:
    """Whole numbers in as few bytes as their kind has: up to 4 bits two in a byte, up to 8 bits one, else two bytes each.

    Args:
        values: whole numbers of at least -2^(bits - 1) and below 2^(bits - 1), any shape.
        bits: 2 to 16.
    Returns:
        uint8 (ceil(n / 2),), or int8 or int16 in the shape of `values`.
    Raises:
        ValueError: bits are out of range, or a value needs more.

    >>> pack(torch.tensor([1, -1, 7]), 4).tolist()  # 1 + 16 * 15, and 7
    [241, 7]
    """
    check_bits(bits)
    half = 2 ** (bits - 1)
    if values.numel() and not -half <= int(values.min()) <= int(values.max()) < half:
        raise ValueError(f"values: from {int(values.min())} to {int(values.max())}, beyond bits={bits}; use more bits")
    if bits > 4:
        return values.to(torch.int8 if bits <= 8 else torch.int16)
    nibbles = (values.flatten().to(torch.int16) % 16).to(torch.uint8)
    nibbles = nn.functional.pad(nibbles, (0, len(nibbles) % 2))
    return nibbles[::2] | nibbles[1::2] << 4


def unpack(packed: Tensor, shape: torch.Size, bits: int) -> Tensor:
    """The whole numbers that `pack` was given, as int16 in their shape.

    >>> unpack(pack(torch.tensor([[1, -1, 7]]), 4), torch.Size([1, 3]), 4).tolist()
    [[1, -1, 7]]
    """
    if bits > 4:
        return packed.to(torch.int16).view(shape)
    nibbles = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[: shape.numel()].to(torch.int16)
    return torch.where(nibbles > 7, nibbles - 16, nibbles).view(shape)


def pack_sparse(values: Tensor, bits: int) -> dict[str, Tensor]:
    """`pack`, or where that takes fewer bytes a bit for each place and the numbers that are not 0.

    Returns:
        "dense", or "places" (uint8, eight places in a byte) and "values".

    >>> sorted(pack_sparse(torch.zeros(64, dtype=torch.int32), 4)), list(pack_sparse(torch.ones(64, dtype=torch.int32), 4))
    (['places', 'values'], ['dense'])
    """
    dense, kept = pack(values, bits), values != 0
    places = torch.from_numpy(np.packbits(kept.flatten().numpy()))
    found = {"places": places, "values": pack(values[kept], bits)}
    return found if sum(part.nbytes for part in found.values()) < dense.nbytes else {"dense": dense}


def unpack_sparse(found: Mapping[str, Tensor], shape: torch.Size, bits: int) -> Tensor:
    """The whole numbers that `pack_sparse` was given, as int16 in their shape."""
    if "dense" in found:
        return unpack(found["dense"], shape, bits)
    kept = torch.from_numpy(np.unpackbits(found["places"].numpy(), count=shape.numel()).astype(bool))
    values = torch.zeros(shape.numel(), dtype=torch.int16)
    values[kept] = unpack(found["values"], torch.Size([int(kept.sum())]), bits)
    return values.view(shape)


def weight_grid(layer: QuantizedLinear) -> Grid:
    """The grid that the weight of a quantized layer lies on; a step for each output channel where they are learned."""
    if isinstance(layer.of_weight, WeightQuantizer):
        return layer.of_weight.grid(layer.weight)
    assert isinstance(layer.of_weight, ChannelQuantizer)
    top = 2 ** (layer.of_weight.bits - 1) - 1
    step = layer.of_weight.used_step().detach()
    return Grid(step, torch.zeros_like(step, dtype=torch.int32), -top, top)


@torch.no_grad()
def integer_weight(layer: QuantizedLinear) -> Tensor:
    """(out, in) int32: the k of the grid values that a quantized layer multiplies by."""
    return to_integers(layer.of_weight(layer.weight), weight_grid(layer))


def _bits(layer: QuantizedLinear) -> int:
    assert isinstance(layer.of_weight, WeightQuantizer | ChannelQuantizer)
    return layer.of_weight.bits


def quantized_layers(network: nn.Module) -> Iterator[tuple[str, QuantizedLinear]]:
    """The quantized linear maps of a network by their paths."""
    return ((path, module) for path, module in network.named_modules() if isinstance(module, QuantizedLinear))


def _kind(network: nn.Module) -> str:
    """What a file's metadata must say: it changes with the names and shapes of the layers, and with how each is quantized."""
    bits = [
        (path, module.grouped if isinstance(module, NodeQuantizer) else module.bits)
        for path, module in network.named_modules()
        if isinstance(module, RangeQuantizer | WeightQuantizer | ChannelQuantizer | NodeQuantizer)
    ]
    return f"packed net {layout(network, bits)}"


def save(path: str | os.PathLike[str], network: nn.Module) -> int:
    """Write a quantized network to a safetensors file: weights packed by `pack_sparse`, what is not quantized in float32.

    Bits that nodes have learned are stored as int8, a step and bits for each node; below 0 where the grid is unsigned. Of a
    uniform grid its largest value is stored, from which the step is computed again.

    Returns:
        the bytes of the file.
    Raises:
        ValueError: no layer is quantized, or two share a weight that each quantizes for itself.
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save as serialise

    layers = dict(quantized_layers(network))
    if not layers:
        raise ValueError("network: no layer is quantized, so nothing can be packed; use quantize first")
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().clone().contiguous() for name in set(first_names(network).values())}
    for name, layer in layers.items():
        weight, of_weight = (f"{name}.{part}".lstrip(".") for part in ("weight", "of_weight"))
        if tensors.pop(weight, None) is None:
            raise ValueError(f"network: layer {name!r} shares its weight with another layer; give it a copy before quantize")
        tensors |= {f"{weight}.{part}": value for part, value in pack_sparse(integer_weight(layer).cpu(), _bits(layer)).items()}
        if isinstance(layer.of_weight, ChannelQuantizer):
            tensors[f"{of_weight}.step"] = weight_grid(layer).step.cpu()
        else:
            tensors[f"{of_weight}.ends"] = layer.weight.detach().abs().max().cpu()
    for name, module in network.named_modules():
        if isinstance(module, NodeQuantizer):
            bits = module.whole_bits().to(torch.int8)[:, None].cpu()
            tensors[f"{name}.bits"] = -bits if module.unsigned else bits
    content = serialise(tensors, metadata={"kind": _kind(network)})
    store.demand_writable(Path(path), len(content))
    store.replace(Path(path), content)
    return len(content)


def load(path: str | os.PathLike[str], network: nn.Module) -> nn.Module:
    """A copy of the network with the weights of a file that `save` wrote; it computes what the saved one did, bit for bit.

    Args:
        network: quantized by the same scheme with the same shapes and bits; its own weights do not matter.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no packed network, or one of other names, shapes or bits.
    """
    tensors = safe_files.read_kind(
        path, _kind(network), "packed layers with the names, shapes and bits of this network", "packed.save"
    )
    found = copy_model(network)
    for name, layer in quantized_layers(found):
        weight, of_weight = (f"{name}.{part}".lstrip(".") for part in ("weight", "of_weight"))
        parts = {part: tensors.pop(f"{weight}.{part}") for part in PARTS if f"{weight}.{part}" in tensors}
        integers = unpack_sparse(parts, layer.weight.shape, _bits(layer))
        if isinstance(layer.of_weight, ChannelQuantizer):
            tensors[weight] = integers * tensors[f"{of_weight}.step"]
        else:
            ends = tensors.pop(f"{of_weight}.ends")
            grid = symmetric_grid(ends, _bits(layer))
            tensors[weight] = torch.where(integers.abs() == grid.high, ends.copysign(integers), integers * grid.step)
    for name, module in found.named_modules():
        if isinstance(module, NodeQuantizer):
            bits = tensors[f"{name}.bits"]
            module.unsigned, tensors[f"{name}.bits"] = bool((bits < 0).all()), bits.abs()
    found.load_state_dict({name: tensors[first] for name, first in first_names(found).items()})
    return found


class Int8Linear(nn.Module):
    """A quantized layer whose product is computed in whole numbers of 8 bits.

    With x = s (k - z) and w = t m the product is s t (k m - z sum m): one integer product, and a number for each output. There
    is no integer for NaN and for infinite values: a ValueError says so.
    """

    weight: Tensor
    totals: Tensor
    bias: Tensor | None

    def __init__(self, layer: QuantizedLinear) -> None:
        super().__init__()
        grid, entering = weight_grid(layer), layer.entering
        assert isinstance(entering, RangeQuantizer)
        self.grid, self.weight_step = entering.grid(), grid.step
        weight = integer_weight(layer)
        self.register_buffer("weight", weight.to(torch.int8).t().contiguous())
        self.register_buffer("totals", weight.sum(1) * (self.grid.zero - 128))
        self.bias, self.sent = layer.bias, layer.sent

    def forward(self, x: Tensor) -> Tensor:
        x = x.to_dense() if x.layout == torch.sparse_csr else x  # there is no kernel for sparse whole numbers
        value_range(x, 0.0)  # refuses what is not finite
        k = (x * (1 / self.grid.step)).round_().add_(self.grid.zero).clamp_(0, 255).sub_(128).to(torch.int8)
        product = (torch._int_mm(k, self.weight) - self.totals) * (self.grid.step * self.weight_step)
        out: Tensor = self.sent(product if self.bias is None else product + self.bias)
        return out


def use_int8(network: nn.Module) -> nn.Module:
    """A copy of a network quantized to 8 bits, whose linear maps run as `Int8Linear`; for evaluation on the CPU.

    Raises:
        ValueError: a layer is quantized to other bits than 8, or by learned ones (named).
    """
    found = copy_model(network).eval()
    for path, layer in list(quantized_layers(found)):
        eight = isinstance(layer.entering, RangeQuantizer) and isinstance(layer.of_weight, WeightQuantizer)
        if not eight or layer.entering.bits != 8 or layer.of_weight.bits != 8:
            raise ValueError(f"network: layer {path!r} is not quantized to 8 bits; quantize it with Uniform(bits=8)")
        found = replace(found, layer, Int8Linear(layer))
    return found
