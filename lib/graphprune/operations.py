"""What each operation does to channel labels.

A rule takes the running `Propagation` and the `Call`, and returns the labels of the call's result. Rules are found by the
operation's name (functions and methods share them) or by the module class whose forward is used unchanged; anything else is
`unknown` and freezes what it touches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from graphprune.labels import along, compact, unlabelled, varies, varying
from graphprune.networks import ChannelSelect

if TYPE_CHECKING:
    from graphprune.propagation import Propagation


@dataclass(frozen=True)
class Call:
    """One executed node, with label tensors in place of its tensor arguments.

    Attributes:
        node: the traced node.
        op: the function, the method's name, or the module.
        args, kwargs: the arguments, label tensors in place of tensors.
        values: the positional arguments with the (meta) tensors themselves.
        out: the result.
    """

    node: fx.Node
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    values: tuple[Any, ...]
    out: Any

    @property
    def what(self) -> str:
        """The operation as a reader of the model would name it."""
        if isinstance(self.op, nn.Module):
            return f"{type(self.op).__name__} '{self.node.target}'"
        return f"{getattr(self.op, '__name__', self.op)}() at '{self.node.name}'"

    @property
    def x(self) -> Tensor:
        """The labels of the main operand."""
        return self.args[0] if self.args else self.kwargs["input"]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def raw(self, position: int, name: str, default: Any = None) -> Any:
        """An argument as written in the traced code: an `fx.Node` where it was computed, a literal where it was not."""
        return self.node.args[position] if len(self.node.args) > position else self.node.kwargs.get(name, default)

    def tensor_name(self, position: int, name: str) -> str | None:
        """The path of the parameter or buffer passed as an argument, if it is passed as it is."""
        raw = self.raw(position, name)
        return str(raw.target) if isinstance(raw, fx.Node) and raw.op == "get_attr" else None


Rule = Callable[["Propagation", Call], Any]


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested arguments, in order."""
    found: list[Tensor] = []
    map_aggregate(tree, lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None)
    return found


def others(labels: Tensor, *dims: int) -> list[int]:
    """All dimensions but these."""
    kept = {dim % labels.ndim for dim in dims}
    return [dim for dim in range(labels.ndim) if dim not in kept]


def as_dims(dims: Any, ndim: int) -> list[int]:
    """`dim` as torch takes it (None, a number or several) as a list of non-negative dimensions."""
    if dims is None or dims == ():
        return list(range(ndim))
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)]


# unknown, elementwise ---------------------------------------------------------------------------------------------


def unknown(run: Propagation, call: Call) -> Any:
    """Freeze everything that enters: the unknown is safe."""
    for labels in tensors((call.args, call.kwargs)):
        run.ledger.freeze(labels, f"{call.what} is not a known operation")
    return map_aggregate(call.out, lambda leaf: unlabelled(leaf.shape) if isinstance(leaf, Tensor) else leaf)


def combine(run: Propagation, a: Tensor, b: Tensor, what: str) -> Tensor:
    """Labels of an elementwise operation on two operands: what is aligned is tied.

    A dimension along which one operand's labels vary and the other one has a size but no varying labels is a constant of
    that size (a literal mask, padding): it cannot follow, so the labels stay.
    """
    ndim = max(a.ndim, b.ndim)
    a, b = (t.reshape((1,) * (ndim - t.ndim) + tuple(t.shape)) if t.ndim < ndim else t for t in (a, b))
    vary_a, vary_b = set(varying(a)), set(varying(b))
    for mine, theirs, t, other in ((vary_a, vary_b, a, b), (vary_b, vary_a, b, a)):
        if any(other.shape[dim] > 1 for dim in mine - theirs):
            run.ledger.freeze(t, f"{what} combines it with a tensor of fixed size")
    full_a, full_b = torch.broadcast_tensors(a, b)
    if vary_a & vary_b:
        run.ledger.tie(full_a, full_b, f"{what} combines it with a tensor of fixed size")
    lead, rest = (full_a, full_b) if vary_a or not vary_b else (full_b, full_a)
    small_lead, small_rest = torch.broadcast_tensors(compact(lead), compact(rest))
    return torch.where(small_lead >= 0, small_lead, small_rest).expand(full_a.shape)


