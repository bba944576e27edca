"""The k best of many scored rows, none twice: what every search over configurations remembers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from graphprune.runs.checks import at_least


class Best:
    """The k best different rows seen so far, highest score first. Rows come in blocks, so that there may be millions.

    Args:
        k: how many are remembered, at least 1.
        key: (n, groups) rows -> (n, columns); rows that it maps to the same are one, of which the best stays. Without it
            only equal rows are one.
        sorted_ties: of equal scores the lexicographically lower row goes first, and of equal rows the first seen stays,
            whatever its score. Otherwise ties go to the row seen first. Not to be combined with `key`.

    Attributes:
        rows: (n, groups), n <= k.
        scores: (n,), descending.

    >>> best = Best(2)
    >>> best.add(torch.tensor([[5, 0], [7, 0], [5, 0], [6, 0]]), torch.tensor([1.0, 3.0, 1.0, 2.0]))
    >>> best.rows.tolist(), best.scores.tolist()
    ([[7, 0], [6, 0]], [3.0, 2.0])
    """

    def __init__(self, k: int, *, key: Callable[[Tensor], Tensor] | None = None, sorted_ties: bool = False) -> None:
        at_least(1, k=k)
        if key is not None and sorted_ties:
            raise ValueError("key, sorted_ties: give one of them")
        self.k, self.key, self.sorted_ties = k, key, sorted_ties
        self.rows, self.scores = torch.empty(0, 0, dtype=torch.long), torch.empty(0)

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, rows: Tensor, scores: Tensor) -> None:
        """Take in scored rows, (B, groups) and (B,)."""
        if len(self) == self.k:  # ties go to what was seen before
            better = scores > self.scores[-1]
            rows, scores = rows[better], scores[better]
        if not len(rows):
            return
        if len(self):
            rows, scores = torch.cat([self.rows.to(rows), rows]), torch.cat([self.scores.to(scores), scores])
        places = self._lowest_first(rows, scores) if self.sorted_ties else self._first_seen(rows, scores)
        self.rows, self.scores = rows[places], scores[places]

    def _first_seen(self, rows: Tensor, scores: Tensor) -> Tensor:
        """The places of the k best, of equal keys the first."""
        found: dict[tuple[int, ...], int] = {}
        for part in scores.argsort(descending=True, stable=True).split(4 * self.k):
            keys = rows[part] if self.key is None else self.key(rows[part])
            for place, key in zip(part.tolist(), keys.tolist(), strict=True):
                found.setdefault(tuple(key), place)
            if len(found) >= self.k:
                break
        return torch.tensor(list(found.values())[: self.k], dtype=torch.long)

    def _lowest_first(self, rows: Tensor, scores: Tensor) -> Tensor:
        """The places of the k best, of equal scores in the order of the rows."""
        _, first = np.unique(rows.numpy(), axis=0, return_index=True)
        places = torch.from_numpy(first)
        return places[scores[places].argsort(descending=True, stable=True)[: self.k]]
