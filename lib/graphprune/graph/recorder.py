"""The writer of a recording: it hears of every operation of a forward, and makes a node of an fx graph of each.

Sizes that the forward reads carry their origin (`graphprune.graph.sizes`). Where a formula gives a result's shape, nothing
runs.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from graphprune.graph.inputs import leaves, on_leaves
from graphprune.graph.parts import named_modules, named_tensors
from graphprune.graph.rules.data_movement import created
from graphprune.graph.rules.elementwise import elementwise
from graphprune.graph.rules.operation import Call, Rule, tensors
from graphprune.graph.rules.output_shapes import Formula
from graphprune.graph.rules.table import formula_of, rule_of
from graphprune.graph.sizes import Ratio, Size, bare, with_origin
from graphprune.graph.weightless import without_data

QUIET = {
    *("dim", "ndimension", "is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_pinned", "is_inference"),
    *("is_same_size", "is_neg", "is_conj", "is_tensor", "is_storage", "get_device", "has_names", "requires_grad_"),
    *("retain_grad", "register_hook", "register_post_accumulate_grad_hook", "untyped_storage", "data_ptr", "can_cast"),
    *("result_type", "__hash__", "__repr__", "__format__", "__str__"),
}
"""Functions whose result tells nothing of a tensor's values."""

SHAPE_READS = {"stride", "storage_offset", "__len__", "element_size", "nbytes"}
"""Functions whose result depends on a tensor's shape alone."""

MAY_RETURN_OPERANDS = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    *("stochastic_depth", "drop_path", "detach", "requires_grad"),
}
"""Elementwise functions that may give back what they get, or a view of it."""


class ValuesDecide(ValueError):
    """A forward branches on the values of tensors that its parameters determine."""


def peek(x: Tensor, *rest: Any) -> Tensor:
    """Stands in a trace where something reads a tensor's values, or writes into its memory, in a way that is not known."""
    return torch.empty_like(x)


def appear(x: Tensor, *rest: Any) -> Tensor:
    """Stands in a trace for a tensor made by what torch does not report: a C++ extension, a scripted module."""
    return torch.empty_like(x)


@dataclass(frozen=True)
class Operation:
    """How a function is written down.

    Attributes:
        kind, target: of the fx node.
        rule, formula: what it does to labels, and to shapes.
        swapped: whether the two operands change places (`__rsub__`).
        pure: whether it writes into no operand, by its name.
    """

    kind: str
    target: Any
    rule: Rule
    formula: Formula | None
    swapped: bool
    pure: bool

    @property
    def may_return_its_operand(self) -> bool:
        return str(getattr(self.target, "__name__", self.target)) in MAY_RETURN_OPERANDS


def operation_of(func: Callable[..., Any]) -> Operation:
    """How a function of torch is written down: as Python's operator, as a method, or as itself."""
    name = getattr(func, "__name__", "")
    kind, swapped = "call_function", False
    target: Any = func
    if name.startswith("__") and name.endswith("__"):
        base = name.strip("_")
        plain = getattr(operator, name, None)
        if plain is not None:
            target = getattr(operator, base, plain)
            target = target if target.__name__ == plain.__name__ else plain
        elif base[0] == "r" and hasattr(operator, base[1:].replace("div", "truediv")):
            target, swapped = getattr(operator, base[1:].replace("div", "truediv")), True
    elif getattr(torch.Tensor, name, None) is func:
        kind, target = "call_method", name
    rule = rule_of(target)
    writes = name == "__setitem__" or (name.startswith("__i") and name != "__invert__")
    pure = not (writes or (name.endswith("_") and not name.endswith("__")))
    return Operation(kind, target, rule, formula_of(target, rule), swapped, pure)


def were_written(given: Sequence[Tensor], before: Sequence[int]) -> bool:
    """Whether some of these tensors were written into since they had these versions."""
    return any(tensor._version != version for tensor, version in zip(given, before, strict=True))


