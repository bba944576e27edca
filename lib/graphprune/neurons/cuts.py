"""Tangents that stand for the exponentials of the cross-entropy: e_k >= exp(z_k - z_y - t)."""

from __future__ import annotations

import highspy
import numpy as np

from graphprune.neurons.formulation import Array
from graphprune.neurons.program import Program

SMALL = 1e-7  # an exponential below this needs no tangent


def losses(z: Array, labels: Array) -> Array:
    """Cross-entropy of each row of logits, (B, K) -> (B,)."""
    top = z.max(1, keepdims=True)
    return (top[:, 0] + np.log(np.exp(z - top).sum(1))) - z[np.arange(len(z)), labels]


def add(solver: highspy.Highs, program: Program, z: Array, t: Array | None, tolerance: float) -> tuple[int, float]:
    """Tangents at the logits z, (B, K), for each image whose t is more than `tolerance` below its loss.

    Each is taken at the loss itself and, where `t` is given, at t too.

    Args:
        t: (B,), or None: for every image.
    Returns:
        how many were added, and by how much the worst t is too low.
    """
    loss = losses(z, program.labels)
    short = np.full(len(loss), np.inf) if t is None else loss - t
    images = np.arange(len(loss))
    w = z - z[images, program.labels][:, None]
    added = 0
    for at in (loss,) if t is None else (loss, t):
        a = np.exp(np.clip(w - at[:, None], -30, 3))
        b, k = ((short > tolerance)[:, None] & (a > SMALL)).nonzero()
        added += _tangents(solver, program, b, k, a[b, k])
    return added, float(short.max())


def _tangents(solver: highspy.Highs, program: Program, b: Array, k: Array, a: Array) -> int:
    """e_k >= a (1 + z_k - z_y - t - log a), one row for each of the images b and classes k."""
    right = program.z[b, program.labels[b]]
    same = k == program.labels[b]
    columns = np.stack([program.e[b, k], program.t[b], program.z[b, k], right], 1)
    entries = np.stack([np.ones_like(a), a, np.where(same, 0.0, -a), np.where(same, 0.0, a)], 1)
    used = entries != 0
    starts = np.concatenate([[0], used.sum(1).cumsum()[:-1]]) if len(a) else np.zeros(0)
    solver.addRows(
        len(a),
        a - a * np.log(a),
        np.full(len(a), highspy.kHighsInf),
        int(used.sum()),
        starts.astype(np.int32),
        columns[used].astype(np.int32),
        entries[used],
    )
    return len(a)
