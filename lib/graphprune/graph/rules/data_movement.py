"""What data-moving operations do to channel labels.

Moving operations are executed on the labels themselves. What needs a rule is what a smaller size would break: sizes written in
the model's code, cuts into equal parts, fixed positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from graphprune.graph.rules.elementwise import combine
from graphprune.graph.rules.labels import along, compact, first_along, unlabelled, varies, varying_dims
from graphprune.graph.rules.operation import (
    Call,
    Run,
    as_dims,
    hold_along,
    number_key,
    of_attributes,
    others,
    size_of,
    unknown,
)


def execute(run: Run, call: Call) -> Any:
    """Run the operation itself on the labels."""
    try:
        if isinstance(call.op, str):
            return getattr(call.x, call.op)(*call.args[1:], **call.kwargs)
        return call.op(*call.args, **call.kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        return unknown(run, call)


def hold_literal(run: Run, labels: Tensor, dim: int, what: str) -> Tensor:
    """A dimension whose size is written in the model's code must keep that size.

    If other dimensions tell the labels apart, tie along it: whole rows go and the size stays. Else freeze.

    Returns:
        the labels, what is tied under one of its own.
    """
    if not varies(labels, dim):
        return labels
    first = first_along(compact(labels), [dim])
    reason = f"{what} fixes a size in the model's code"
    if varying_dims(first):
        run.ledger.tie(first, labels, reason)
        return first.expand(labels.shape)
    run.ledger.freeze(labels, reason)
    return labels


def reshape(run: Run, call: Call) -> Tensor:
    """view, reshape: dimensions given as literal numbers hold their size."""
    sizes = call.sizes()
    labels = call.x.reshape(call.out.shape)
    return hold_sizes(run, call, labels, list(enumerate(sizes))) if len(sizes) == labels.ndim else labels


def hold_sizes(run: Run, call: Call, labels: Tensor, sizes: Sequence[tuple[int, Any]]) -> Tensor:
    """Literal sizes hold. Of numbers that modules keep, the first whose dimension varies follows: whole heads go.

    Args:
        sizes: dimensions, and their sizes as written.
    """
    operand = call.raw(0, "input")
    follows = [dim for dim, size in sizes if (isinstance(size, int) and size == -1) or size_of(size, operand)]
    free = any(varies(labels, dim) for dim in follows)
    for dim, size in sizes:
        key = number_key(size)
        if isinstance(size, int) and size != -1:
            hold_literal(run, labels, dim, call.what)
        elif key in run.held:
            labels = hold_literal(run, labels, dim, call.what)
        elif key is None:
            continue
        elif not varies(labels, dim):
            run.number(key, torch.full((labels.shape[dim],), -1))
        elif free:
            hold_literal(run, labels, dim, call.what)
        else:
            free = True
            rows = run.ledger.collapse(labels, others(labels, dim), f"{call.what} counts it by '{key[0]}.{key[1]}'")
            run.number(key, rows.reshape(-1))
    return labels


def unflatten(run: Run, call: Call) -> Tensor:
    labels = call.x.reshape(call.out.shape)
    if call.is_module:
        dim, sizes = call.op.dim % call.x.ndim, list(call.op.unflattened_size)
    else:
        dim, sizes = call.get(1, "dim") % call.x.ndim, list(call.raw(2, "sizes"))
    return hold_sizes(run, call, labels, list(enumerate(sizes, dim)))


def expand_as(run: Run, call: Call) -> Any:
    """What is expanded to a tensor's shape goes on having it."""
    return combine(run, call.x, call.get(1, "other"), call.what).expand(call.out.shape)


