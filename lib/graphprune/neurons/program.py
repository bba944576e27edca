"""The whole program: a chain on some images as variables and rows, and a point of it from a run of the network.

minimise  lam mean_b t_b + sum of the L - 1 largest of I_l,  I_l = mean_j(s_lj - 2),
where t_b is at least the cross-entropy of image b. Its exponentials are handled by tangents, see `cuts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.neurons import formulation, replay
from graphprune.neurons.bounds import Bounds
from graphprune.neurons.chain import Affine, Chain, Flatten, MaxPool, Relu, Score
from graphprune.neurons.formulation import Array, Gates, Value
from graphprune.neurons.rows import Index, Rows


@dataclass(frozen=True, eq=False)
class Program:
    """Rows, and where the network's numbers stand among the columns.

    Attributes:
        s: for each scored layer (C,). z: the logits (B, K). t: the loss of each image (B,). e: (B, K), at least
            exp(z_k - z_y - t).
        made: for each operation the columns of its outputs (B, n), or None where they are known numbers or unchanged.
        gates: for each operation its binary columns, or None.
        largest: the columns by which the sum of the largest I_l is written, (1 + L,), or None with one scored layer.
        offset: what is added to the columns' costs to give the objective.
    """

    rows: Rows
    s: tuple[Index, ...]
    z: Index
    t: Index
    e: Index
    made: tuple[Index | None, ...]
    gates: tuple[Gates | None, ...]
    largest: Index | None
    offset: float
    labels: Array

    @property
    def whole(self) -> Index:
        """The columns that must be whole numbers."""
        return self.rows.bounds()[3].nonzero()[0]

    @property
    def sizes(self) -> dict[str, int]:
        """How many variables, binaries, rows and nonzeros it has."""
        found = {"variables": self.rows.columns, "binaries": len(self.whole), "rows": self.rows.rows}
        return found | {"nonzeros": self.rows.matrix().nnz}


def build(chain: Chain, bounds: Bounds, images: Tensor, labels: Tensor, lam: float, program: str) -> Program:
    """The program of a chain.

    Args:
        bounds: of the same images, radius and `program`.
        images: (B, *input shape) float64. labels: (B,) int64.
    """
    rows = Rows()
    several = len(chain.scored) > 1
    s = tuple(rows.variables((p.channels,), 0.0, 1.0, 0.0 if several else 1 / p.channels) for p in chain.scored)
    value, shape, left = Value(known=images.flatten(1).numpy()), images.shape[1:], iter(s)
    made: list[Index | None] = []
    gates: list[Gates | None] = []
    for place, op in enumerate(chain.operations):
        low, high = (bound.flatten(1).numpy() for bound in bounds.inputs[place])
        before, gate = value, None
        if isinstance(op, Affine):
            value = formulation.affine(rows, op, value, shape)
        elif isinstance(op, Score):
            spread = torch.arange(op.channels).reshape(-1, *[1] * (len(shape) - 1)).expand(shape).flatten().numpy()
            of_units = np.broadcast_to(next(left)[spread], low.shape)
            if not op.gated:
                value = formulation.shifted(rows, value, of_units, bounds.caps[place].flatten(1).numpy())
            else:
                scored = formulation.exact if program == "exact" else formulation.published
                value, gate = scored(rows, value, of_units, low, high)
        elif isinstance(op, Relu):
            value, gate = formulation.relu(rows, value, low, high)
        elif isinstance(op, MaxPool):
            value, gate = formulation.max_pool(rows, op, value, low, high, shape, program == "exact")
        made.append(None if isinstance(op, Flatten) or value is before else value.columns)
        gates.append(gate)
        after = bounds.inputs[place + 1] if place + 1 < len(chain.operations) else bounds.outputs
        shape = after[0].shape[1:]
    assert value.columns is not None  # a scored layer lies before the logits
    t, e = _loss(rows, value.columns, labels.numpy(), lam)
    largest = _largest(rows, s) if several else None
    offset = 0.0 if several else -2.0
    return Program(rows, s, value.columns, t, e, tuple(made), tuple(gates), largest, offset, labels.numpy())


def _loss(rows: Rows, z: Index, labels: Array, lam: float) -> tuple[Index, Index]:
    """t_b >= z_k - z_y, and columns e_k whose sum is at most 1: with e_k >= exp(z_k - z_y - t), t >= log sum exp - z_y."""
    images, classes = z.shape
    t = rows.variables((images,), 0.0, np.inf, lam / images)
    e = rows.variables((images, classes), 0.0, 1.0)
    right = z[np.arange(images), labels]
    for k in range(classes):
        other = labels != k
        rows.add([(t[other], 1.0), (z[other, k], -1.0), (right[other], 1.0)], 0.0, np.inf)
    rows.add([(e[:, k], 1.0) for k in range(classes)], -np.inf, np.ones(images))
    return t, e


def _largest(rows: Rows, s: Sequence[Index]) -> Index:
    """The sum of the L - 1 largest I_l is the least (L - 1) tau + sum_l r_l with r_l >= I_l - tau, r_l >= 0."""
    layers = len(s)
    tau = rows.variables((1,), -np.inf, np.inf, float(layers - 1))
    over = rows.variables((layers,), 0.0, np.inf, 1.0)
    for r, part in zip(over, s, strict=True):
        rows.add([(r, 1.0), (tau[0], 1.0), *((column, -1 / len(part)) for column in part)], [-2.0], np.inf)
    return np.concatenate([tau, over])


def point(program: Program, chain: Chain, bounds: Bounds, images: Tensor, s: Sequence[Tensor]) -> Array:
    """A value for every column, from a run of the network with the scores `s`: what a warm start is given."""
    found = np.zeros(program.rows.columns)
    for units, part in zip(program.s, s, strict=True):
        found[units] = part.numpy()
    made, x = replay.values(chain, bounds, images, s), images
    for place, op in enumerate(chain.operations):
        columns, gate = program.made[place], program.gates[place]
        if columns is not None:
            found[columns] = made[place].flatten(1).numpy()
        if gate is not None and isinstance(op, MaxPool):
            found[gate.columns] = _first_largest(op.windows(x.shape[1:]).numpy(), x.flatten(1).numpy(), gate)
        elif gate is not None:
            found[gate.columns] = (made[place].flatten(1).numpy() > 0)[gate.places]
        x = made[place]
    loss = F.cross_entropy(x, torch.from_numpy(program.labels), reduction="none").numpy()
    found[program.t] = loss
    right = x.numpy()[np.arange(len(loss)), program.labels]
    found[program.e] = np.exp(x.numpy() - right[:, None] - loss[:, None])
    if program.largest is not None:
        means = np.array([float(part.mean()) - 2 for part in s])
        tau = np.sort(means)[1]
        found[program.largest] = [tau, *np.maximum(means - tau, 0)]
    return found


def _first_largest(windows: Array, x: Array, gate: Gates) -> Array:
    """1 for the first input that is the largest of its window among those that have a z, else 0."""
    there = np.full((len(x), *windows.shape), -np.inf)
    there[gate.places] = x[:, windows.clip(0)][gate.places]
    return (there.argmax(2)[:, :, None] == np.arange(windows.shape[1]))[gate.places].astype(float)
