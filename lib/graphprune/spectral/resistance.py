"""Effective resistance between the two sides of a layer seen as a weighted bipartite graph.

A layer of weights W (out, in) is a graph with out + in nodes and an edge of conductance |W_ij| between output i and input
j. Which solver? The Laplacian of a bipartite graph has diagonal blocks D_o and D_i, so the larger side is eliminated by
hand:

    S = D_o - A D_i^-1 A^T,    R_ij = 1 / d_j + S+_ii - 2 (S+ P)_ij + (P^T S+ P)_jj,    P = A D_i^-1,    A = |W|.

What is left is one dense Cholesky factor of the smaller side. A layer is dense, so a sparse solver gains nothing, and a
pseudo-inverse of all out + in nodes costs many times as much. 4096 x 4096 takes 15 seconds of one core and 1.2 GB beyond
the weights, 512 x 4608 less than one second (benchmarks/resistance.py).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

TOLERANCE = 1e-5  # of the sum of all leverages, which is known exactly


def conductances(weight: Tensor) -> Tensor:
    """|weight| as float64 on the CPU: the sign of a weight does not count.

    Raises:
        ValueError: it is no (out, in) matrix, is empty, or has an entry that is not finite.
    """
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)}: must be (out, in), neither of them 0; "
            "a convolution is seen as a matrix by spectral.layer_edges"
        )
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight: it has entries that are not finite numbers; train with a lower learning rate")
    return weight.detach().cpu().double().abs()


def components(weight: Tensor) -> Tensor:
    """The connected component of every node of a layer's graph, (out + in,) int64: outputs first, then inputs.

    An edge is an entry that is not zero; a node without an edge is a component of its own.

    >>> components(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [0, 1, 0, 1]
    """
    rows, columns = weight.detach().cpu().numpy().nonzero()
    n_out, n_in = weight.shape
    graph = coo_array((np.ones(len(rows)), (rows, columns + n_out)), shape=(n_out + n_in,) * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def effective_resistance(weight: Tensor) -> Tensor:
    """The effective resistance between each output and each input of a layer: R_ij = (e_i - e_j)^T L+ (e_i - e_j).

    L = D - A is the Laplacian of the layer's graph. |W_ij| R_ij is the share of random spanning trees that hold the edge
    (i, j), and adds up to nodes - components over all edges.

    Args:
        weight: (out, in), any sign; an edge's conductance is its absolute value.
    Shapes:
        (out, in) -> (out, in) float64, in 1 / (unit of weight); infinity between two components.
    Raises:
        ValueError: as `conductances`, or the weights of a component span more orders of magnitude than a float64 holds.

    >>> effective_resistance(torch.tensor([[1.0, -2.0]])).tolist()  # two edges in a star: 1/1 and 1/2
    [[1.0, 0.5]]
    """
    a = conductances(weight)
    label, n_out = components(a), len(a)
    found = torch.full_like(a, torch.inf)
    for part in label.unique().tolist():
        rows, columns = (label[:n_out] == part).nonzero()[:, 0], (label[n_out:] == part).nonzero()[:, 0]
        if len(rows) and len(columns):
            whole = len(rows) == n_out and len(columns) == a.shape[1]
            block = a if whole else a[rows[:, None], columns]
            wide = len(rows) <= len(columns)
            resistance = _connected(block) if wide else _connected(block.T).T
            found[rows[:, None], columns] = resistance
    return found


def _connected(a: Tensor) -> Tensor:
    """Resistances (out, in) of a connected graph with out <= in."""
    mean = a.mean()
    a = a / mean
    d = a.sum(0)
    p = a / d  # columns add up to 1: where current that enters an input leaves to
    inverse = _grounded_inverse(p @ a.T)
    through = inverse @ p
    own = (p * through).sum(0)
    resistance = (1 / d + inverse.diagonal()[:, None] - 2 * through + own).clamp(min=0)
    edges = sum(a.shape) - 1  # of every spanning tree, and so the sum of all leverages
    if not abs(float((a * resistance).sum()) - edges) <= TOLERANCE * edges:
        raise _too_far_apart()
    return resistance / mean


def _grounded_inverse(coupling: Tensor) -> Tensor:
    """The inverse of the Laplacian with these off-diagonal conductances, one node held at 0.

    Its row and column are zero there. Differences of potentials do not depend on the node chosen.
    """
    n = len(coupling)
    coupling = coupling.clone().fill_diagonal_(0)
    degree = coupling.sum(1)  # of positive terms: a difference of sums would lose small conductances
    ground = int(degree.argmax())
    rest = torch.arange(n) != ground
    inverse = torch.zeros_like(coupling)
    if n == 1:
        return inverse
    root = degree[rest].sqrt()
    matrix = torch.diag(degree[rest]) - coupling[rest][:, rest]
    factor, failed = torch.linalg.cholesky_ex(matrix / root / root[:, None])
    if failed:
        raise _too_far_apart()
    inverse[rest.nonzero(), rest.nonzero()[:, 0]] = torch.cholesky_inverse(factor) / root / root[:, None]
    return inverse


def _too_far_apart() -> ValueError:
    return ValueError(
        "weight: its entries span more orders of magnitude than a float64 can tell apart, so that a part of the layer is "
        "all but cut off; set the smallest entries to zero"
    )


def degree_resistance(weight: Tensor) -> Tensor:
    """The approximation R_ij ~ 1 / d_i + 1 / d_j, with d the sum of a node's conductances: no solve.

    Exact for an edge whose other paths are without resistance; in a dense layer close (Luxburg et al. 2014, "Hitting and
    commute times in large random neighborhood graphs"). Args, Shapes, Raises: as `effective_resistance`; infinity where a
    node has no edge.

    >>> degree_resistance(torch.ones(2, 4)).unique().tolist()
    [0.75]
    """
    a = conductances(weight)
    return 1 / a.sum(1)[:, None] + 1 / a.sum(0)
