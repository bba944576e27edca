"""From a model to a traced, weightless network, and labels carried through it."""

from __future__ import annotations

import functools
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphprune.graph.channel_select import ChannelSelect
from graphprune.graph.parts import Parts, named_modules, named_tensors
from graphprune.graph.rules.data_movement import elementwise
from graphprune.graph.rules.propagation import Propagation, Record
from graphprune.graph.rules.table import formula_of, module_base, rule_of
from graphprune.graph.weightless import ATOMS, without_data

PATCHED = "__fx_already_patched"
"""The mark by which fx knows a function that it need not exchange."""


class _Read(fx.Proxy):
    """A parameter that a forward may read: a node as soon as it is used."""

    def __init__(self, tracer: fx.Tracer, path: str):
        self.tracer, self.path = tracer, path

    @functools.cached_property
    def node(self) -> fx.Node:  # type: ignore[override]
        return self.tracer.create_node("get_attr", self.path, (), {})


class _Tracer(fx.Tracer):
    """Stops at every module whose forward is torch's own, subclasses included.

    To hear of calls and of parameters read, fx exchanges methods of nn.Module itself: for every module of the process, and
    Python looks the methods of 1,400 subclasses up anew. Here the traced copy's own modules and parameters report.
    """

    def __init__(self, shell: nn.Module | None = None):  # none: as fx does when it opens a pickled GraphModule
        super().__init__()
        self.modules = named_modules(shell) if shell is not None else {}
        self.paths: dict[int, str] = {}  # fx would search the network for each
        for path, tensor in named_tensors(shell).items() if shell is not None else ():
            self.paths.setdefault(id(tensor), path)
        scopes = {module.forward.__module__ for module in self.modules.values() if module_base(module) is None}
        self._autowrap_search += [sys.modules[name] for name in scopes if name in sys.modules]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile the modules report their calls, and their parameters that they are read."""
        methods: list[Any] = [nn.Module.__call__, nn.Module.__getattr__]
        reads = {key: _Read(self, path) for key, path in self.paths.items()}
        for module in self.modules.values():
            read = {name: reads[id(tensor)] for name, tensor in module._parameters.items() if tensor is not None}
            vars(module).update(read, _compiled_call_impl=functools.partial(self.called, module))
        for method in methods:
            setattr(method, PATCHED, True)
        try:
            yield
        finally:
            for method in methods:
                delattr(method, PATCHED)
            for module in self.modules.values():
                for name in ("_compiled_call_impl", *module._parameters):
                    vars(module).pop(name, None)

    def called(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """A call becomes a node, or is followed."""
        path = self.path_of_module(module)
        if self.is_leaf_module(module, path):
            return self.create_proxy("call_module", path, args, kwargs)
        return module._call_impl(*args, **kwargs)

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, type_expr: Any | None = None
    ) -> fx.Node:
        """As fx's, without stack traces, notes on which module called which, and a search for symbolic numbers."""
        node = self.graph.create_node(kind, target, None, None, name, type_expr)
        node.args, node.kwargs = args, kwargs
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, ChannelSelect) or module_base(m) is not None:
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def create_arg(self, a: Any) -> Any:
        """A parameter or buffer handed to an operation becomes a node, each time. The common kinds go first."""
        kind = type(a)
        if kind is fx.Proxy:
            return a.node
        if kind in ATOMS:
            return a
        if kind is tuple or kind is list:
            return kind(map(self.create_arg, a))
        if isinstance(a, Tensor) and id(a) in self.paths:
            return self.create_node("get_attr", self.paths[id(a)], (), {})
        return super().create_arg(a)


def symbolic(shell: nn.Module, training: bool = False) -> fx.Graph:
    """Trace a weightless model by torch.fx, in evaluation or training mode; its modules end in evaluation mode.

    Raises:
        ValueError: it has control flow that depends on data; the message names the line.
    """
    tracer = _Tracer(shell)
    if any(module.training != training for module in tracer.modules.values()):
        shell.train(training)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with tracer.listening():
                graph = tracer.trace(shell)
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
        where = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"model cannot be traced: {type(error).__name__} at {where.filename}:{where.lineno} ({where.line}): {error}. "
            "Its forward decides by the values of tensors; move that out of the forward, or wrap it with torch.fx.wrap"
        ) from error
    finally:
        if training:
            shell.eval()
    for name in constants(shell):
        setattr(shell, name, without_data(getattr(shell, name)))
    for node in graph.nodes:
        if node.op.startswith("call"):
            op = tracer.modules[str(node.target)] if node.op == "call_module" else node.target
            rule = rule_of(op)
            formula, sources = formula_of(op, rule), node.all_input_nodes
            activation = rule is elementwise and formula is not None and len(sources) == 1  # a result of its operand's shape
            node.meta |= {"rule": rule, "formula": formula, "passes_on": sources[0] if activation else None}
    return graph


def constants(shell: nn.Module) -> list[str]:
    """The tensors that a forward makes itself; tracing stores them as attributes of the root."""
    return [name for name in vars(shell) if name.startswith("_tensor_constant")]


def as_inputs(example_input: Any) -> tuple[Tensor, ...]:
    """The example input as a tuple of meta tensors."""
    return tuple(without_data(tensor) for tensor in as_tuple(example_input))


def as_tuple(example_input: Any) -> tuple[Tensor, ...]:
    """The example input as a tuple of tensors, as they are.

    Raises:
        TypeError: it holds anything else.
    """
    given = example_input if isinstance(example_input, tuple | list) else (example_input,)
    if not given or not all(isinstance(tensor, Tensor) for tensor in given):
        kinds = ", ".join(type(tensor).__name__ for tensor in given)
        raise TypeError(f"example_input must be a tensor or a tuple of the forward's tensors, got ({kinds})")
    return tuple(given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Runs weightless networks: no gradients, no warnings."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reject_bad_input(skeleton: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    with naming_bad_input(inputs), shapes_only(), torch.device("meta"):
        skeleton(*inputs)


@contextmanager
def naming_bad_input(inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Whatever a forward raises meanwhile is laid to the example input."""
    try:
        yield
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ValueError(
            f"model rejects example_input of shape {shapes}: {error}; give a tensor (or a tuple of tensors) its forward accepts"
        ) from error


def propagate(parts: Parts, graph: fx.Graph, inputs: tuple[Tensor, ...], record: Record | None = None) -> Record:
    """Carry labels through a traced network.

    Raises:
        ValueError: the network rejects the input.
    """
    run = Propagation(parts, graph, record=record)
    try:
        with shapes_only():
            run.run(*inputs)
    except Exception:
        reject_bad_input(fx.GraphModule(parts.root, graph), inputs)
        raise
    return run.record