def elementwise(run: Propagation, call: Call) -> Tensor:
    """Any operation that treats each element alone: one operand passes, several are combined."""
    operands = tensors((call.args, call.kwargs))
    labels = operands[0]
    for other in operands[1:]:
        labels = combine(run, labels, other, call.what)
    return labels


# producers and consumers ------------------------------------------------------------------------------------------


def unique_name(run: Propagation, name: str) -> str:
    """The layer's name, numbered when a shared module is used again."""
    taken = sum(layer.name.partition(":")[0] == name for layer in run.record.layers)
    return f"{name}:{taken + 1}" if taken else name


def convolution(run: Propagation, call: Call) -> Any:
    """Reads the input's channels, produces its own. A depthwise one ties them; a grouped one ties its groups by position."""
    if isinstance(call.op, nn.Module):
        module, path = call.op, str(call.node.target)
        weight, bias = f"{path}.weight", f"{path}.bias" if module.bias is not None else None
        groups, transposed = module.groups, isinstance(module, _ConvTransposeNd)
    else:
        transposed = "transpose" in call.op.__name__
        weight, bias = call.tensor_name(1, "weight"), call.tensor_name(2, "bias")
        groups = call.get(6, "groups", 1)
        if weight is None or (bias is None and call.get(2, "bias") is not None):
            return unknown(run, call)
    size = run.tensors[weight].shape
    inputs = run.ledger.collapse(call.x, others(call.x, 1), f"{call.what} reads it across space").reshape(-1)
    outputs = _conv_labels(run, weight, size, inputs, groups, transposed)
    if bias:
        run.site(bias, 0, outputs)
    per_position = size[0] if transposed else outputs.numel()
    run.record.products[run.canonical[weight]] += (call.values[0] if transposed else call.out).numel() / per_position
    run.layer(unique_name(run, weight.rpartition(".")[0] or weight), "conv", outputs)
    return along(outputs, 1, call.out.shape)


def _conv_labels(run: Propagation, weight: str, size: torch.Size, inputs: Tensor, groups: int, transposed: bool) -> Tensor:
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


def linear(run: Propagation, call: Call) -> Any:
    """Reads the last dimension, produces its own features there."""
    if isinstance(call.op, nn.Module):
        weight: str | None = f"{call.node.target}.weight"
        bias = f"{call.node.target}.bias" if call.op.bias is not None else None
    else:
        weight, bias = call.tensor_name(1, "weight"), call.tensor_name(2, "bias")
    if weight is None or (bias is None and not isinstance(call.op, nn.Module) and call.get(2, "bias") is not None):
        return unknown(run, call)
    inputs = run.ledger.collapse(call.x, others(call.x, -1), f"{call.what} mixes the dimension it lies along").reshape(-1)
    run.site(weight, 1, inputs)
    outputs = run.produce(weight, 0, call.out.shape[-1])
    if bias:
        run.site(bias, 0, outputs)
    run.record.products[run.canonical[weight]] += call.out.numel() / call.out.shape[-1]
    run.layer(unique_name(run, weight.rpartition(".")[0] or weight), "fc", outputs)
    return along(outputs, -1, call.out.shape)


def channel_select(run: Propagation, call: Call) -> Tensor:
    """A fixed gather of channels reads and produces like a convolution; its index is cut and renumbered."""
    index = f"{call.node.target}.index"
    run.site(index, 1, run.ledger.collapse(call.x, others(call.x, 1), f"{call.what} reads it across space").reshape(-1))
    return along(run.produce(index, 0, call.out.shape[1]), 1, call.out.shape)


# normalisation ----------------------------------------------------------------------------------------------------


