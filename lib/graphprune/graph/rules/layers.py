"""What layers do to channel labels: producers and consumers, pooling, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphprune.graph.rules.elementwise import combine
from graphprune.graph.rules.labels import along, compact, first_along, stored_dims, unlabelled, varies, varying_dims
from graphprune.graph.rules.operation import Call, Run, as_dims, others, unknown, unlabelled_like

# producers and consumers ----------------------------------------------------------------------------------------------


def lengthwise(run: Run, call: Call, dim: int, why: str) -> Tensor:
    """(C,): the labels along one dimension, for an operation that treats all places of the others alike."""
    x = call.x
    if stored_dims(x) in ([], [dim % x.ndim]):
        return x.as_strided((x.shape[dim],), (x.stride(dim),))
    return run.ledger.collapse(call.x, others(call.x, dim), f"{call.what} {why}").reshape(-1)


def weight_and_bias(run: Run, call: Call) -> tuple[str, str] | str:
    """The paths of the parameters that a producer applies, "" where there is no bias; or why they cannot be followed."""
    weight = f"{call.node.target}.weight" if call.is_module else call.tensor_name(1, "weight")
    bias: str | None = ""
    if call.option(2, "bias") is not None:
        bias = f"{call.node.target}.bias" if call.is_module else call.tensor_name(2, "bias")
    if weight is None or bias is None:
        return "has a weight or a bias that the forward computes"
    return "has complex weights" if run.tensors[weight].is_complex() else (weight, bias)


def convolution(run: Run, call: Call) -> Any:
    """Reads the input's channels, produces its own. A depthwise one ties them; a grouped one ties its groups by position."""
    if isinstance(found := weight_and_bias(run, call), str):
        return unknown(run, call, found)
    weight, bias = found
    size, transposed = run.tensors[weight].shape, call.transposed
    inputs = lengthwise(run, call, 1, "reads it across space")
    outputs = _conv_labels(run, weight, size, inputs, call.option(6, "groups", 1), transposed)
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
    if isinstance(found := weight_and_bias(run, call), str):
        return unknown(run, call, found)
    weight, bias = found
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


def channelwise(run: Run, call: Call, names: Sequence[str | None], kind: str) -> Tensor:
    """An operation with a number of its own for every channel (dimension 1)."""
    channels = lengthwise(run, call, 1, "treats its places alike")
    for name in names:
        if name:
            run.site(name, 0, channels)
    if kind:
        first = next((name for name in names if name), None)
        run.layer(first.rpartition(".")[0] if first else call.path, kind, channels)
    return call.x if stored_dims(call.x) in ([], [1]) else along(channels, 1, call.out.shape)


def prelu(run: Run, call: Call) -> Any:
    """One slope for all channels, or one a channel."""
    if call.is_module:
        return call.x if call.op.num_parameters == 1 else channelwise(run, call, [f"{call.path}.weight"], "")
    name = call.tensor_name(1, "weight")
    return channelwise(run, call, [name], "") if name and call.get(1, "weight").numel() > 1 else unknown(run, call)


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
        run.layer(call.path, "pool", channels.expand(labels.shape[1]))
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
    if weight is None or call.option(3, "max_norm") is not None:
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
    return unlabelled_like(call.out)
