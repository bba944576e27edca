"""One real forward of a network, written down operation by operation.

The forward runs on a weightless copy, with real Python: hooks, dataclasses, branches on sizes and `isinstance` do what they
do in use. The recorder hears of every operation, and the modules whose forward is torch's own report their calls.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx, nn

from graphprune.graph import recorder
from graphprune.graph.inputs import Inputs
from graphprune.graph.parts import named_modules
from graphprune.graph.recorder import Operation, Recorder
from graphprune.graph.rules.normalisation import kept_norm
from graphprune.graph.rules.table import formula_of, module_base, rule_of
from graphprune.graph.sizes import attribute, with_origin

MENDED = (
    *("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_groups", "num_channels"),
    *("num_parameters", "embedding_dim", "input_size", "normalized_shape"),
)
"""Sizes that torch's layers keep and that pruning changes (`cutting.mend`)."""


def is_leaf(module: nn.Module) -> bool:
    """Whether a module's call is one operation: torch's own forward, or a class of torch.nn with weights and no rule."""
    if "forward" in vars(module):
        return False
    if module_base(module) is not None:
        return True
    return type(module).__module__.startswith("torch.nn.modules") and bool(module._parameters)


@contextmanager
def reporting(writer: Recorder, root: nn.Module, norms: Mapping[str, int]) -> Iterator[None]:
    """Meanwhile leaf modules report their calls, and numbers that modules keep carry their origin. norms: as of `record`."""
    modules: dict[int, tuple[str, nn.Module]] = {}
    for path, module in named_modules(root).items():
        modules.setdefault(id(module), (path, module))
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    patched: list[dict[str, Any]] = []
    for path, module in modules.values():
        state, leaf = vars(module), path in norms or is_leaf(module)
        names = [name for name in MENDED if name in state] if leaf else state
        numbers = {name: state[name] for name in names if _counts(state[name])}
        before.append((state, numbers))
        for name, value in numbers.items():
            if isinstance(value, int):
                state[name] = with_origin(value, writer.use, attribute, path, name, None)
            else:
                items = (with_origin(item, writer.use, attribute, path, name, place) for place, item in enumerate(value))
                state[name] = type(value)(items)
        if leaf:
            rule = functools.partial(kept_norm, dim=norms[path]) if path in norms else rule_of(module)
            op = Operation("call_module", path, rule, formula_of(module, rule), False, True)
            state["forward"] = functools.partial(writer.called, path, module, op, module.forward)
            patched.append(state)
    try:
        yield
    finally:
        for state, numbers in before:
            state.update(numbers)
        for state in patched:
            del state["forward"]


def _counts(value: Any) -> bool:
    """Whether it may be a size: a number above 0, or several numbers."""
    if type(value) in (tuple, list):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int and value > 0


class Mode:
    """Stands for the attribute `training` of all modules while a forward is recorded, and notes whether it is read."""

    def __init__(self, writer: Recorder, root: nn.Module):
        self.writer, self.watched, self.read = writer, set(map(id, named_modules(root).values())), False

    def __get__(self, module: nn.Module, _kind: type) -> bool:
        self.read |= not self.writer.deaf and id(module) in self.watched
        try:
            mode: bool = vars(module)["training"]
        except (KeyError, TypeError):  # a scripted module keeps it elsewhere, a class has none
            raise AttributeError("training") from None
        return mode

    def __set__(self, module: nn.Module, value: bool) -> None:
        vars(module)["training"] = value


WATCHING = threading.RLock()


@contextmanager
def watching_mode(writer: Recorder, root: nn.Module) -> Iterator[Mode]:
    """Meanwhile it is noted whether the forward reads a module's mode."""
    mode = Mode(writer, root)
    with WATCHING:
        outer = vars(nn.Module).get("training")  # of a recording within a recording
        nn.Module.training = mode  # type: ignore[assignment]
        try:
            yield mode
        finally:
            if outer is None:
                del nn.Module.training
            else:
                nn.Module.training = outer


@contextmanager
def shapes_only() -> Iterator[None]:
    """Runs networks for their shapes: no gradients, no warnings."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


NONE: Mapping[str, int] = MappingProxyType({})
"""No normalisation over kept channels."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One forward, written down.

    Attributes:
        graph: the operations; of each node, `meta` holds the value (weightless), the rule and the shape's formula.
        sized: whether the forward read a size, so that it may do something else in a smaller network.
        moded: whether it read a module's `training`, so that it may do something else in the other mode.
    """

    graph: fx.Graph
    sized: bool
    moded: bool


class Stopped(Exception):
    """A forward that raised while it was written down; `at` is the number of operations until then."""

    def __init__(self, at: int):
        super().__init__(at)
        self.at = at


def record(root: nn.Module, inputs: Inputs, training: bool = False, norms: Mapping[str, int] = NONE) -> Recording:
    """Run a network's forward once and write it down.

    Args:
        root: a throwaway copy, weightless or not; its modules end in evaluation mode.
        inputs: on the network's device.
        training: whether in training mode.
        norms: modules that are normalisations over kept channels, path -> the dimension; each is one operation.

    Raises:
        Stopped: the forward raises; from its error.
    """
    weightless = all(tensor.is_meta for tensor in inputs.tensors)
    if any(module.training != training for module in named_modules(root).values()):
        root.train(training)
    writer = Recorder(root, weightless)
    for number, tensor in enumerate(inputs.tensors):
        writer.place(number, tensor)
    try:
        device = torch.device(inputs.tensors[0].device)
        with shapes_only(), reporting(writer, root, norms), device, watching_mode(writer, root) as mode, writer:
            found = inputs.call(root)
    except Exception as error:
        raise Stopped(len(writer.graph.nodes)) from error
    finally:
        if training:
            root.eval()
    writer.graph.create_node("output", "output", (tuple(map(writer.node_of, found)),))
    return Recording(writer.graph, writer.sized, mode.read)


def is_machinery(filename: str) -> bool:
    """Whether a line of code is torch's or the recorder's, not the model's."""
    return "/torch/" in filename or filename in (__file__, recorder.__file__) or filename.endswith("/inputs.py")
