"""What layers do to channel labels: producers and consumers, normalisation, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.nn.modules.conv import _ConvTransposeNd

from graphprune.graph.rules.data_movement import combine
from graphprune.graph.rules.labels import along, compact, first_along, stored_dims, unlabelled, varies, varying_dims
from graphprune.graph.rules.operation import Call, Run, as_dims, hold_along, others, unknown

# producers and consumers ----------------------------------------------------------------------------------------------


def lengthwise(run: Run, call: Call, dim: int, why: str) -> Tensor:
    """(C,): the labels along one dimension, for an operation that treats all places of the others alike."""
    x = call.x
    if stored_dims(x) in ([], [dim % x.ndim]):
        return x.as_strided((x.shape[dim],), (x.stride(dim),))
    return run.ledger.collapse(call.x, others(call.x, dim), f"{call.what} {why}").reshape(-1)


def weight_and_bias(call: Call) -> tuple[str | None, str | None]:
    """The paths of the parameters that a producer applies: "" where there is no bias, None where one is computed."""
    if call.is_module:
        return f"{call.node.target}.weight", f"{call.node.target}.bias" if call.op.bias is not None else ""
    return call.tensor_name(1, "weight"), call.tensor_name(2, "bias") if call.get(2, "bias") is not None else ""


COMPUTED = "has a weight or a bias that the forward computes"


def convolution(run: Run, call: Call) -> Any:
    """Reads the input's channels, produces its own. A depthwise one ties them; a grouped one ties its groups by position."""
    weight, bias = weight_and_bias(call)
    if weight is None or bias is None:
        return unknown(run, call, COMPUTED)
    if run.tensors[weight].is_complex():
        return unknown(run, call, "has complex weights")
    if call.is_module:
        groups, transposed = call.op.groups, isinstance(call.op, _ConvTransposeNd)
    else:
        groups, transposed = call.get(6, "groups", 1), "transpose" in call.op.__name__
    size = run.tensors[weight].shape
    inputs = lengthwise(run, call, 1, "reads it across space")
    outputs = _conv_labels(run, weight, size, inputs, groups, transposed)
    if bias:
        run.site(bias, 0, outputs)
    per_position = size[0] if transposed else outputs.numel()
    run.applied(weight, (call.x if transposed else call.out).numel() / per_position)
    run.layer(weight.removesuffix(".weight"), "conv", outputs)
    return along(outputs, 1, call.out.shape)