class Recorder(TorchFunctionMode):
    """Writes an fx graph of what happens while it is active.

    Args:
        root: the network that runs, a throwaway copy.
        weightless: whether it runs on the meta device.
    """

    def __init__(self, root: nn.Module, weightless: bool):
        super().__init__()
        self.root = root
        self.graph, self.weightless = fx.Graph(), weightless
        self.deaf = 0  # above 0, what happens is part of an operation that is written down
        self.sized = False  # whether the forward read a size, or computed with a number that a module keeps
        self.nodes: dict[int, fx.Node] = {}  # id of a tensor -> its node
        self.alive: list[Any] = []  # so that an id stands for one thing
        self.operations: dict[Any, Operation] = {}
        self.numbers: dict[int, fx.Node] = {}
        self.memory: dict[int, dict[int, Tensor]] = {}  # storage -> the tensors that lie in it
        self.stale: dict[int, fx.Node] = {}  # tensors whose memory was written through another one, and that node
        self.paths: dict[int, str] = {}
        for path, tensor in named_tensors(root).items():
            self.paths.setdefault(id(tensor), path)

    @functools.cached_property
    def constants(self) -> set[int]:
        """The ids of all tensors that modules hold in their attributes."""
        held = (leaf for module in named_modules(self.root).values() for leaf in leaves(list(vars(module).values())))
        return {id(leaf) for leaf in held if isinstance(leaf, Tensor)}

    # arguments -----------------------------------------------------------------------------------------------------

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node that made a tensor."""
        key = id(tensor)
        if key in self.stale and key in self.nodes:
            self._write("call_function", peek, (self.nodes[key], self.stale.pop(key)), {}, tensor)
        if key in self.nodes:
            return self.nodes[key]
        if key in self.paths:  # one for each reader
            made = self.graph.create_node("get_attr", self.paths[key])
            made.meta["value"] = without_data(tensor)
            return made
        self.alive.append(tensor)
        if key in self.constants or tensor.is_meta != self.weightless:
            self.paths[key] = f"_constant{len(self.paths)}"
            return self.node_of(tensor)
        before = tuple({node: None for node in self.nodes.values()})
        return self._write("call_function", appear, before, {}, tensor)

    def argument(self, value: Any) -> Any:
        """An argument as fx has it."""
        if isinstance(value, Tensor):
            return self.node_of(value)
        return self.number(value) if isinstance(value, Size | Ratio) else value

    def number(self, value: Any) -> fx.Node:
        """The node of a number that has an origin."""
        self.sized = True
        key = id(value)
        if key not in self.numbers:
            op, *operands = value.origin
            fixed = tuple(self.number(item) if isinstance(item, Size | Ratio) else item for item in operands)
            kind = "call_method" if isinstance(op, str) else "call_function"
            made = self.graph.create_node(kind, op, fixed)
            made.meta |= {"value": bare(value), "rule": None, "formula": None, "passes_on": None}
            self.numbers[key] = made
            self.alive.append(value)
        return self.numbers[key]

    # results -------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, target: Any, args: Any, kwargs: Any, out: Any, op: Operation | None = None) -> fx.Node:
        """A node of a call, its arguments as fx has them, and of what it gives."""
        made = self.graph.create_node(kind, target, None, None)
        made.args, made.kwargs = args, kwargs  # create_node would search them for symbolic numbers
        rule, formula = (op.rule, op.formula) if op else (rule_of(target), None)
        sources = made.all_input_nodes
        only = rule is elementwise and formula is not None and len(sources) == 1
        made.meta |= {"rule": rule, "formula": formula, "passes_on": sources[0] if only else None}
        self._take(made, out)
        return made

    def _take(self, node: fx.Node, out: Any) -> None:
        if isinstance(out, Tensor):
            node.meta["value"] = out if out.is_meta else without_data(out)
            self.nodes[id(out)] = node
            self.alive.append(out)
            return
        node.meta["value"] = on_leaves(lambda leaf: without_data(leaf) if isinstance(leaf, Tensor) else bare(leaf), out)
        parts: Any = enumerate(out) if isinstance(out, tuple | list) else out.items() if isinstance(out, dict) else ()
        for key, item in parts:
            if isinstance(item, tuple | list | dict) or (isinstance(item, Tensor) and id(item) not in self.paths):
                self._write("call_function", operator.getitem, (node, key), {}, item)

    def _written(self, given: Sequence[Tensor], before: Sequence[int], made: fx.Node | None) -> None:
        """Operands that an operation wrote into: they are its results now, and other views of their memory are stale."""
        for tensor, version in zip(given, before, strict=True):
            if tensor._version == version:
                continue
            if made is None or (self.nodes.get(id(tensor)) is not made):
                made = self._write("call_function", peek, (self.node_of(tensor), *([made] if made else [])), {}, tensor)
            if made.meta["rule"] is elementwise and len(made.all_input_nodes) == 1:
                continue  # each element for itself: no label moves
            self._outdate(tensor, made)

    def _remember(self, found: Sequence[Tensor]) -> None:
        """Which tensors may share memory: those that an operation ran on, and its results."""
        for tensor in found:
            if tensor.layout is not torch.strided:
                continue  # a sparse one has no memory of its own that a view could share
            self.memory.setdefault(tensor.untyped_storage()._cdata, {})[id(tensor)] = tensor

    def _outdate(self, tensor: Tensor, made: fx.Node) -> None:
        if tensor.layout is not torch.strided:
            return
        for key in self.memory.get(tensor.untyped_storage()._cdata, {}):
            if key != id(tensor):
                self.stale[key] = made

    def place(self, number: int, tensor: Tensor) -> None:
        """An input of the forward."""
        self._take(self.graph.create_node("placeholder", f"x{number}", name=f"x{number}"), tensor)

    # operations ----------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.deaf:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._property(func, args)
        if name == "size" and isinstance(args[0], Tensor):
            sizes, wanted = self._sizes(args[0]), args[1] if len(args) > 1 else kwargs.get("dim")
            return sizes if wanted is None else sizes[wanted]
        if name in ("numel", "nelement"):
            return functools.reduce(operator.mul, self._sizes(args[0]), 1)
        given = tensors(args) + tensors(kwargs) if kwargs else tensors(args)
        if name in QUIET or name in SHAPE_READS:
            self.sized |= name in SHAPE_READS
            return func(*on_leaves(bare, args), **on_leaves(bare, kwargs))
        if name == "__iter__":
            return iter(self.__torch_function__(Tensor.unbind, types, (args[0], 0)))
        if name == "__bool__":
            self._decided(args[0])
        if func not in self.operations:
            self.operations[func] = operation_of(func)
        op, before = self.operations[func], [tensor._version for tensor in given]
        out = self._by_formula(op, func, args, kwargs, given)
        if out is None:
            out = func(*on_leaves(bare, args), **on_leaves(bare, kwargs))
            if not tensors(out):
                return self._without_result(op, given, before, args, kwargs, out)
            if isinstance(out, Tensor) and id(out) in self.paths and not were_written(given, before):
                return out  # `to` and the like had nothing to do
            made_of = [*given, *tensors(out)]
            if any(map(torch._C._functorch.is_functorch_wrapped_tensor, made_of)):
                self._inside_transform(given)
                return out
            self._remember(made_of)
        made = self._note(op, args[::-1] if op.swapped else args, kwargs, out)
        self._written(given, before, made)
        return out

    def _note(self, op: Operation, args: Any, kwargs: Any, out: Any) -> fx.Node:
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
            return self._write(op.kind, op.target, (self.node_of(args[0]),), {}, out, op)
        fixed = on_leaves(self.argument, args), on_leaves(self.argument, kwargs) if kwargs else {}
        return self._write(op.kind, op.target, *fixed, out, op)

    def _by_formula(self, op: Operation, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Tensor | None:
        """An empty result of the shape that a formula gives; None where the operation must run."""
        if op.formula is None or not self.weightless or not op.pure or not given or "out" in kwargs:
            return None
        if op.may_return_its_operand or kwargs.get("inplace") or any(item is True for item in args[1:]):
            return None
        with torch._C.DisableTorchFunction():
            return self._empty(op.formula, func, on_leaves(bare, args), on_leaves(bare, kwargs) if kwargs else {}, given)

    def _empty(self, formula: Formula, op: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Tensor | None:
        dtype = given[0].dtype
        if not dtype.is_floating_point or any(tensor.dtype is not dtype or not tensor.is_meta for tensor in given):
            return None
        self.deaf += 1
        try:
            shape = formula(Call(None, op, args, kwargs))  # type: ignore[arg-type]
            return None if shape is None else torch.empty(shape, dtype=dtype, device="meta")
        except Exception:  # it does not fit: torch says so in its own words
            return None
        finally:
            self.deaf -= 1

    def _without_result(self, op: Operation, given: Any, before: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """A function that gives no tensor: it wrote into one, or told something of its values."""
        if were_written(given, before):
            self._written(given, before, self._note(op, args, kwargs, None))
        else:
            for tensor in given:
                self._write("call_function", peek, (self.node_of(tensor),), {}, None)
        return out

    def _inside_transform(self, given: Sequence[Tensor]) -> None:
        """Within vmap and its like, tensors are wrapped: what enters is fixed."""
        for tensor in given:
            while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                tensor = torch._C._functorch.get_unwrapped(tensor)
            if id(tensor) in self.nodes or id(tensor) in self.paths:
                self._write("call_function", peek, (self.node_of(tensor),), {}, None)

    def _property(self, func: Any, args: Any) -> Any:
        """`x.shape`, `x.T`, `x.dtype`."""
        name = func.__self__.__name__
        if name == "shape":
            return self._sizes(args[0])
        out = func(*args)
        if isinstance(out, Tensor) and name != "grad" and out is not args[0]:
            self._write("call_function", getattr, (self.node_of(args[0]), name), {}, out)
        return out

    def _sizes(self, tensor: Tensor) -> torch.Size:
        """A tensor's shape, each size with its origin."""
        self.sized = True
        with torch._C.DisableTorchFunction():
            shape = tuple(tensor.shape)
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return torch.Size(shape)
        node = self.node_of(tensor)
        return torch.Size([with_origin(size, self.use, "size", node, dim) for dim, size in enumerate(shape)])

    def use(self) -> None:
        """A number with an origin was computed or compared with."""
        self.sized |= not self.deaf

    def _decided(self, tensor: Tensor) -> None:
        """A branch on values: those that only inputs and sizes determine. A network that reads sizes is recorded again."""
        pending, seen = [self.node_of(tensor)], set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if node.op == "call_module" or (node.op == "get_attr" and not str(node.target).startswith("_constant")):
                raise ValuesDecide("a forward that decides by the values of tensors cannot be traced")
            if node.target != "size" and node.meta.get("rule") is not created:
                pending += node.all_input_nodes

    # modules -------------------------------------------------------------------------------------------------------

    def called(self, path: str, module: nn.Module, op: Operation, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """A module's forward as one node. Its hooks run outside of it, and are written down as operations."""
        if self.deaf:
            return forward(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            given = tensors(args) + tensors(kwargs) if kwargs else tensors(args)
            before = [tensor._version for tensor in given]
            out = self._leaf_by_formula(module, op, args, kwargs, given)
        if out is None:
            self.deaf += 1
            try:
                plain = (arg if isinstance(arg, PackedSequence) else on_leaves(bare, arg) for arg in args)
                out = forward(*plain, **on_leaves(bare, kwargs))
            finally:
                self.deaf -= 1
            with torch._C.DisableTorchFunction():
                self._remember([*given, *tensors(out)])
        with torch._C.DisableTorchFunction():
            made = self._note(op, args, kwargs, out)
            self._written(given, before, made)
        return out

    def _leaf_by_formula(self, module: nn.Module, op: Operation, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """As `_by_formula`, of a module; one that passes its operand on gives just that."""
        if not self.weightless or op.formula is None or not given:
            return None
        in_place = getattr(module, "inplace", False)
        idle = isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd) and not vars(module)["training"]
        if op.rule is elementwise and (idle or in_place) and len(given) == 1 == len(args):
            return given[0]
        return None if in_place else self._empty(op.formula, module, args, kwargs, given)