def channelwise(run: Propagation, call: Call, names: Sequence[str | None], kind: str) -> Tensor:
    """An operation with a number of its own for every channel (dimension 1)."""
    channels = run.ledger.collapse(call.x, others(call.x, 1), f"{call.what} treats its places alike").reshape(-1)
    for name in names:
        if name:
            run.site(name, 0, channels)
    if kind:
        first = next((name for name in names if name), None)
        run.layer(unique_name(run, first.rpartition(".")[0] if first else _path(call)), kind, channels)
    return along(channels, 1, call.out.shape)


def _path(call: Call) -> str:
    return str(call.node.target) if isinstance(call.op, nn.Module) else call.node.name


def _own(call: Call, *names: str) -> list[str | None]:
    """The module's parameters and buffers of these names that are there."""
    return [f"{call.node.target}.{name}" if getattr(call.op, name, None) is not None else None for name in names]


def batch_norm(run: Propagation, call: Call) -> Tensor:
    if isinstance(call.op, nn.Module):
        return channelwise(run, call, _own(call, "weight", "bias", "running_mean", "running_var"), "bn")
    if call.op.__name__ == "instance_norm":
        return instance_norm(run, call)
    names = ("running_mean", "running_var", "weight", "bias")
    return channelwise(run, call, [call.tensor_name(i + 1, name) for i, name in enumerate(names)], "bn")


def instance_norm(run: Propagation, call: Call) -> Tensor:
    if isinstance(call.op, nn.Module):
        return channelwise(run, call, _own(call, "weight", "bias", "running_mean", "running_var"), "norm")
    names = ("running_mean", "running_var", "weight", "bias")
    return channelwise(run, call, [call.tensor_name(i + 1, name) for i, name in enumerate(names)], "norm")


def group_norm(run: Propagation, call: Call) -> Tensor:
    """Its statistics run over a norm group, so a norm group's channels live or die together."""
    if isinstance(call.op, nn.Module):
        groups, names = call.op.num_groups, _own(call, "weight", "bias")
    else:
        groups, names = call.get(1, "num_groups"), [call.tensor_name(2, "weight"), call.tensor_name(3, "bias")]
    labels = channelwise(run, call, names, "norm")
    channels = run.record.layers[-1].labels.view(groups, -1)
    if isinstance(call.op, nn.Module):
        run.ledger.tie(channels[:, :1], channels, f"{call.what} normalises over it")
    else:
        run.ledger.freeze(channels, f"{call.what} has a literal number of groups")
    return labels


def layer_norm(run: Propagation, call: Call) -> Tensor:
    """Its statistics run over the last dimensions: removing a channel there would change the others."""
    shape = call.op.normalized_shape if isinstance(call.op, nn.Module) else call.get(1, "normalized_shape")
    dims = range(call.x.ndim - len(shape), call.x.ndim)
    freeze_along(run, call, dims, "normalises over it")
    last = compact(call.x).movedim(-1, 0).reshape(compact(call.x).shape[-1], -1)[:, 0]
    run.layer(unique_name(run, _path(call)), "norm", last.expand(call.x.shape[-1]))
    return call.x


def local_response_norm(run: Propagation, call: Call) -> Tensor:
    freeze_along(run, call, [1], "normalises across channels")
    return call.x


def prelu(run: Propagation, call: Call) -> Any:
    """One slope for all channels, or one a channel."""
    if isinstance(call.op, nn.Module):
        return call.x if call.op.num_parameters == 1 else channelwise(run, call, _own(call, "weight"), "")
    name = call.tensor_name(1, "weight")
    return channelwise(run, call, [name], "") if name and call.get(1, "weight").numel() > 1 else unknown(run, call)


def freeze_along(run: Propagation, call: Call, dims: Any, why: str) -> None:
    """Freeze the labels if they vary along one of these dimensions."""
    if any(varies(call.x, dim) for dim in dims):
        run.ledger.freeze(call.x, f"{call.what} {why}")


