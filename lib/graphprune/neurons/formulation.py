"""The rows of one layer: how a score, a ReLU, an affine map or a pooling is written into the program.

A value is either known, an array of numbers (B, n), or a block of columns (B, n). What is known stays known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from graphprune.neurons.chain import Affine, MaxPool
from graphprune.neurons.rows import Index, Rows, Term

Array = NDArray[np.float64]
TIGHT = 1e-12  # an interval as narrow as this is a point
LARGEST = 3 * 10**7  # entries of one layer's matrix, 240 MB


@dataclass(frozen=True, eq=False)
class Value:
    """Numbers (B, n), or columns (B, n) of the program: exactly one of the two."""

    known: Array | None = None
    columns: Index | None = None

    def at(self, chosen: NDArray[np.bool_]) -> Value:
        """The entries that a mask (B, n) chooses, as a flat value."""
        pick = {name: None if part is None else part[chosen] for name, part in vars(self).items()}
        return Value(**pick)

    def row(self, coefficient: Any) -> tuple[list[Term], Any]:
        """coefficient x value, as the terms of a row, and the number that stands beside them."""
        if self.known is not None:
            return [], coefficient * self.known
        assert self.columns is not None
        return [(self.columns, coefficient)], 0.0


@dataclass(frozen=True, eq=False)
class Gates:
    """Binary columns that say which side of a ReLU (or which input of a pooling) holds, and where they stand."""

    columns: Index
    places: tuple[NDArray[np.int64], ...]


def affine(rows: Rows, op: Affine, value: Value, shape: torch.Size) -> Value:
    """h = W x + b; numbers stay numbers.

    Raises:
        ValueError: the matrix of a layer is too large to be written out.
    """
    if value.known is not None:
        return Value(known=op(torch.from_numpy(value.known).reshape(len(value.known), *shape)).flatten(1).numpy())
    assert value.columns is not None
    count, outputs = shape.numel(), op.linear(torch.zeros(1, *shape, dtype=torch.float64)).numel()
    if count * max(count, outputs) > LARGEST:
        raise ValueError(
            f"model: layer {op.name!r} maps {count:,} numbers to {outputs:,}, too many for one program; use solver='gradient', "
            "or neurons.decoupled"
        )
    matrix = op.linear(torch.eye(count, dtype=torch.float64).reshape(count, *shape))
    bias = op.bias.expand(matrix.shape[1:]).flatten().numpy()
    out = rows.variables((len(value.columns), bias.size), -np.inf, np.inf)
    rows.affine(out, sparse.csr_array(matrix.flatten(1).T.numpy()), value.columns, bias)
    return Value(columns=out)


def shifted(rows: Rows, value: Value, s: Index, cap: Array) -> Value:
    """x = h - (1 - s) cap, where no ReLU follows."""
    x = rows.variables(cap.shape, -np.inf, np.inf)
    terms, beside = value.row(-1.0)
    rows.add([(x, 1.0), *terms, (s, -cap)], -beside - cap, -beside - cap)
    return Value(columns=x)


def published(rows: Rows, value: Value, s: Index, low: Array, high: Array) -> tuple[Value, Gates]:
    """A scored ReLU as the authors' code has it: x >= 0, x <= v u+, and with g = h - (1 - s) u+ also x >= g and
    x <= g - (1 - v) l. A gate that the rows decide is no column: v = 1 where l > 0; v = 0 where u <= 0, and then l <= h <= 0.
    """
    cap = np.maximum(high, 0)
    x = rows.variables(cap.shape, 0.0, cap)
    on, open_ = low > 0, (low <= 0) & (high > 0)
    _off(rows, value, low, high)
    _equal(rows, value, s, cap, x, on)
    v = rows.variables((int(open_.sum()),), 0.0, 1.0, whole=True)
    terms, beside = value.at(open_).row(-1.0)
    xo, so, c, lo = x[open_], s[open_], cap[open_], low[open_]
    rows.add([(xo, 1.0), (v, -c)], -np.inf, 0.0)
    rows.add([(xo, 1.0), *terms, (so, -c)], -beside - c, np.inf)
    rows.add([(xo, 1.0), *terms, (so, -c), (v, -lo)], -np.inf, -beside - c - lo)
    return Value(columns=x), Gates(v, open_.nonzero())


def exact(rows: Rows, value: Value, s: Index, low: Array, high: Array) -> tuple[Value, Gates]:
    """A scored ReLU with x = ReLU(h - (1 - s) u+) for every s in [0, 1]; x = s ReLU(h) where h is known.

    x >= 0; x <= v u+; x <= s u+; with g = h - (1 - s) u+ also x >= g, x <= g + (1 - v)(u+ - l) and
    x <= h - (1 - v) min(l, 0). Where u <= 0 the unit is off, whatever s is.
    """
    cap = np.maximum(high, 0)
    x = rows.variables(cap.shape, 0.0, cap)
    point = (high - low <= TIGHT) & (high > 0) & (value.known is not None)
    open_ = (high > 0) & ~point
    rows.add([(x[point], 1.0), (s[point], -cap[point])], 0.0, 0.0)
    v = rows.variables((int(open_.sum()),), 0.0, 1.0, whole=True)
    terms, beside = value.at(open_).row(-1.0)
    xo, so, c, lo = x[open_], s[open_], cap[open_], low[open_]
    below = np.minimum(lo, 0)
    rows.add([(xo, 1.0), (v, -c)], -np.inf, 0.0)
    rows.add([(xo, 1.0), (so, -c)], -np.inf, 0.0)
    rows.add([(xo, 1.0), *terms, (so, -c)], -beside - c, np.inf)
    rows.add([(xo, 1.0), *terms, (so, -c), (v, c - lo)], -np.inf, -beside - lo)
    rows.add([(xo, 1.0), *terms, (v, -below)], -np.inf, -beside - below)
    return Value(columns=x), Gates(v, open_.nonzero())


def relu(rows: Rows, value: Value, low: Array, high: Array) -> tuple[Value, Gates | None]:
    """x = max(h, 0), unscored: x >= h, x <= h - (1 - v) l, x <= v u+, with a column v only where l < 0 < u."""
    if value.known is not None:
        return Value(known=np.maximum(value.known, 0)), None
    assert value.columns is not None
    x = rows.variables(low.shape, 0.0, np.maximum(high, 0))
    on, open_ = (low >= 0) & (high > 0), (low < 0) & (high > 0)
    _off(rows, value, low, high)
    rows.add([(x[on], 1.0), (value.columns[on], -1.0)], 0.0, 0.0)
    v = rows.variables((int(open_.sum()),), 0.0, 1.0, whole=True)
    xo, ho = x[open_], value.columns[open_]
    rows.add([(xo, 1.0), (ho, -1.0)], 0.0, np.inf)
    rows.add([(xo, 1.0), (ho, -1.0), (v, -low[open_])], -np.inf, -low[open_])
    rows.add([(xo, 1.0), (v, -high[open_])], -np.inf, 0.0)
    return Value(columns=x), Gates(v, open_.nonzero())


def max_pool(
    rows: Rows, op: MaxPool, value: Value, low: Array, high: Array, shape: torch.Size, valid: bool
) -> tuple[Value, Gates | None]:
    """x >= x_i; x <= x_i + (1 - z_i)(u_max - l_i), with binaries z that add up to 1 in each window.

    Args:
        valid: whether the bounds hold for all scores; then an input whose upper bound lies below another's lower bound is
            never the largest, and has no z.
    """
    if value.known is not None:
        pooled = op(torch.from_numpy(value.known).reshape(len(value.known), *shape))
        return Value(known=pooled.flatten(1).numpy()), None
    assert value.columns is not None
    windows = op.windows(shape).numpy()
    there = np.broadcast_to(windows >= 0, (len(low), *windows.shape))
    lows, highs = (np.where(there, bound[:, windows.clip(0)], -np.inf) for bound in (low, high))
    inputs = value.columns[:, windows.clip(0)]
    x = rows.variables(there.shape[:2], lows.max(2), highs.max(2))
    wide = np.broadcast_to(x[:, :, None], there.shape)
    possible = there & (highs >= lows.max(2, keepdims=True)) if valid else there
    alone = possible & (possible.sum(2, keepdims=True) == 1)
    rows.add([(wide[alone], 1.0), (inputs[alone], -1.0)], 0.0, 0.0)
    open_ = possible & ~alone
    z = rows.variables((int(open_.sum()),), 0.0, 1.0, whole=True)
    rows.add([(wide[open_], 1.0), (inputs[open_], -1.0)], 0.0, np.inf)
    reach = np.broadcast_to(highs.max(2, keepdims=True), there.shape)[open_] - lows[open_]
    rows.add([(wide[open_], 1.0), (inputs[open_], -1.0), (z, reach)], -np.inf, reach)
    _one_each(rows, z, open_)
    return Value(columns=x), Gates(z, open_.nonzero())


def _one_each(rows: Rows, z: Index, open_: NDArray[np.bool_]) -> None:
    """The z of each window add up to 1: z (N,) are the entries that `open_` (B, outputs, places) chooses."""
    image, out, _ = open_.nonzero()
    window, place = np.unique(image * open_.shape[1] + out, return_inverse=True)
    if len(window):
        matrix = sparse.csr_array((np.ones(len(z)), (place, np.arange(len(z)))), shape=(len(window), len(z)))
        rows.sums(matrix, z, 1.0)


def _off(rows: Rows, value: Value, low: Array, high: Array) -> None:
    """l <= h <= 0 where the bounds say that a ReLU gives 0."""
    if value.columns is not None:
        off = high <= 0
        rows.add([(value.columns[off], 1.0)], low[off], 0.0)


def _equal(rows: Rows, value: Value, s: Index, cap: Array, x: Index, on: NDArray[np.bool_]) -> None:
    """x = h - (1 - s) u+ where the gate is known to be open."""
    terms, beside = value.at(on).row(-1.0)
    rows.add([(x[on], 1.0), *terms, (s[on], -cap[on])], -beside - cap[on], -beside - cap[on])
