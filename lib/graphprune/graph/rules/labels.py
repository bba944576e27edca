"""Integer labels on tensors: the bookkeeping behind the coupled groups.

Every output channel of every producer carries an integer label, in the shape of the producer's real output. A label is -1
where there is nothing to prune (the network's input, a constant). Operations either move labels, tie two of them together
(they must live or die together) or freeze them (they must stay). Ties and freezes are only recorded, and resolved once at the
end, by connected components.

A label tensor is mostly an expanded view: stride 0 along the dimensions on which it does not vary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


class Disagreement(ValueError):
    """Two labels that should be one are not: what a wrongly pruned network shows."""


def first_along(labels: Tensor, dims: Iterable[int]) -> Tensor:
    """The first place along each of these dimensions, at size 1 (by strides: `narrow` takes five times as long)."""
    shape = list(labels.shape)
    for dim in dims:
        shape[dim] = min(shape[dim], 1)
    return labels.as_strided(shape, labels.stride())


def compact(labels: Tensor) -> Tensor:
    """The same labels with size 1 along every dimension that is only an expansion."""
    expanded = [dim for dim, stride in enumerate(labels.stride()) if stride == 0 and labels.shape[dim] > 1]
    return first_along(labels, expanded) if expanded else labels


def stored_dims(labels: Tensor) -> list[int]:
    """The dimensions that are no expansions: by the strides alone, the only ones along which labels can differ."""
    shape = labels.shape
    return [dim for dim, stride in enumerate(labels.stride()) if stride and shape[dim] > 1]


def varies(labels: Tensor, dim: int) -> bool:
    """Whether the labels differ along a dimension."""
    if labels.shape[dim] < 2 or labels.stride(dim) == 0:
        return False
    small = compact(labels)
    return not torch.equal(small, first_along(small, [dim]).expand(small.shape))


def varying_dims(labels: Tensor) -> list[int]:
    """The dimensions along which the labels differ."""
    return [dim for dim in range(labels.ndim) if varies(labels, dim)]


def tidy(labels: Tensor) -> Tensor:
    """The same labels as an expanded view, stride 0 where they do not vary (a last dimension may stay)."""
    dims = stored_dims(labels)
    if len(dims) < 2:
        return labels
    small = compact(labels)
    for dim in dims:
        if not varies(small, dim):
            small = first_along(small, [dim])
    return small.expand(labels.shape)


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors bear the same labels in every place, but for expansion."""
    if first is second or first.ndim != second.ndim:
        return first is second
    return torch.equal(first, second) if first.ndim == 1 else torch.equal(compact(first), compact(second))


def unlabelled(shape: Iterable[int]) -> Tensor:
    """Labels of something with nothing to prune."""
    return torch.full((1,) * len(tuple(shape)), -1).expand(tuple(shape))


def along(labels: Tensor, dim: int, shape: Iterable[int]) -> Tensor:
    """(C,) labels as a tensor of the given shape that varies along `dim` only."""
    shape = tuple(shape)
    stride = [0] * len(shape)
    stride[dim] = labels.stride(0)
    return labels.as_strided(shape, stride)


def count_values(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones, sorted, and how often each is there (`np.unique` is slow on few).

    >>> import numpy as np
    >>> count_values(np.array([3, 1, 3]))
    (array([1, 3]), array([1, 2]))
    """
    numbers = np.sort(numbers)
    new = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    return numbers[starts], np.diff(starts, append=len(numbers))


@dataclass
class Ledger:
    """What was recorded about labels: how many there are, which are tied, which are frozen and why.

    With `atoms`, labels are classes already (the re-run on a pruned network), those below `atoms` the prunable ones, and
    tying two different ones raises.
    """

    atoms: int | None = None
    count: int = 0
    pairs: list[np.ndarray] = field(default_factory=list)
    reasons: list[tuple[np.ndarray, str]] = field(default_factory=list)

    def fresh(self, number: int) -> Tensor:
        """New labels, (number,)."""
        self.count += number
        return torch.arange(self.count - number, self.count)

    def tie(self, first: Tensor, second: Tensor, reason: str) -> None:
        """Labels that meet in the same place live or die together; one that meets an unlabelled place must stay."""
        if same(first, second):
            return
        a, b = compact(first).numpy(), compact(second).numpy()
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        differ = a != b
        a, b = a[differ], b[differ]
        both = (a >= 0) & (b >= 0)
        if self.atoms is not None:
            if both.any() or (np.maximum(a, b) < self.atoms).any():
                raise Disagreement(reason)
            return
        if both.all():
            self.pairs.append(np.stack([a, b]))
        else:
            self.pairs.append(np.stack([a[both], b[both]]))
            self._hold(np.concatenate([a[~both], b[~both]]), reason)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These labels must stay."""
        if self.atoms is None:
            self._hold(compact(labels).numpy().reshape(-1), reason)

    def refuse(self, labels: Tensor, reason: str) -> None:
        """As `freeze`; and if they are classes already, none of them may be a prunable one."""
        if self.offers(labels):
            raise Disagreement(reason)
        self.freeze(labels, reason)

    def offers(self, labels: Tensor) -> bool:
        """Whether, of labels that are classes already, some are prunable."""
        return self.atoms is not None and bool(((labels >= 0) & (labels < self.atoms)).any())

    def _hold(self, labels: np.ndarray, reason: str) -> None:
        if len(found := labels[labels >= 0]):
            self.reasons.append((found, reason))

    def collapse(self, labels: Tensor, dims: Sequence[int], reason: str) -> Tensor:
        """Labels made constant along `dims` (and reduced to size 1 there), because one operation reads all of those places.

        A label that is told apart by the other dimensions is tied to its fellows; one that is told apart only by what is
        read together cannot be removed without changing the result, and is frozen.
        """
        first = first_along(labels, dims)
        if not any(varies(labels, dim) for dim in dims):
            return first
        if varying_dims(first):
            self.tie(first, labels, reason)
        else:
            self.freeze(labels, reason)
        return first

    def classes(self) -> np.ndarray:
        """(count,): the class of every label, ties resolved."""
        if not self.pairs:
            return np.arange(self.count)
        return components(self.count, np.concatenate(self.pairs, axis=1))

    def first_reasons(self, classes: np.ndarray) -> np.ndarray:
        """Of each class, and of none (the last entry), the index of the first reason that it is frozen; -1 = it is not."""
        why = np.full(int(classes.max()) + 2, -1)
        for index, (labels, _) in reversed(list(enumerate(self.reasons))):  # so that the first one stands
            why[classes[labels]] = index
        return why


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` nodes, numbered in order of first appearance; pairs (2, P) -> (count,).

    Every node points to its root: roots that a pair joins are linked, the larger to the smaller, and paths are shortened,
    until no pair joins two roots (Shiloach and Vishkin 1982). So a root is the smallest of its component.

    >>> import numpy as np
    >>> components(5, np.array([[0, 4], [3, 3]])).tolist()
    [0, 1, 2, 0, 0]
    """
    parent = np.arange(count)
    while True:
        one, other = parent[pairs[0]], parent[pairs[1]]
        apart = one != other
        if not apart.any():
            return (np.cumsum(parent == np.arange(count)) - 1)[parent]
        one, other, pairs = one[apart], other[apart], pairs[:, apart]
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(shorter := parent[parent], parent):
            parent = shorter