def softmax(run: Propagation, call: Call) -> Tensor:
    """Normalises along a dimension: nothing there can go."""
    dim = call.op.dim if isinstance(call.op, nn.Module) else call.get(1, "dim")
    if str(getattr(call.op, "__name__", "")) == "normalize":
        dim = call.get(2, "dim", 1)
    freeze_along(run, call, as_dims(dim, call.x.ndim), "normalises over it")
    return call.x


# pooling, reduction -----------------------------------------------------------------------------------------------


def spatial(run: Propagation, call: Call) -> Any:
    """Works within each channel's own map, whatever its new size."""
    if call.x.ndim < 3 or not isinstance(call.out, Tensor):
        return unknown(run, call)
    dims = range(2, call.x.ndim)
    return run.ledger.collapse(call.x, dims, f"{call.what} mixes places").expand(call.out.shape)


def pooling(run: Propagation, call: Call) -> Any:
    labels = spatial(run, call)
    if isinstance(labels, Tensor):
        channels = compact(labels)[:, :, *([0] * (labels.ndim - 2))].amax(0)
        run.layer(unique_name(run, _path(call)), "pool", channels.expand(labels.shape[1]))
    return labels


def reduction(run: Propagation, call: Call) -> Any:
    """A sum, mean, maximum ... over dimensions."""
    if not isinstance(call.out, Tensor):
        return unknown(run, call)
    x = call.x
    dims = as_dims(call.get(1, "dim"), x.ndim)
    keepdim = bool(call.get(2, "keepdim", False))
    labels = run.ledger.collapse(x, dims, f"{call.what} reduces over it")
    if any(varies(x, dim) for dim in dims) and not varying(labels):
        labels = torch.full_like(labels, -1)
    labels = labels.expand([1 if dim in dims else size for dim, size in enumerate(x.shape)])
    if x.ndim == 4 and set(dims) == {2, 3} and str(getattr(call.op, "__name__", call.op)) in {"mean", "amax"}:
        run.layer(unique_name(run, call.node.name), "pool", compact(labels)[0, :, 0, 0].expand(x.shape[1]))
    return labels if keepdim else labels.reshape([size for dim, size in enumerate(x.shape) if dim not in dims])


# data movement ----------------------------------------------------------------------------------------------------


