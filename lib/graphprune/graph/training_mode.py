"""What a network does in training mode alone: auxiliary classifiers, running averages."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from graphprune.graph.copies import Fresh
from graphprune.graph.parts import Parts, parts_of, unread
from graphprune.graph.recording import Recording, Stopped
from graphprune.graph.rules.operation import NumberKey
from graphprune.graph.rules.propagation import Record
from graphprune.graph.tracing import propagate, record_again


def training_forward(
    parts: Parts, first: Recording, record: Record, fresh: Fresh, fixed: Collection[str], held: Collection[NumberKey]
) -> Recording | None:
    """What only training mode does (auxiliary classifiers, running averages): recorded in that mode, and added to the record.

    Args:
        fixed, held: as of `Propagation`.

    Returns:
        The forward in training mode, or None if it reaches no other parameters and ties no other channels.

    Warns:
        UserWarning: it cannot be traced in that mode, so that what its own layers read is not known.
    """
    idle = unread(parts, first.graph)
    if not idle and not first.moded:
        return None
    before = outcome(record)
    try:
        with torch.random.fork_rng(devices=[]):
            training = record_again(fresh.cut({}, {}), fresh.inputs, fresh.weightless, fresh.over_kept, training=True)
        parts = parts_of(parts.root, training.graph)
        extra = propagate(parts, training, before=record.continued(), fixed=fixed, held=held).record
    except Exception as error:
        if not idle:
            return None
        found = ", ".join(sorted({name.rpartition(".")[0] for name in idle})[:3])
        why = error.__cause__ if isinstance(error, Stopped) else error
        message = f"layers that evaluation does not reach ({found}, ...) stay as they are; in training mode: {why}"
        warnings.warn(message, stacklevel=3)
        return None
    if idle <= unread(parts, training.graph) and outcome(record) == before:
        return None
    place = {layer.name: index for index, layer in enumerate(record.layers)}
    new = {layer.name for layer in extra.layers if f"{layer.name}.weight" in idle}
    for layer in extra.layers:
        if layer.name in new:
            place[layer.name] = len(record.layers)
            record.layers.append(layer)
    names = [(extra.layers[source].name, extra.layers[target].name) for source, target in extra.edges]
    record.edges += [(place[source], place[target]) for source, target in names if target in new and source in place]
    record.entering.update(extra.entering)
    return training


def outcome(record: Record) -> tuple[Any, ...]:
    """What decides which channels can go: what lies where, which classes, and which of them are frozen."""
    classes = record.ledger.classes()
    stuck = np.zeros(len(classes), bool)
    for labels, _ in record.ledger.reasons:
        stuck[classes[labels]] = True
    return {*record.sites}, {*record.elements}, {*record.opaque}, classes.tobytes(), stuck.tobytes()