def expand(run: Run, call: Call) -> Any:
    sizes = call.sizes()
    spread = [
        size if dim < 0 or call.x.shape[dim] == 1 else -1 for dim, size in enumerate(sizes, call.x.ndim - len(call.out.shape))
    ]
    if varying_dims(made := sized_like(run, call, spread)):
        return combine(run, made, call.x, call.what)
    sizes = sizes[-call.x.ndim :] if call.x.ndim else []
    for dim, size in enumerate(call.out.shape[len(call.out.shape) - call.x.ndim :]):
        key = number_key(sizes[dim])
        if key and varies(call.x, dim):
            rows = run.ledger.collapse(call.x, others(call.x, dim), f"{call.what} counts it")
            run.number(key, rows.reshape(-1))
        literal = isinstance(sizes[dim], int) and sizes[dim] != -1
        if literal and varies(call.x, dim) and size == call.x.shape[dim]:
            run.ledger.freeze(call.x, f"{call.what} fixes a size in the model's code")
    return call.x.expand(call.out.shape)


def tie_parts(run: Run, x: Tensor, dim: int, parts: int, what: str) -> None:
    """Equal parts of a dimension must stay equal: tie them by position."""
    if not varies(x, dim):
        return
    small = compact(x).movedim(dim, 0)
    if len(small) % parts:
        run.ledger.freeze(x, f"{what} cuts it into unequal parts")
        return
    cut = small.reshape(parts, len(small) // parts, *small.shape[1:])
    run.ledger.tie(cut[:1], cut, f"{what} cuts it into equal parts")


def chunk(run: Run, call: Call) -> Any:
    dim = call.get(2, "dim", 0) % call.x.ndim
    tie_parts(run, call.x, dim, call.get(1, "chunks"), call.what)
    return execute(run, call)


def split(run: Run, call: Call) -> Any:
    dim = call.get(2, "dim", 0) % call.x.ndim
    name = "split_size" if "split_size" in call.kwargs else "split_size_or_sections"
    raw = call.raw(1, name)
    sizes = raw if isinstance(raw, list | tuple) else [raw]
    keys = [number_key(size) for size in sizes]
    literal = any(isinstance(size, int) or (of_attributes(size) and not number_key(size)) for size in sizes)
    widths = {part.shape[dim] for part in call.out}
    parts = execute(run, call)
    if not varies(call.x, dim):
        return parts
    if any(keys):
        for part, key in zip(parts, keys, strict=False):  # one key: the first part's
            rows = run.ledger.collapse(part, others(part, dim), f"{call.what} cuts it by a number that a module keeps")
            if key:
                run.number(key, rows.reshape(-1))
    if not all(keys) and (literal or len(widths) > 1):
        run.ledger.freeze(call.x, f"{call.what} fixes a size in the model's code")
    elif len(sizes) == 1 or not any(keys):
        tie_parts(run, call.x, dim, len(call.out), call.what)
    return parts


def unbind(run: Run, call: Call) -> Any:
    hold_along(run, call, [call.get(1, "dim", 0) % call.x.ndim], "takes it apart")
    return execute(run, call)


def select(run: Run, call: Call) -> Any:
    hold_along(run, call, [call.get(1, "dim") % call.x.ndim], "picks fixed places of it")
    return execute(run, call)


def roll(run: Run, call: Call) -> Any:
    hold_along(run, call, as_dims(call.get(2, "dims"), call.x.ndim), "shifts it by a fixed number")
    return execute(run, call)


def concatenate(run: Run, call: Call) -> Tensor:
    """Labels follow one another; in the other dimensions the operands must go on having the same sizes."""
    parts = call.get(0, "tensors")
    dim = call.get(1, "dim", 0) % call.out.ndim
    parts = [part for part in parts if part.ndim == call.out.ndim]
    heads = [first_along(part, [dim]) for part in parts if part.shape[dim]]
    if any(set(varying_dims(part)) - {dim} for part in parts):
        for head, part in zip(heads, parts, strict=True):
            run.ledger.tie(heads[0], head, f"{call.what} joins it to a tensor of fixed size")
            run.ledger.tie(head, part, f"{call.what} joins it to a tensor of fixed size")
    ones = [compact(part).shape for part in parts]
    free = [d for d in range(call.out.ndim) if d != dim and all(shape[d] == 1 for shape in ones)]
    return torch.cat([first_along(part, free) for part in parts], dim).expand(call.out.shape)


def stack(run: Run, call: Call) -> Any:
    parts = call.get(0, "tensors")
    for part in parts[1:]:
        run.ledger.tie(parts[0], part, f"{call.what} stacks it with a tensor of fixed size")
    return execute(run, call)


def pad(run: Run, call: Call) -> Tensor:
    """Padding within a map belongs to its channel; padding that adds channels adds unlabelled ones."""
    amounts = list(call.op.padding if call.is_module else call.get(1, "pad"))
    labels = call.x
    for step in range(len(amounts) // 2):
        dim = labels.ndim - 1 - step
        before, after = amounts[2 * step], amounts[2 * step + 1]
        if not varies(labels, dim):
            shape = [call.out.shape[d] if d == dim else size for d, size in enumerate(labels.shape)]
            labels = first_along(labels, [dim]).expand(shape)
        elif before < 0 or after < 0:
            run.ledger.freeze(labels, f"{call.what} crops it by a fixed number")
            labels = F.pad(labels, [0, 0] * step + [before, after], value=-1)
        else:
            labels = F.pad(labels, [0, 0] * step + [before, after], value=-1)
    return labels


def collection(run: Run, call: Call) -> Any:
    """A named tuple is built of what it is given."""
    return call.op(*call.args, **call.kwargs)


def channel_shuffle(run: Run, call: Call) -> Any:
    groups = call.option(1, "groups")
    tie_parts(run, call.x, 1, groups, call.what)
    sizes = call.x.shape
    return call.x.reshape(sizes[0], groups, -1, *sizes[2:]).transpose(1, 2).reshape(sizes)


def glu(run: Run, call: Call) -> Tensor:
    """a * sigmoid(b), a and b the two halves."""
    dim = call.option(1, "dim", -1) % call.x.ndim
    tie_parts(run, call.x, dim, 2, call.what)
    return call.x.chunk(2, dim)[0]


def first_operand(run: Run, call: Call) -> Tensor:
    """A conversion: of a second tensor only the kind is read."""
    return call.x


def created(run: Run, call: Call) -> Any:
    """New tensors of one value: zeros, ones. Sizes that are read of a tensor follow what is pruned of that."""
    if "out" in call.kwargs:
        return unknown(run, call)
    sizes: Any = call.node.args[0 if call.name in {"zeros", "ones", "empty", "full"} else 1 :]
    sizes = sizes or (call.node.kwargs.get("size"),)
    if isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    return sized_like(run, call, sizes) if len(sizes) == call.out.ndim else unlabelled(call.out.shape)


def sized_like(run: Run, call: Call, sizes: Sequence[Any]) -> Tensor:
    """Labels of what is alike in all places: where a size, as written, is that of a tensor, its places are that tensor's.

    So are those of a number that a module keeps and that was found to count channels. One tensor or number at most can tell
    places apart; the others' sizes hold.
    """
    shape = call.out.shape
    owner: Any = None
    found: dict[int, int] = {}
    for dim, size in enumerate(sizes):
        counted = run.counted(key) if (key := number_key(size)) else None
        if counted is not None and len(counted) == shape[dim] and varies(counted, 0):
            return along(counted, dim, shape)
        if not isinstance(size, fx.Node) or size.target != "size" or len(size.args) < 2:
            continue
        source: Any = size.args[0]
        place: Any = size.args[1]
        labels = run.labels[source]
        if isinstance(labels, Tensor) and varies(labels, place) and owner in (None, source):
            owner, found[dim] = source, place % labels.ndim
    if owner is None or len(set(found.values())) < len(found):
        return unlabelled(shape)
    labels = run.labels[owner]
    rest = [dim for dim in range(labels.ndim) if dim not in found.values()]
    labels = run.ledger.collapse(labels, rest, f"{call.what} makes a tensor of its size")
    labels = labels.permute(*found.values(), *rest)
    return labels.reshape([size if dim in found else 1 for dim, size in enumerate(shape)]).expand(shape)


def flatten(run: Run, call: Call) -> Tensor:
    return call.x.reshape(call.out.shape)