def execute(run: Propagation, call: Call) -> Any:
    """Run the operation itself on the labels."""
    try:
        if isinstance(call.op, str):
            return getattr(call.x, call.op)(*call.args[1:], **call.kwargs)
        return call.op(*call.args, **call.kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        return unknown(run, call)


def hold_literal(run: Propagation, labels: Tensor, dim: int, what: str) -> None:
    """A dimension whose size is written in the model's code must keep that size.

    If other dimensions tell the labels apart, tie along it: whole rows go and the size stays. Else freeze.
    """
    if not varies(labels, dim):
        return
    first = compact(labels).narrow(dim, 0, 1)
    reason = f"{what} fixes a size in the model's code"
    if varying(first):
        run.ledger.tie(first, labels, reason)
    else:
        run.ledger.freeze(labels, reason)


def reshape(run: Propagation, call: Call) -> Tensor:
    """view, reshape: dimensions given as literal numbers hold their size."""
    raw = call.node.args[1:]
    sizes = list(raw[0]) if len(raw) == 1 and isinstance(raw[0], list | tuple) else list(raw)
    if not sizes:
        sizes = list(call.raw(1, "shape") or call.raw(1, "size") or [])
    labels = call.x.reshape(call.out.shape)
    for dim, size in enumerate(sizes):
        if isinstance(size, int) and size != -1 and len(sizes) == labels.ndim:
            hold_literal(run, labels, dim, call.what)
    return labels


def unflatten(run: Propagation, call: Call) -> Tensor:
    labels = call.x.reshape(call.out.shape)
    if isinstance(call.op, nn.Module):
        dim, sizes = call.op.dim % call.x.ndim, list(call.op.unflattened_size)
    else:
        dim, sizes = call.get(1, "dim") % call.x.ndim, list(call.raw(2, "sizes"))
    for step, size in enumerate(sizes):
        if isinstance(size, int) and size != -1:
            hold_literal(run, labels, dim + step, call.what)
    return labels


def expand(run: Propagation, call: Call) -> Any:
    for dim, size in enumerate(call.out.shape[-call.x.ndim :]):
        if varies(call.x, dim) and size == call.x.shape[dim]:
            raw = call.node.args[1:]
            raw = raw[0] if len(raw) == 1 and isinstance(raw[0], list | tuple) else raw
            given = raw[len(raw) - call.x.ndim + dim]
            if isinstance(given, int) and given != -1:
                run.ledger.freeze(call.x, f"{call.what} fixes a size in the model's code")
    return call.x.expand(call.out.shape)


def tie_parts(run: Propagation, x: Tensor, dim: int, parts: int, what: str) -> None:
    """Equal parts of a dimension must stay equal: tie them by position."""
    if not varies(x, dim):
        return
    small = compact(x).movedim(dim, 0)
    if len(small) % parts:
        run.ledger.freeze(x, f"{what} cuts it into unequal parts")
        return
    cut = small.reshape(parts, len(small) // parts, *small.shape[1:])
    run.ledger.tie(cut[:1], cut, f"{what} cuts it into equal parts")


def chunk(run: Propagation, call: Call) -> Any:
    dim = call.get(2, "dim", 0) % call.x.ndim
    tie_parts(run, call.x, dim, call.get(1, "chunks"), call.what)
    return execute(run, call)


def split(run: Propagation, call: Call) -> Any:
    dim = call.get(2, "dim", 0) % call.x.ndim
    name = "split_size" if "split_size" in call.kwargs else "split_size_or_sections"
    raw = call.raw(1, name)
    literal = any(isinstance(size, int) for size in (raw if isinstance(raw, list | tuple) else [raw]))
    widths = {part.shape[dim] for part in call.out}
    if varies(call.x, dim) and (literal or len(widths) > 1):
        run.ledger.freeze(call.x, f"{call.what} fixes a size in the model's code")
    else:
        tie_parts(run, call.x, dim, len(call.out), call.what)
    return execute(run, call)


def unbind(run: Propagation, call: Call) -> Any:
    freeze_along(run, call, [call.get(1, "dim", 0) % call.x.ndim], "takes it apart")
    return execute(run, call)


def getitem(run: Propagation, call: Call) -> Any:
    """Indexing a tensor freezes labels that vary along an indexed dimension; taking an item of a tuple is free."""
    container, index = call.args
    if not isinstance(container, Tensor):
        return container[index]
    if tensors(index):
        return unknown(run, call)
    items = index if isinstance(index, tuple) else (index,)
    dim = 0
    for item in items:
        if item is Ellipsis:
            dim += container.ndim - sum(i is not None and i is not Ellipsis for i in items)
        elif item is not None:
            if item != slice(None) and varies(container, dim):
                run.ledger.freeze(container, f"{call.what} picks fixed places of it")
            dim += 1
    return container[index]


def select(run: Propagation, call: Call) -> Any:
    freeze_along(run, call, [call.get(1, "dim") % call.x.ndim], "picks fixed places of it")
    return execute(run, call)


def roll(run: Propagation, call: Call) -> Any:
    freeze_along(run, call, as_dims(call.get(2, "dims"), call.x.ndim), "shifts it by a fixed number")
    return execute(run, call)


def concatenate(run: Propagation, call: Call) -> Tensor:
    """Labels follow one another; in the other dimensions the operands must go on having the same sizes."""
    parts = call.get(0, "tensors")
    dim = call.get(1, "dim", 0) % call.out.ndim
    parts = [part for part in parts if part.ndim == call.out.ndim]
    heads = [part.narrow(dim, 0, 1) for part in parts if part.shape[dim]]
    if any(set(varying(part)) - {dim} for part in parts):
        for head, part in zip(heads, parts, strict=True):
            run.ledger.tie(heads[0], head, f"{call.what} joins it to a tensor of fixed size")
            run.ledger.tie(head, part, f"{call.what} joins it to a tensor of fixed size")
    free = [d for d in range(call.out.ndim) if d != dim and all(compact(part).shape[d] == 1 for part in parts)]
    for d in free:
        parts = [part.narrow(d, 0, 1) for part in parts]
    return torch.cat(list(parts), dim).expand(call.out.shape)


def stack(run: Propagation, call: Call) -> Any:
    parts = call.get(0, "tensors")
    for part in parts[1:]:
        run.ledger.tie(parts[0], part, f"{call.what} stacks it with a tensor of fixed size")
    return execute(run, call)


def pad(run: Propagation, call: Call) -> Tensor:
    """Padding within a map belongs to its channel; padding that adds channels adds unlabelled ones."""
    amounts = list(call.op.padding if isinstance(call.op, nn.Module) else call.get(1, "pad"))
    labels = call.x
    for step in range(len(amounts) // 2):
        dim = labels.ndim - 1 - step
        before, after = amounts[2 * step], amounts[2 * step + 1]
        if not varies(labels, dim):
            shape = [call.out.shape[d] if d == dim else size for d, size in enumerate(labels.shape)]
            labels = labels.narrow(dim, 0, 1).expand(shape)
        elif before < 0 or after < 0:
            run.ledger.freeze(labels, f"{call.what} crops it by a fixed number")
            labels = F.pad(labels, [0, 0] * step + [before, after], value=-1)
        else:
            labels = F.pad(labels, [0, 0] * step + [before, after], value=-1)
    return labels


def channel_shuffle(run: Propagation, call: Call) -> Any:
    groups = call.op.groups if isinstance(call.op, nn.Module) else call.get(1, "groups")
    tie_parts(run, call.x, 1, groups, call.what)
    sizes = call.x.shape
    return call.x.reshape(sizes[0], groups, -1, *sizes[2:]).transpose(1, 2).reshape(sizes)


def glu(run: Propagation, call: Call) -> Tensor:
    """a * sigmoid(b), a and b the two halves."""
    dim = (call.op.dim if isinstance(call.op, nn.Module) else call.get(1, "dim", -1)) % call.x.ndim
    tie_parts(run, call.x, dim, 2, call.what)
    return call.x.chunk(2, dim)[0]


def flatten(run: Propagation, call: Call) -> Tensor:
    return call.x.reshape(call.out.shape)


# finding the rule -------------------------------------------------------------------------------------------------


def _names(text: str, rule: Rule) -> dict[str, Rule]:
    return {name: rule for base in text.split() for name in (base, f"{base}_", f"i{base}", f"__{base}__")}


BY_NAME: dict[str, Rule] = {
    **_names(
        "add sub mul div truediv floordiv true_divide divide multiply subtract rsub maximum minimum pow where lerp clamp clip "
        "neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sign round floor ceil erf sin cos tanh sigmoid relu relu6 "
        "gelu silu mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid softplus softsign logsigmoid logit "
        "threshold dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout "
        "stochastic_depth drop_path float half double bfloat16 to type type_as detach clone contiguous requires_grad "
        "zeros_like ones_like empty_like rand_like randn_like full_like bernoulli nan_to_num gt lt ge le eq ne "
        "masked_fill logical_not logical_and logical_or mod fmod remainder rrelu hardshrink softshrink tanhshrink",
        elementwise,
    ),
    **_names("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", convolution),
    **_names("batch_norm", batch_norm),
    **_names("instance_norm", instance_norm),
    **_names("group_norm", group_norm),
    **_names("layer_norm rms_norm", layer_norm),
    **_names("local_response_norm", local_response_norm),
    **_names("linear", linear),
    **_names("prelu", prelu),
    **_names("softmax log_softmax softmin normalize gumbel_softmax", softmax),
    **_names("interpolate upsample upsample_nearest upsample_bilinear", spatial),
    **_names(
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d",
        pooling,
    ),
    **_names("mean sum amax amin prod std var norm logsumexp", reduction),
    **_names("view reshape", reshape),
    **_names("unflatten", unflatten),
    **_names("flatten ravel", flatten),
    **_names("expand", expand),
    **_names("chunk tensor_split", chunk),
    **_names("split split_with_sizes", split),
    **_names("unbind", unbind),
    **_names("getitem", getitem),
    **_names("select narrow", select),
    **_names("roll", roll),
    **_names("cat concat concatenate", concatenate),
    **_names("stack", stack),
    **_names("pad", pad),
    **_names("channel_shuffle native_channel_shuffle", channel_shuffle),
    **_names("glu", glu),
    **_names(
        "permute transpose swapaxes swapdims movedim moveaxis t squeeze unsqueeze expand_as repeat tile repeat_interleave "
        "flip pixel_shuffle pixel_unshuffle getattr view_as reshape_as",
        execute,
    ),
}

_PASSING = [
    kind
    for module in (nn.modules.activation, nn.modules.dropout)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, nn.Module) and kind.__module__ == module.__name__
]
BY_MODULE: dict[type[nn.Module], Rule] = {
    **dict.fromkeys(_PASSING, elementwise),
    nn.Identity: elementwise,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmin), softmax),
    **dict.fromkeys((nn.MultiheadAttention, nn.Softmax2d), unknown),
    nn.PReLU: prelu,
    nn.GLU: glu,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution),
    nn.Linear: linear,
    ChannelSelect: channel_select,
    _BatchNorm: batch_norm,
    _InstanceNorm: instance_norm,
    nn.GroupNorm: group_norm,
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), layer_norm),
    nn.LocalResponseNorm: local_response_norm,
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), spatial),
    **{
        kind: pooling
        for name, kind in inspect.getmembers(nn.modules.pooling, inspect.isclass)
        if "Pool" in name and "Unpool" not in name and not name.startswith("_") and issubclass(kind, nn.Module)
    },
    nn.Flatten: flatten,
    nn.Unflatten: unflatten,
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle), execute),
    nn.ChannelShuffle: channel_shuffle,
    **{kind: pad for name, kind in inspect.getmembers(nn.modules.padding, inspect.isclass) if name[-1] == "d"},
}


