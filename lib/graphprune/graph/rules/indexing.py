"""What indexing does to channel labels: rows picked and added up, as messages of graph networks and pooling over a batch do.

An index says which places of one dimension are read or written. What other dimensions tell apart goes on; what only this one
tells apart stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphprune.graph.rules.elementwise import combine
from graphprune.graph.rules.labels import varies
from graphprune.graph.rules.operation import Call, Run, number_key, of_attributes, others, tensors, unknown


def takes_everything(item: Any, size: int) -> bool:
    """Whether an index, as written in the code, takes a whole dimension of this size, and of any smaller one.

    A computed bound is no literal: it may shrink faster than what it bounds.
    """
    whole = isinstance(item, slice) and item.start in (None, 0) and item.step in (None, 1)
    return whole and (item.stop is None or (isinstance(item.stop, int) and item.stop >= size))


def getitem(run: Run, call: Call) -> Any:
    """Indexing a tensor freezes labels that vary along an indexed dimension; taking an item of a tuple is free."""
    container, index = call.args
    if not isinstance(container, Tensor):
        return container[index]
    if tensors(index):
        return take_by_tensors(run, call)
    raw = call.raw(1, "index")
    items = raw if isinstance(raw, tuple | list) else (raw,)
    dim = 0
    for item in items:
        if item is Ellipsis:
            dim += container.ndim - sum(i is not None and i is not Ellipsis for i in items)
        elif item is not None:
            if not takes_everything(item, container.shape[dim]) and varies(container, dim):
                pick(run, call, item, dim)
            dim += 1
    return container[index]


def pick(run: Run, call: Call, item: Any, dim: int) -> None:
    """Places of a dimension are picked: by numbers that modules keep, which follow, or by position, which must stay."""
    container = call.args[0]
    rows = run.ledger.collapse  # what other dimensions tell apart goes as whole rows
    bounds = [item.start, item.stop] if isinstance(item, slice) and item.step is None else []
    if not bounds or not all(bound in (None, 0) or of_attributes(bound) for bound in bounds):
        rows(container, [dim], f"{call.what} picks fixed places of it")
        return
    for bound in bounds:
        if key := number_key(bound):
            before = container.narrow(dim, 0, bound.meta["value"])
            run.number(key, rows(before, others(before, dim), f"{call.what} picks places of it").reshape(-1))


def hold_index(run: Run, call: Call, index: Tensor) -> None:
    """An index that is computed of channels keeps them: a place that is gone would be no place."""
    run.ledger.refuse(index, f"{call.what} takes it for an index")


def index_select(run: Run, call: Call) -> Any:
    """x.index_select(dim, index): rows in another order, some of them often."""
    hold_index(run, call, call.get(2, "index"))
    dim = call.get(1, "dim") % call.x.ndim
    return run.ledger.collapse(call.x, [dim], f"{call.what} picks places of it").expand(call.out.shape)


def same_but(shape: Sequence[int], other: Sequence[int], dim: int) -> bool:
    """Whether two shapes are the same but for one dimension."""
    return len(shape) == len(other) and all(size == other[d] for d, size in enumerate(shape) if d != dim)


def gather(run: Run, call: Call) -> Any:
    """x.gather(dim, index): out[i][j] = x[index[i][j]][j]."""
    x, index, what = call.x, call.get(2, "index"), f"{call.what} picks places of it"
    dim = call.get(1, "dim") % x.ndim
    if not same_but(index.shape, x.shape, dim):
        return unknown(run, call)  # the first places of other dimensions
    labels, chosen = run.ledger.collapse(x, [dim], what), run.ledger.collapse(index, [dim], what)
    return combine(run, labels, chosen, call.what).expand(call.out.shape)


def scatter(run: Run, call: Call) -> Any:
    """x.scatter_add(dim, index, source) and its like: x[index[i][j]][j] += source[i][j]."""
    x, index, what = call.x, call.get(2, "index"), f"{call.what} writes to places of it"
    source = call.get(3, "src", call.get(3, "value"))
    dim = call.get(1, "dim") % x.ndim
    operands = [index, source] if isinstance(source, Tensor) else [index]
    if not all(same_but(operand.shape, x.shape, dim) for operand in operands):
        return unknown(run, call)  # some places of other dimensions
    labels = run.ledger.collapse(x, [dim], what)
    for operand in operands:
        labels = combine(run, labels, run.ledger.collapse(operand, [dim], what), call.what)
    return labels.expand(x.shape)


def index_add(run: Run, call: Call) -> Any:
    """x.index_add(dim, index, source) and its like: x[index[i]] += source[i]."""
    x, source, what = call.x, call.get(3, "source", call.get(3, "value")), f"{call.what} writes to places of it"
    hold_index(run, call, call.get(2, "index"))
    dim = call.get(1, "dim") % x.ndim
    labels = run.ledger.collapse(x, [dim], what)
    if not isinstance(source, Tensor):
        return labels.expand(x.shape)
    if not same_but(source.shape, x.shape, dim):
        return unknown(run, call)
    return combine(run, labels, run.ledger.collapse(source, [dim], what), call.what).expand(x.shape)


def take_by_tensors(run: Run, call: Call) -> Any:
    """x[index], x[:, index], x[mask]: integer tensors side by side, or one mask, and else only whole dimensions."""
    x, index = call.args
    items, raw = (list(given) if isinstance(given, tuple) else [given] for given in (index, call.raw(1, "index")))
    places = [place for place, item in enumerate(items) if isinstance(item, Tensor)]
    whole = all(isinstance(item, Tensor) or item is Ellipsis or item == slice(None) for item in items)
    if not whole or places != list(range(places[0], places[-1] + 1)):
        return unknown(run, call)
    picked = [items[place] for place in places]
    for item in picked:
        hold_index(run, call, item)
    masks = [items[place].ndim for place in places if raw[place].meta["value"].dtype == torch.bool]
    if masks and len(picked) > 1:
        return unknown(run, call)
    used = masks[0] if masks else len(picked)
    rest = items[places[-1] + 1 :]
    first = x.ndim - used - len(rest) if Ellipsis in items[: places[0]] else places[0]
    labels = run.ledger.collapse(x, range(first, first + used), f"{call.what} picks places of it")
    added = call.out.ndim - (x.ndim - used)
    shape = [*labels.shape[:first], *[1] * added, *labels.shape[first + used :]]
    return labels.reshape(shape).expand(call.out.shape)
