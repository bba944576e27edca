"""What normalisations do to channel labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.graph.rules.labels import compact, first_along, varying_dims
from graphprune.graph.rules.layers import channelwise, lengthwise
from graphprune.graph.rules.operation import Call, Run, as_dims, hold_along, others, unknown


def _own(call: Call, *names: str) -> list[str | None]:
    """The module's parameters and buffers of these names that are there."""
    parameters, buffers = call.op._parameters, call.op._buffers
    there = [parameters.get(name) is not None or buffers.get(name) is not None for name in names]
    return [f"{call.node.target}.{name}" if found else None for name, found in zip(names, there, strict=True)]


def computed(run: Run, call: Call) -> bool:
    """Whether a function gets anything but parameters beside its main operand: the labels of those would be lost."""
    rest = [node for node in call.node.all_input_nodes if node is not call.raw(0, "input")]
    return any(node.op != "get_attr" and isinstance(run.labels[node], Tensor) for node in rest)


def statistics_norm(run: Run, call: Call, kind: str) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    if call.is_module:
        return channelwise(run, call, _own(call, "weight", "bias", "running_mean", "running_var"), kind)
    if computed(run, call):
        return unknown(run, call)
    return channelwise(run, call, [call.tensor_name(i + 1, name) for i, name in enumerate(names)], kind)


def batch_norm(run: Run, call: Call) -> Tensor:
    return statistics_norm(run, call, "bn")


def instance_norm(run: Run, call: Call) -> Tensor:
    return statistics_norm(run, call, "norm")


def group_norm(run: Run, call: Call) -> Tensor:
    """Its statistics run over a norm group, so a norm group's channels live or die together."""
    if computed(run, call):
        return unknown(run, call)
    if call.is_module:
        groups, names = call.op.num_groups, _own(call, "weight", "bias")
    else:
        groups, names = call.get(1, "num_groups"), [call.tensor_name(2, "weight"), call.tensor_name(3, "bias")]
    labels = channelwise(run, call, names, "norm")
    channels = first_along(labels, others(labels, 1)).view(groups, -1)
    if call.is_module:
        run.ledger.tie(channels[:, :1], channels, f"{call.what} normalises over it")
    else:
        run.ledger.freeze(channels, f"{call.what} has a literal number of groups")
    return labels


KEPT = 'normalises over it (norms="kept" prunes it)'
KEPT_FUNCTION = 'normalises over it (norms="kept" prunes it in a module that does nothing else)'
"""Why the channels of a layer norm stay, and what to do about it."""


def layer_norm(run: Run, call: Call) -> Tensor:
    """Its statistics run over the last dimensions: removing a channel there would change the others.

    Not those of an RMSNorm that has a weight: zeros add nothing to a sum of squares, and `prune` makes up for their number.
    """
    if computed(run, call):
        return unknown(run, call)
    shape = call.option(1, "normalized_shape")
    if len(shape) == 1 and isinstance(call.op, nn.RMSNorm) and call.op.weight is not None and free_along(run, call.x, -1):
        return normalised(run, call, -1, kept=False)
    dims = range(call.x.ndim - len(shape), call.x.ndim)
    remedy = KEPT if call.is_module else KEPT_FUNCTION
    run.ledger.collapse(call.x, dims, f"{call.what} {remedy if len(shape) == 1 else 'normalises over it'}")
    last = compact(call.x).movedim(-1, 0).reshape(compact(call.x).shape[-1], -1)[:, 0]
    run.layer(call.path, "norm", last.expand(call.x.shape[-1]))
    return call.x


def kept_norm(run: Run, call: Call, dim: int) -> Any:
    """Any module that normalises over one dimension, its statistics over the kept channels.

    Where labels differ along other dimensions too (a norm within heads), whole rows go instead.
    """
    if computed(run, call) or len(call.operands) != 1:
        return unknown(run, call)
    if not free_along(run, call.x, dim):
        labels = run.ledger.collapse(call.x, [dim % call.x.ndim], f"{call.what} normalises over it").expand(call.x.shape)
        run.norm(call.path, dim, torch.full((call.x.shape[dim],), -1), True)
        return labels
    return normalised(run, call, dim, kept=True)


def free_along(run: Run, labels: Tensor, dim: int) -> bool:
    """Whether labels differ along one dimension at most, this one, but for those that are tied already."""
    if set(varying_dims(labels)) <= {dim % labels.ndim}:
        return True
    small = compact(labels)
    classes = torch.from_numpy(np.append(run.ledger.classes(), -1))[small] if run.ledger.atoms is None else small
    return set(varying_dims(classes)) <= {dim % labels.ndim}


def normalised(run: Run, call: Call, dim: int, kept: bool) -> Tensor:
    """A normalisation whose channels can go: its parameters and the sizes that it keeps follow."""
    path, channels = call.path, lengthwise(run, call, dim, "normalises over it")
    for name in call.op._parameters:
        if getattr(call.op, name) is not None:
            run.site(f"{path}.{name}", 0, channels)
    for name, size in vars(call.op).items():
        for place, number in enumerate(size) if isinstance(size, tuple | list) else ((None, size),):
            if type(number) is int and number == len(channels) > 1:
                run.number((path, name, place), channels)
    run.norm(path, dim, channels, kept)
    run.layer(path, "norm", channels)
    return call.x


def local_response_norm(run: Run, call: Call) -> Tensor:
    hold_along(run, call, [1], "normalises across channels")
    return call.x


def softmax(run: Run, call: Call) -> Tensor:
    """Normalises along a dimension: what lies there goes as a whole, or not at all."""
    position, default = {"normalize": (2, 1), "gumbel_softmax": (4, -1)}.get(call.name, (1, None))
    dim = call.option(position, "dim", default)
    if not isinstance(dim, int | tuple):
        return unknown(run, call)
    return run.ledger.collapse(call.x, as_dims(dim, call.x.ndim), f"{call.what} normalises over it").expand(call.x.shape)