def _conv_labels(run: Run, weight: str, size: torch.Size, inputs: Tensor, groups: int, transposed: bool) -> Tensor:
    """Output labels of a convolution, its weight's sites noted.

    Shapes: weight (out, in / groups, ...); transposed (in, out / groups, ...).
    """
    row, column = (1, 0) if transposed else (0, 1)
    if groups == 1:
        run.site(weight, column, inputs)
        return run.produce(weight, row, size[row])
    ordinary = run.seeds is not None and (run.canonical[weight], 1) in run.seeds  # was not depthwise before it was pruned
    if len(inputs) == groups and not ordinary:  # one input channel a group: depthwise, with or without a multiplier
        outputs = inputs.repeat_interleave(size[1] if transposed else size[0] // groups)
        run.site(weight, 0, inputs if transposed else outputs)
        return outputs
    by_group = inputs.view(groups, -1)
    run.ledger.tie(by_group[:1], by_group, f"the grouped convolution of {weight} reads it")
    if transposed:
        run.site(weight, 0, inputs)
        return run.produce(weight, 1, size[1]).repeat(groups)
    run.site(weight, 1, by_group[0])
    outputs = run.produce(weight, 0, size[0])
    run.ledger.tie(outputs.view(groups, -1)[:1], outputs.view(groups, -1), f"the grouped convolution of {weight}")
    return outputs


def linear(run: Run, call: Call) -> Any:
    """Reads the last dimension, produces its own features there."""
    weight, bias = weight_and_bias(call)
    if weight is None or bias is None:
        return unknown(run, call, COMPUTED)
    if run.tensors[weight].is_complex():
        return unknown(run, call, "has complex weights")
    inputs = lengthwise(run, call, -1, "mixes the dimension it lies along")
    run.site(weight, 1, inputs)
    outputs = run.produce(weight, 0, call.out.shape[-1])
    if bias:
        run.site(bias, 0, outputs)
    run.applied(weight, call.out.numel() / call.out.shape[-1])
    run.layer(weight.removesuffix(".weight"), "fc", outputs)
    return along(outputs, -1, call.out.shape)


def channel_select(run: Run, call: Call) -> Tensor:
    """A fixed gather of channels reads and produces like a convolution; its index is cut and renumbered."""
    index = f"{call.node.target}.index"
    run.site(index, 1, lengthwise(run, call, 1, "reads it across space"))
    return along(run.produce(index, 0, call.out.shape[1]), 1, call.out.shape)


# normalisation --------------------------------------------------------------------------------------------------------


def channelwise(run: Run, call: Call, names: Sequence[str | None], kind: str) -> Tensor:
    """An operation with a number of its own for every channel (dimension 1)."""
    channels = lengthwise(run, call, 1, "treats its places alike")
    for name in names:
        if name:
            run.site(name, 0, channels)
    if kind:
        first = next((name for name in names if name), None)
        run.layer(first.rpartition(".")[0] if first else _path(call), kind, channels)
    return call.x if stored_dims(call.x) in ([], [1]) else along(channels, 1, call.out.shape)


def _path(call: Call) -> str:
    return str(call.node.target) if call.is_module else call.node.name


def _own(call: Call, *names: str) -> list[str | None]:
    """The module's parameters and buffers of these names that are there."""
    parameters, buffers = call.op._parameters, call.op._buffers
    there = [parameters.get(name) is not None or buffers.get(name) is not None for name in names]
    return [f"{call.node.target}.{name}" if found else None for name, found in zip(names, there, strict=True)]


def computed(run: Run, call: Call) -> bool:
    """Whether a function gets anything but parameters beside its main operand: the labels of those would be lost."""
    rest = [node for node in call.node.all_input_nodes if node is not call.raw(0, "input")]
    return any(node.op != "get_attr" and isinstance(run.labels[node], Tensor) for node in rest)


def statistics_norm(run: Run, call: Call, kind: str) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    if call.is_module:
        return channelwise(run, call, _own(call, "weight", "bias", "running_mean", "running_var"), kind)
    if computed(run, call):
        return unknown(run, call)
    return channelwise(run, call, [call.tensor_name(i + 1, name) for i, name in enumerate(names)], kind)


def batch_norm(run: Run, call: Call) -> Tensor:
    return statistics_norm(run, call, "bn")


def instance_norm(run: Run, call: Call) -> Tensor:
    return statistics_norm(run, call, "norm")


def group_norm(run: Run, call: Call) -> Tensor:
    """Its statistics run over a norm group, so a norm group's channels live or die together."""
    if computed(run, call):
        return unknown(run, call)
    if call.is_module:
        groups, names = call.op.num_groups, _own(call, "weight", "bias")
    else:
        groups, names = call.get(1, "num_groups"), [call.tensor_name(2, "weight"), call.tensor_name(3, "bias")]
    labels = channelwise(run, call, names, "norm")
    channels = first_along(labels, others(labels, 1)).view(groups, -1)
    if call.is_module:
        run.ledger.tie(channels[:, :1], channels, f"{call.what} normalises over it")
    else:
        run.ledger.freeze(channels, f"{call.what} has a literal number of groups")
    return labels


KEPT = 'normalises over it (norms="kept" prunes it)'
KEPT_FUNCTION = 'normalises over it (norms="kept" prunes it in a module that does nothing else)'
"""Why the channels of a layer norm stay, and what to do about it."""


def layer_norm(run: Run, call: Call) -> Tensor:
    """Its statistics run over the last dimensions: removing a channel there would change the others.

    Not those of an RMSNorm that has a weight: zeros add nothing to a sum of squares, and `prune` makes up for their number.
    """
    if computed(run, call):
        return unknown(run, call)
    shape = call.op.normalized_shape if call.is_module else call.get(1, "normalized_shape")
    if len(shape) == 1 and isinstance(call.op, nn.RMSNorm) and call.op.weight is not None and free_along(run, call.x, -1):
        return normalised(run, call, -1, kept=False)
    dims = range(call.x.ndim - len(shape), call.x.ndim)
    remedy = KEPT if call.is_module else KEPT_FUNCTION
    run.ledger.collapse(call.x, dims, f"{call.what} {remedy if len(shape) == 1 else 'normalises over it'}")
    last = compact(call.x).movedim(-1, 0).reshape(compact(call.x).shape[-1], -1)[:, 0]
    run.layer(_path(call), "norm", last.expand(call.x.shape[-1]))
    return call.x


def kept_norm(run: Run, call: Call, dim: int) -> Any:
    """Any module that normalises over one dimension, its statistics over the kept channels.

    Where labels differ along other dimensions too (a norm within heads), whole rows go instead.
    """
    if computed(run, call) or len(call.operands) != 1:
        return unknown(run, call)
    if not free_along(run, call.x, dim):
        labels = run.ledger.collapse(call.x, [dim % call.x.ndim], f"{call.what} normalises over it").expand(call.x.shape)
        run.norm(_path(call), dim, torch.full((call.x.shape[dim],), -1), True)
        return labels
    return normalised(run, call, dim, kept=True)


def free_along(run: Run, labels: Tensor, dim: int) -> bool:
    """Whether labels differ along one dimension at most, this one, but for those that are tied already."""
    if set(varying_dims(labels)) <= {dim % labels.ndim}:
        return True
    small = compact(labels)
    classes = torch.from_numpy(np.append(run.ledger.classes(), -1))[small] if run.ledger.atoms is None else small
    return set(varying_dims(classes)) <= {dim % labels.ndim}


def normalised(run: Run, call: Call, dim: int, kept: bool) -> Tensor:
    """A normalisation whose channels can go: its parameters and the sizes that it keeps follow."""
    path, channels = _path(call), lengthwise(run, call, dim, "normalises over it")
    for name in call.op._parameters:
        if getattr(call.op, name) is not None:
            run.site(f"{path}.{name}", 0, channels)
    for name, size in vars(call.op).items():
        for place, number in enumerate(size) if isinstance(size, tuple | list) else ((None, size),):
            if type(number) is int and number == len(channels) > 1:
                run.number((path, name, place), channels)
    run.norm(path, dim, channels, kept)
    run.layer(path, "norm", channels)
    return call.x


def local_response_norm(run: Run, call: Call) -> Tensor:
    hold_along(run, call, [1], "normalises across channels")
    return call.x


def prelu(run: Run, call: Call) -> Any:
    """One slope for all channels, or one a channel."""
    if call.is_module:
        return call.x if call.op.num_parameters == 1 else channelwise(run, call, _own(call, "weight"), "")
    name = call.tensor_name(1, "weight")
    return channelwise(run, call, [name], "") if name and call.get(1, "weight").numel() > 1 else unknown(run, call)


def softmax(run: Run, call: Call) -> Tensor:
    """Normalises along a dimension: what lies there goes as a whole, or not at all."""
    position, default = {"normalize": (2, 1), "gumbel_softmax": (4, -1)}.get(call.name, (1, None))
    dim = call.op.dim if call.is_module else call.get(position, "dim", default)
    if not isinstance(dim, int | tuple):
        return unknown(run, call)
    return run.ledger.collapse(call.x, as_dims(dim, call.x.ndim), f"{call.what} normalises over it").expand(call.x.shape)


# pooling, reduction ---------------------------------------------------------------------------------------------------


def spatial(run: Run, call: Call) -> Any:
    """Works within each channel's own map, whatever its new size."""
    if call.x.ndim < 3 or not isinstance(call.out, Tensor):
        return unknown(run, call)
    dims = range(2, call.x.ndim)
    return run.ledger.collapse(call.x, dims, f"{call.what} mixes places").expand(call.out.shape)


def pooling(run: Run, call: Call) -> Any:
    labels = spatial(run, call)
    if isinstance(labels, Tensor):
        channels = compact(labels)[:1].flatten(2)[0, :, 0]
        run.layer(_path(call), "pool", channels.expand(labels.shape[1]))
    return labels


def reduction(run: Run, call: Call) -> Any:
    """A sum, mean, maximum ... over dimensions."""
    if not isinstance(call.out, Tensor):
        return unknown(run, call)
    x = call.x
    along_dim, keeps = {"norm": (2, 3), "std": (1, 3), "var": (1, 3)}.get(call.name, (1, 2))
    dim = call.get(along_dim, "dim")
    dims = as_dims(None if isinstance(dim, bool) else dim, x.ndim)  # std(x, True) is an unbiased one over everything
    keepdim = bool(call.get(keeps, "keepdim", False))
    if call.name == "sum" and set(varying_dims(x)) <= set(dims) and _is_weighted(run, call):
        return unlabelled(call.out.shape)
    labels = run.ledger.collapse(x, dims, f"{call.what} reduces over it")
    if any(varies(x, dim) for dim in dims) and not varying_dims(labels):
        labels = torch.full_like(labels, -1)
    labels = labels.expand([1 if dim in dims else size for dim, size in enumerate(x.shape)])
    if x.ndim == 4 and set(dims) == {2, 3} and call.name in {"mean", "amax"}:
        run.layer(call.node.name, "pool", compact(labels)[0, :, 0, 0].expand(x.shape[1]))
    return labels if keepdim else labels.reshape([size for dim, size in enumerate(x.shape) if dim not in dims])


def _is_weighted(run: Run, call: Call) -> bool:
    """Whether the operand is a product with a parameter that has a weight for each of its places.

    Then the sum over them is what a linear layer computes, and a channel that goes takes its weight along.
    """
    product = call.node.all_input_nodes[0]
    if getattr(product.target, "__name__", product.target) not in {"mul", "multiply"}:
        return False
    places = {dim - call.x.ndim for dim in varying_dims(call.x)}
    weights = [run.labels[factor] for factor in product.all_input_nodes if factor.op == "get_attr"]
    return any(places <= {dim - weight.ndim for dim in varying_dims(weight)} for weight in weights)


# products of computed tensors ------------------------------------------------------------------------------------------


def matmul(run: Run, call: Call) -> Any:
    """(..., n, d) x (..., d, m): d is contracted; the dimensions in front, heads say, go on."""
    if len(call.operands) != 2 or min(labels.ndim for labels in call.operands) < 2:
        return unknown(run, call)
    a, b = call.operands
    depth = a.shape[-1]
    a = run.ledger.collapse(a, [a.ndim - 1], f"{call.what} contracts it")
    b = run.ledger.collapse(b, [b.ndim - 2], f"{call.what} contracts it")
    rows, columns = ({dim - labels.ndim for dim in varying_dims(labels)} for labels in (a, b))
    if rows and columns and not rows & columns:
        return unknown(run, call)
    labels = combine(run, a, b, call.what).expand(call.out.shape)
    if call.name != "_sparse_mm":
        _count_products(run, labels, call.out.numel() * depth)
    return labels


def attention(run: Run, call: Call) -> Any:
    """softmax(q k^T) v: heads go as a whole, and with grouped queries a key's head with all its queries'."""
    q, k, v, mask = (call.get(i, name) for i, name in enumerate(("query", "key", "value", "attn_mask")))
    a = run.ledger.collapse(q, [q.ndim - 2, q.ndim - 1], f"{call.what} contracts it")
    b = run.ledger.collapse(k, [k.ndim - 2, k.ndim - 1], f"{call.what} contracts it")
    if q.ndim > 2 and b.shape[-3] not in (1, a.shape[-3]):
        repeat = a.shape[-3] // b.shape[-3]
        b, v = b.repeat_interleave(repeat, -3), v.repeat_interleave(repeat, -3)
    a = combine(run, a, b, call.what)
    if isinstance(mask, Tensor):
        combine(run, a.expand(*q.shape[:-1], k.shape[-2]), mask, call.what)
    c = run.ledger.collapse(v, [v.ndim - 2, v.ndim - 1], f"{call.what} contracts it")
    labels = combine(run, c, a, call.what).expand(call.out.shape)
    _count_products(run, labels, q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    return labels


def _count_products(run: Run, labels: Tensor, macs: int) -> None:
    """Multiply-adds by the dimension that tells labels apart."""
    dims = varying_dims(labels)
    if len(dims) == 1:
        size = labels.shape[dims[0]]
        run.multiplied(first_along(labels, others(labels, dims[0])).reshape(-1), macs / size)


def embedding(run: Run, call: Call) -> Any:
    """Rows picked from a table: its columns are channels."""
    weight = f"{call.node.target}.weight" if call.is_module else call.tensor_name(1, "weight")
    if weight is None or (call.op.max_norm if call.is_module else call.get(3, "max_norm")) is not None:
        return unknown(run, call)
    return along(run.produce(weight, 1, call.out.shape[-1]), -1, call.out.shape)


def addmm(run: Run, call: Call) -> Any:
    """b + x W of a weight that lies (in, out)."""
    bias, weight = call.tensor_name(0, "input"), call.tensor_name(2, "mat2")
    if bias is None or weight is None or set(call.kwargs) & {"alpha", "beta", "out"} or call.get(0, "input").ndim != 1:
        return unknown(run, call)
    run.site(weight, 0, run.ledger.collapse(call.get(1, "mat1"), [0], f"{call.what} reads it").reshape(-1))
    outputs = run.produce(weight, 1, call.out.shape[1])
    run.site(bias, 0, outputs)
    run.applied(weight, call.out.numel() / call.out.shape[-1])
    run.layer(weight.removesuffix(".weight"), "fc", outputs)
    return along(outputs, 1, call.out.shape)


def recurrent(run: Run, call: Call) -> Any:
    """An LSTM, GRU or RNN reads its input's last dimension; its own state stays."""
    if not isinstance(call.get(0, "input"), Tensor):
        return unknown(run, call, "reads a packed sequence")
    if any(bool((labels >= 0).any()) for labels in call.operands[1:]):
        return unknown(run, call)
    inputs = lengthwise(run, call, -1, "reads it at every step")
    for suffix in ("", "_reverse") if call.op.bidirectional else ("",):
        weight = f"{call.node.target}.weight_ih_l0{suffix}"
        run.site(weight, 1, inputs)
        run.applied(weight, call.x.numel() / len(inputs))
    return map_aggregate(call.out, lambda leaf: unlabelled(leaf.shape) if isinstance(leaf, Tensor) else leaf)