def module_base(module: nn.Module) -> type[nn.Module] | None:
    """The torch class whose forward a module uses unchanged; None where it has a forward of its own."""
    for base in type(module).__mro__:
        if base in BY_MODULE and type(module).forward is base.forward:
            return base
    for base in type(module).__mro__:  # the norms share a forward that their base class defines
        if base in (_BatchNorm, _InstanceNorm, _ConvNd) and type(module).forward is base.forward:
            return base if base in BY_MODULE else None
    return None


def rule_of(op: Any) -> Rule:
    """The rule of a function, method name or module; `unknown` if there is none."""
    if isinstance(op, nn.Module):
        base = module_base(op)
        return BY_MODULE[base] if base else unknown
    if isinstance(op, str):
        return BY_NAME.get(op, unknown)
    home = (getattr(op, "__module__", None) or "torch").partition(".")[0]
    name = getattr(op, "__name__", "")
    return BY_NAME.get(name, unknown) if home in {"torch", "_operator", "builtins", "torchvision"} else unknown


def is_merge(op: Any) -> bool:
    """Whether an operation joins two branches into one of the same shape."""
    return rule_of(op) is elementwise if not isinstance(op, nn.Module) else False


WEIGHT_READERS = (convolution, linear, batch_norm, instance_norm, group_norm, layer_norm, prelu)


def reads_weight(user: fx.Node, attribute: fx.Node) -> bool:
    """Whether a node reads a parameter as its weight, not as an operand."""
    return user.op == "call_function" and rule_of(user.target) in WEIGHT_READERS and user.args[:1] != (attribute,)
