"""From a model and its inputs to a recorded forward, and labels carried along it."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from graphprune.graph.inputs import Inputs, rejection, weightless_inputs
from graphprune.graph.parts import Parts, named_modules
from graphprune.graph.recorder import ValuesDecide
from graphprune.graph.recording import NONE, Recording, Stopped, is_machinery, record, shapes_only
from graphprune.graph.rules.operation import NumberKey, refuses
from graphprune.graph.rules.propagation import Propagation, Record
from graphprune.graph.weightless import copy_for_run, copy_network
from graphprune.runs.checks import demand_network


def demand_python(model: Any) -> None:
    """Raise TypeError unless it is a network with a Python forward to follow.

    >>> demand_python(torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2)))
    Traceback (most recent call last):
    TypeError: model: a scripted or traced module has no Python forward to follow; give the module it was made from
    """
    demand_network(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: a scripted or traced module has no Python forward to follow; give the module it was made from")
    for path, module in named_modules(model).items():
        if type(module).__name__ == "OptimizedModule":
            name = f"model.{path}" if path else "model"
            remedy = f"put {name}._orig_mod in its place" if path else "give model._orig_mod"
            raise TypeError(f"{name} is compiled by torch.compile and cannot be followed: {remedy}, and compile what is pruned")


class InputRejected(ValueError):
    """The network does not take the example input."""


def first_recording(
    model: nn.Module, shell: nn.Module, inputs: Inputs, norms: Mapping[str, int] = NONE
) -> tuple[Recording, Inputs, bool]:
    """Record a network's forward: of its weightless copy, or where that fails of a copy of the network itself.

    Args:
        model: the network.
        shell: its weightless copy.
        inputs: as the caller gave them.
        norms: as of `record`.

    Returns:
        The recording; the inputs it was made with, of which integers keep their values; whether it is weightless.

    Raises:
        InputRejected: the network rejects the inputs.
        ValueError: it decides by the values of tensors; the message names the line.
    """
    first: BaseException | None = None
    if all(tensor.layout is torch.strided for tensor in inputs.tensors):  # a sparse matrix is its values
        try:
            recording = record(copy_for_run(shell), weightless_inputs(inputs), norms=norms)
            light = inputs.mapped(lambda given: given.to("meta") if given.is_floating_point() else given.detach())
            return recording, light, True
        except Stopped as stopped:
            if isinstance(stopped.__cause__, ValuesDecide):
                cannot_be_traced(stopped.__cause__)
            first = stopped.__cause__
    real = fitted(inputs, model)
    if not any(tensor.is_meta for tensor in (*real.tensors, *model.parameters())):
        try:
            return record(copy_network(model, {}), real, norms=norms), real, False
        except Stopped as stopped:
            if isinstance(stopped.__cause__, ValuesDecide):
                cannot_be_traced(stopped.__cause__)
            first = stopped.__cause__
    raise InputRejected(rejection(inputs, first)) from first


def record_again(
    network: nn.Module, inputs: Inputs, weightless: bool, norms: Mapping[str, int] = NONE, training: bool = False
) -> Recording:
    """Record a throwaway copy of a network as `first_recording` did."""
    return record(network, weightless_inputs(inputs) if weightless else inputs, training, norms)


def keep_aside(first: fx.Graph, again: fx.Graph) -> None:
    """The rules that failed in a network's first recording stay aside in another one of it."""
    failed = {(node.name, node.target): node.meta["rule"] for node in first.nodes if refuses(node.meta.get("rule"))}
    for node in again.nodes:
        if (node.name, node.target) in failed:
            node.meta["rule"] = failed[node.name, node.target]


def fitted(inputs: Inputs, model: nn.Module) -> Inputs:
    """The inputs on the model's device and in its precision."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return inputs.mapped(lambda given: given.detach().to(like.device, like.dtype if given.is_floating_point() else given.dtype))


def cannot_be_traced(error: BaseException) -> NoReturn:
    """Raise what a user is told of a forward that decides by values."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_machinery(frame.filename)]
    where = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    raise ValueError(
        f"model cannot be traced: {where.filename}:{where.lineno} ({where.line}): {error}; "
        "move what depends on the values of tensors out of the forward"
    ) from error


def propagate(
    parts: Parts,
    recording: Recording,
    seeds: Mapping[tuple[str, int], Tensor] | None = None,
    atoms: int | None = None,
    before: Record | None = None,
    fixed: Collection[str] = (),
    held: Collection[NumberKey] = (),
) -> Propagation:
    """Carry labels along a recorded forward: see `Propagation`. before: a record to go on with."""
    run = Propagation(parts, recording.graph, seeds, atoms, before, fixed, held)
    with shapes_only():
        run.run()
    return run
