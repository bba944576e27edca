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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


class Disagreement(ValueError):
    """Two labels that should be one are not: what a wrongly pruned network shows."""


def compact(labels: Tensor) -> Tensor:
    """The same labels with size 1 along every dimension that is only an expansion."""
    for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def varies(labels: Tensor, dim: int) -> bool:
    """Whether the labels differ along a dimension."""
    small = compact(labels)
    return small.shape[dim] > 1 and not torch.equal(small, small.narrow(dim, 0, 1).expand_as(small))


def varying(labels: Tensor) -> list[int]:
    """The dimensions along which the labels differ."""
    return [dim for dim in range(labels.ndim) if varies(labels, dim)]


def tidy(labels: Tensor) -> Tensor:
    """The same labels as an expanded view, stride 0 along the dimensions on which they do not vary."""
    small = compact(labels)
    for dim in range(small.ndim):
        if small.shape[dim] > 1 and not varies(small, dim):
            small = small.narrow(dim, 0, 1)
    return small.expand(labels.shape)


def unlabelled(shape: Iterable[int]) -> Tensor:
    """Labels of something with nothing to prune."""
    return torch.full((1,) * len(tuple(shape)), -1).expand(tuple(shape))


def along(labels: Tensor, dim: int, shape: Iterable[int]) -> Tensor:
    """(C,) labels as a tensor of the given shape that varies along `dim` only."""
    shape = tuple(shape)
    view = [1] * len(shape)
    view[dim] = -1
    return labels.view(view).expand(shape)


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
        a, b = torch.broadcast_tensors(compact(first), compact(second))
        differ = a != b
        if not bool(differ.any()):
            return
        pairs = torch.stack([a[differ], b[differ]])
        both = (pairs >= 0).all(0)
        if self.atoms is not None:
            if bool(both.any()) or bool((pairs.amax(0) < self.atoms).any()):
                raise Disagreement(reason)
            return
        self.freeze(pairs[:, ~both], reason)
        if bool(both.any()):
            low, high = pairs[:, both].sort(0).values.numpy()
            links = np.unique(low * self.count + high)
            self.pairs.append(np.stack(np.divmod(links, self.count)))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These labels must stay."""
        found = torch.unique(compact(labels)).numpy()
        if len(found := found[found >= 0]):
            self.reasons.append((found, reason))

    def collapse(self, labels: Tensor, dims: Sequence[int], reason: str) -> Tensor:
        """Labels made constant along `dims` (and reduced to size 1 there), because one operation reads all of those places.

        A label that is told apart by the other dimensions is tied to its fellows; one that is told apart only by what is
        read together cannot be removed without changing the result, and is frozen.
        """
        first = labels
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        uneven = any(varies(labels, dim) for dim in dims)
        if uneven and varying(first):
            self.tie(first, labels, reason)
        elif uneven:
            self.freeze(labels, reason)
        return first

    def classes(self) -> np.ndarray:
        """(count,): the class of every label, ties resolved."""
        if not self.pairs:
            return np.arange(self.count)
        rows, cols = np.concatenate(self.pairs, axis=1)
        links = coo_array((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(self.count, self.count))
        return connected_components(links, directed=False)[1]
