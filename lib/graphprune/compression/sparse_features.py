"""Node features that are mostly zero, as a matrix in compressed sparse row (CSR) form, times the weights of a layer.

Of Cora's 2,708 x 1,433 features 1.3 % are not zero. A dense product spends nearly all its time on zeros.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.runs.checks import share

with warnings.catch_warnings():  # torch says once a process that CSR is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False)


class Pattern(NamedTuple):
    """Where a CSR matrix (N, F) is not zero, and where its transpose is.

    Attributes:
        crow, col: of the matrix. row: the row of each value.
        order: which value of the matrix each value of the transpose is.
        transposed_crow, transposed_col: of the transpose.
    """

    crow: Tensor
    col: Tensor
    row: Tensor
    order: Tensor
    transposed_crow: Tensor
    transposed_col: Tensor
    shape: tuple[int, int]


_KNOWN: list[Pattern] = []  # of the matrices used last; a pattern holds its tensors, so an address stands for one matrix
_KEPT = 4


def pattern_of(x: Tensor) -> Pattern:
    """The pattern of a CSR matrix. It is worked out once for matrices that share their index tensors."""
    crow, col, shape = x.crow_indices(), x.col_indices(), (x.shape[0], x.shape[1])
    for known in _KNOWN:
        if known.shape == shape and known.crow.data_ptr() == crow.data_ptr() and known.col.data_ptr() == col.data_ptr():
            return known
    row = torch.repeat_interleave(torch.arange(shape[0]), crow.diff())
    order = col.argsort(stable=True)
    counts = torch.bincount(col, minlength=shape[1])
    found = Pattern(crow, col, row, order, F.pad(counts.cumsum(0), (1, 0)), row[order], shape)
    _KNOWN.insert(0, found)
    del _KNOWN[_KEPT:]
    return found


class _Product(torch.autograd.Function):
    """X W^T for a CSR matrix X of given values (E,) and a weight W (out, F); both get gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.pattern = pattern
        x = torch.sparse_csr_tensor(pattern.crow, pattern.col, values, pattern.shape, check_invariants=False)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (values, weight), pattern, (gradient,) = ctx.saved_tensors, ctx.pattern, gradients
        to_values = to_weight = None
        if ctx.needs_input_grad[0]:
            to_values = (gradient[pattern.row] * weight.t()[pattern.col]).sum(1)
        if ctx.needs_input_grad[1]:
            index, shape = (pattern.transposed_crow, pattern.transposed_col), pattern.shape[::-1]
            transpose = torch.sparse_csr_tensor(*index, values[pattern.order], shape, check_invariants=False)
            to_weight = (transpose @ gradient.contiguous()).t()
        return to_values, to_weight, None


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for dense or CSR features; the values of CSR features get a gradient as well.

    Args:
        x: (N, F), dense or CSR.
        weight: (out, F). bias: (out,).

    >>> x = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    >>> multiply(to_csr(x), torch.tensor([[1.0, 3.0]])).tolist()
    [[6.0], [0.0]]
    """
    if x.layout != torch.sparse_csr:
        return F.linear(x, weight, bias)
    product = _Product.apply(x.values(), weight, pattern_of(x))
    return product if bias is None else product + bias


def with_values(x: Tensor, values: Tensor) -> Tensor:
    """The CSR matrix with other values (E,) in the same places."""
    shape = (x.shape[0], x.shape[1])
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, shape, check_invariants=False)


def to_csr(x: Tensor) -> Tensor:
    """A dense matrix as a CSR matrix."""
    row, col = x.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=x.shape[0])
    shape = (x.shape[0], x.shape[1])
    return torch.sparse_csr_tensor(F.pad(counts.cumsum(0), (1, 0)), col, x[row, col], shape, check_invariants=False)


def drop(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of dense or CSR features. A zero stays zero, so only the values are drawn for.

    Raises:
        ValueError: `p` is no number from 0 to 1.
    """
    share(p=p)
    if x.layout != torch.sparse_csr:
        return F.dropout(x, p, training)
    return with_values(x, F.dropout(x.values(), p, training)) if training and p else x


class Linear(nn.Linear):
    """A linear layer that takes dense or CSR features."""

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.bias)
