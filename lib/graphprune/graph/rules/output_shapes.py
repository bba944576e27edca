"""The shape of an operation's result by formula.

The meta device knows every shape, but takes 30 to 1000 microseconds an operation, and imports a compiler on the first. These
are the formulas of torch's documentation. None stands for a case that is not covered, or an error: then the operation is
executed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from graphprune.graph.rules.operation import Call, as_dims

Shape = tuple[int, ...] | None
Formula = Callable[[Call], Shape]


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of elementwise operands.

    Raises:
        ValueError: they have none.
    """
    out = [1] * max(map(len, shapes))
    for shape in shapes:
        for dim, size in enumerate(shape, len(out) - len(shape)):
            if size != 1 and out[dim] not in (1, size):
                raise ValueError(f"shapes {', '.join(str(tuple(shape)) for shape in shapes)} do not fit each other")
            out[dim] = size if size != 1 else out[dim]
    return tuple(out)


def elementwise(call: Call) -> Shape:
    operands = call.operands
    return operands[0].shape if len(operands) == 1 else broadcast(*(operand.shape for operand in operands))


def unchanged(call: Call) -> Shape:
    return call.x.shape


def spread(value: Any, number: int) -> Sequence[int]:
    """A kernel size, stride ... as one number a dimension."""
    return [value] * number if isinstance(value, int) else value * number if len(value) == 1 else value


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> int:
    """floor((n + 2 p - d (k - 1) - 1) / s) + 1; with `ceil` rounded up, but no window begins in the padding behind."""
    steps = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return steps // stride + 1
    number = -(-steps // stride) + 1
    return number - ((number - 1) * stride >= size + padding)


def positive(batch: Sequence[int], sizes: Sequence[int]) -> Shape:
    return (*batch, *sizes) if min(sizes, default=1) > 0 else None


def convolution(call: Call) -> Shape:
    """Windows along each dimension; transposed (n - 1) s - 2 p + d (k - 1) + p_out + 1."""
    transposed = call.transposed
    wide, narrow, *kernel = call.option(1, "weight").shape
    groups, padding = call.option(6, "groups", 1), call.option(4, "padding", 0)
    n, (batch, channels, *sizes) = len(kernel), call.x.shape
    if len(sizes) != n or padding == "same" or (call.is_module and len(call.args) > 1):
        return None
    if channels != (wide if transposed else narrow * groups) or wide % groups:
        return None
    stride, padding = spread(call.option(3, "stride", 1), n), spread(0 if padding == "valid" else padding, n)
    dilation = spread(call.option(7 if transposed else 5, "dilation", 1), n)
    if not transposed:
        return positive((batch, wide), list(map(windows, sizes, kernel, stride, padding, dilation)))
    extra = spread(call.option(5, "output_padding", 0), n)
    found = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, k, s, p, d, e in zip(sizes, kernel, stride, padding, dilation, extra, strict=True)
    ]
    return positive((batch, narrow * groups), found)


def linear(call: Call) -> Shape:
    weight = call.option(1, "weight")
    return (*call.x.shape[:-1], weight.shape[0]) if call.x.shape[-1:] == weight.shape[1:] else None


def channel_select(call: Call) -> Shape:
    batch, _, *sizes = call.x.shape
    return (batch, len(call.op.index), *(-(-size // call.op.stride) for size in sizes))


def pool_kind(op: Any) -> tuple[str, int]:
    """("maxpool", 2) of nn.MaxPool2d as of F.max_pool2d."""
    names = [kind.__name__ for kind in type(op).__mro__ if kind.__module__ == "torch.nn.modules.pooling"]
    name = (names[0] if names else str(getattr(op, "__name__", op))).lower().replace("_", "")
    return name[:-2], int(name[-2])


def pooling(call: Call) -> Shape:
    kind, n = pool_kind(call.op)
    batch, sizes = call.x.shape[:-n], call.x.shape[-n:]
    if call.x.ndim <= n or kind not in {"maxpool", "avgpool", "adaptivemaxpool", "adaptiveavgpool"}:
        return None
    if "max" in kind and call.option(2 if "adaptive" in kind else 6, "return_indices", False):
        return None
    if "adaptive" in kind:
        wanted = spread(call.option(1, "output_size") or sizes, n)
        return positive(batch, [size if given is None else given for size, given in zip(sizes, wanted, strict=True)])
    kernel = spread(call.option(1, "kernel_size"), n)
    stride, padding = spread(call.option(2, "stride") or kernel, n), spread(call.option(3, "padding", 0), n)
    dilation = spread(call.option(4, "dilation", 1) if kind == "maxpool" else 1, n)
    ceil = bool(call.option(5 if kind == "maxpool" else 4, "ceil_mode", False))
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        return None
    if any(d * (k - 1) >= size + 2 * p for size, k, p, d in zip(sizes, kernel, padding, dilation, strict=True)):
        return None
    found = [windows(*along, ceil) for along in zip(sizes, kernel, stride, padding, dilation, strict=True)]
    return positive(batch, found)


def reduction(call: Call) -> Shape:
    if len(call.args) > 3 or not set(call.kwargs) <= {"input", "dim", "axis", "keepdim", "keepdims"}:
        return None
    if call.name not in {"mean", "sum", "amax", "amin"}:
        return None
    dims = as_dims(call.get(1, "dim"), call.x.ndim)
    keep = bool(call.get(2, "keepdim", False))
    return tuple(1 if dim in dims else size for dim, size in enumerate(call.x.shape) if keep or dim not in dims)


def concatenate(call: Call) -> Shape:
    parts, dim = call.get(0, "tensors"), call.get(1, "dim", 0)
    if not all(isinstance(part, Tensor) for part in parts):
        return None
    dim %= max(parts[0].ndim, 1)
    rest = {(*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts}
    if len(rest) != 1:
        return None
    return (*parts[0].shape[:dim], sum(part.shape[dim] for part in parts), *parts[0].shape[dim + 1 :])
