"""Variables and rows of a mixed integer program, gathered with NumPy and handed to HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highspy
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Index = NDArray[np.int64]
Term = tuple[ArrayLike, ArrayLike]  # columns, and their coefficients


class Rows:
    """A program under construction: columns with bounds and costs, and rows lower <= A x <= upper."""

    def __init__(self) -> None:
        self.columns = 0
        self.rows = 0
        self._bounds: list[tuple[NDArray[np.float64], ...]] = []  # lower, upper, cost, whether whole
        self._entries: list[tuple[NDArray[Any], ...]] = []  # row, column, coefficient
        self._sides: list[NDArray[np.float64]] = []

    def variables(
        self, shape: tuple[int, ...], lower: ArrayLike, upper: ArrayLike, cost: ArrayLike = 0.0, whole: bool = False
    ) -> Index:
        """New columns; what is returned holds their numbers, in the given shape."""
        count = int(np.prod(shape))
        parts = (np.broadcast_to(np.asarray(value, float), shape).ravel() for value in (lower, upper, cost, float(whole)))
        self._bounds.append(tuple(parts))
        self.columns += count
        return np.arange(self.columns - count, self.columns).reshape(shape)

    def add(self, terms: Sequence[Term], lower: ArrayLike, upper: ArrayLike) -> None:
        """One row for each entry: sum of coefficient x column over the terms, which broadcast against each other."""
        flat = np.broadcast_arrays(lower, upper, *(part for term in terms for part in term))
        count = flat[0].size
        number = np.arange(self.rows, self.rows + count, dtype=float)
        for columns, coefficients in zip(flat[2::2], flat[3::2], strict=True):
            self._entries.append((number, columns.ravel().astype(float), coefficients.ravel().astype(float)))
        self._sides.append(np.stack([flat[0].ravel(), flat[1].ravel()]).astype(float))
        self.rows += count

    def affine(self, outputs: Index, matrix: sparse.csr_array, inputs: Index, bias: ArrayLike) -> None:
        """outputs = matrix @ inputs + bias, for each image: outputs (B, m), matrix (m, n), inputs (B, n)."""
        entries = matrix.tocoo()
        for out, given in zip(outputs, inputs, strict=True):
            start, count = float(self.rows), len(out)
            self._entries.append((start + np.arange(count), out.astype(float), np.ones(count)))
            self._entries.append((start + entries.row, given[entries.col].astype(float), -entries.data))
            self._sides.append(np.tile(np.broadcast_to(np.asarray(bias, float), (count,)), (2, 1)))
            self.rows += count

    def sums(self, matrix: sparse.csr_array, columns: Index, total: float) -> None:
        """matrix @ columns = total, one row for each of the matrix (m, n); columns (n,)."""
        entries = matrix.tocoo()
        self._entries.append((self.rows + entries.row.astype(float), columns[entries.col].astype(float), entries.data))
        self._sides.append(np.full((2, matrix.shape[0]), total))
        self.rows += matrix.shape[0]

    def matrix(self) -> sparse.csr_array:
        row, column, data = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        found = sparse.csr_array((data, (row.astype(np.int64), column.astype(np.int64))), shape=(self.rows, self.columns))
        found.sum_duplicates()
        found.eliminate_zeros()
        return found

    def bounds(self) -> tuple[NDArray[np.float64], ...]:
        """Of the columns: lower, upper, cost, and 1 for each that must be whole."""
        return tuple(np.concatenate(part) for part in zip(*self._bounds, strict=True))

    def sides(self) -> NDArray[np.float64]:
        """(2, rows): lower and upper."""
        return np.concatenate(self._sides, axis=1)

    def program(self) -> highspy.HighsLp:
        """The program as HiGHS takes it, all columns continuous: the solver says which are whole, and when."""
        matrix, (lower, upper, cost, _), sides = self.matrix(), self.bounds(), self.sides()
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.columns, self.rows
        lp.col_lower_, lp.col_upper_, lp.col_cost_ = lower, upper, cost
        lp.row_lower_, lp.row_upper_ = sides
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        return lp
