"""What operations that treat each element alone do to channel labels: what is aligned is tied."""

from __future__ import annotations

import torch
from torch import Tensor

from graphprune.graph.rules.labels import compact, same, varying_dims
from graphprune.graph.rules.operation import Call, Run
from graphprune.graph.rules.output_shapes import broadcast


def combine(run: Run, a: Tensor, b: Tensor, what: str) -> Tensor:
    """Labels of an elementwise operation on two operands: what is aligned is tied.

    A dimension along which one operand's labels vary and the other one has a size but no varying labels is a constant of
    that size (a literal mask, padding): it cannot follow, so that size stays.
    """
    if same(a, b):
        return a if a.shape == b.shape else a.expand(broadcast(a.shape, b.shape))
    ndim = max(a.ndim, b.ndim)
    a, b = (t.reshape((1,) * (ndim - t.ndim) + tuple(t.shape)) if t.ndim < ndim else t for t in (a, b))
    reason = f"{what} combines it with a tensor of fixed size"
    vary_a, vary_b = set(varying_dims(a)), set(varying_dims(b))
    if vary_a and vary_b and not vary_a & vary_b:  # an outer product: one place would go with either of two channels
        run.ledger.refuse(b, f"{what} combines it with channels that lie along another dimension")
    for dim in vary_a - vary_b:
        a = hold_size(run, a, b, dim, reason)
    for dim in vary_b - vary_a:
        b = hold_size(run, b, a, dim, reason)
    full_a, full_b = torch.broadcast_tensors(a, b)
    if vary_a & vary_b:
        run.ledger.tie(full_a, full_b, reason)
    last = run.ledger.offers(a) and not run.ledger.offers(b)  # a's one place that is left, among b's frozen ones
    lead, rest = (full_a, full_b) if vary_a or not vary_b or last else (full_b, full_a)
    small_lead, small_rest = torch.broadcast_tensors(compact(lead), compact(rest))
    return torch.where(small_lead >= 0, small_lead, small_rest).expand(full_a.shape)


def hold_size(run: Run, labels: Tensor, other: Tensor, dim: int, reason: str) -> Tensor:
    """Labels that meet a tensor which has a size along `dim`, but no labels that vary."""
    if other.shape[dim] == 1:
        return labels
    first = run.ledger.collapse(labels, [dim], reason)
    return first.expand(labels.shape) if varying_dims(first) else labels


def elementwise(run: Run, call: Call) -> Tensor:
    """Any operation that treats each element alone: one operand passes, several are combined."""
    labels, *rest = call.operands
    for other in rest:
        labels = combine(run, labels, other, call.what)
    return labels
