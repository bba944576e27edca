"""One executed operation of a traced network, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.modules.conv import _ConvTransposeNd

from graphprune.graph.parts import named_tensors
from graphprune.graph.rules.labels import Ledger, unlabelled, varies
from graphprune.graph.sizes import attribute

NUMPY_NAMES = {"dim": "axis", "keepdim": "keepdims", "input": "x"}
"""torch's name of a keyword -> NumPy's, which many of its functions take too."""


@dataclass(slots=True)
class Call:
    """One executed node, with label tensors in place of its tensor arguments.

    Attributes:
        node: the traced node.
        op: the function, the method's name, or the module.
        args, kwargs: the arguments, label tensors in place of tensors.
        out: the result, as soon as it is known.
    """

    node: fx.Node
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any = None

    @property
    def is_module(self) -> bool:
        return isinstance(self.op, nn.Module)

    @property
    def name(self) -> str:
        """The function's or method's name; "" for a module."""
        return "" if self.is_module else str(getattr(self.op, "__name__", self.op))

    @property
    def what(self) -> str:
        """The operation as a reader of the model would name it."""
        if self.is_module:
            return f"{type(self.op).__name__} '{self.node.target}'"
        return f"{getattr(self.op, '__name__', self.op)}() at '{self.node.name}'"

    @property
    def path(self) -> str:
        """Where it stands: the module's path, or the traced name of a function's call."""
        return str(self.node.target) if self.is_module else self.node.name

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution, whose weight lies (in, out / groups, ...)."""
        return isinstance(self.op, _ConvTransposeNd) or "conv_transpose" in self.name

    @property
    def x(self) -> Tensor:
        """The labels of the main operand."""
        return self.args[0] if self.args else self.get(0, "input")

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword, torch's or NumPy's."""
        return given(self.args, self.kwargs, position, name, default)

    @property
    def operands(self) -> list[Tensor]:
        """The labels of all tensors that enter."""
        return [*tensors(self.args), *tensors(self.kwargs)] if self.kwargs else tensors(self.args)

    def option(self, position: int, name: str, default: Any = None) -> Any:
        """A layer's option: the module's attribute, or the function's argument."""
        return getattr(self.op, name, default) if self.is_module else self.get(position, name, default)

    def raw(self, position: int, name: str, default: Any = None) -> Any:
        """An argument as written in the traced code: an `fx.Node` where it was computed, a literal where it was not."""
        return given(self.node.args, self.node.kwargs, position, name, default)

    def sizes(self) -> list[Any]:
        """The sizes that a view or an expansion is given, as written: `raw` for each."""
        sizes = self.node.args[1:] or [self.raw(1, "size", self.raw(1, "shape", ()))]
        return list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else list(sizes)

    def tensor_name(self, position: int, name: str) -> str | None:
        """The path of the parameter or buffer passed as an argument, if it is passed as it is."""
        raw = self.raw(position, name)
        return str(raw.target) if isinstance(raw, fx.Node) and raw.op == "get_attr" else None


NumberKey = tuple[str, str, int | None]
"""A number that a module keeps: the module's path, the attribute's name, and in a list of numbers the place."""


class Run(Protocol):
    """What a rule may ask of the run: the ledger of ties and freezes, and where labels lie in the network's tensors.

    Attributes:
        ledger: `tie`, `freeze`, `collapse`.
        tensors: path -> parameter or buffer, for its shape.
        canonical: path -> the first path of the same tensor.
        labels: of each node so far.
        seeds: in the proof, the kept classes by (tensor, dim); else None.
        held: numbers that modules keep and that stay as they are.
    """

    ledger: Ledger
    tensors: Mapping[str, Tensor]
    canonical: Mapping[str, str]
    labels: dict[fx.Node, Any]
    seeds: Mapping[tuple[str, int], Tensor] | None
    held: Collection[NumberKey]

    def site(self, tensor: str, dim: int, labels: Tensor) -> None:
        """These labels, (size,), lie along this dimension of this parameter or buffer."""

    def produce(self, tensor: str, dim: int, channels: int) -> Tensor:
        """The labels, (channels,), of the outputs that lie along this dimension of a weight."""

    def number(self, key: NumberKey, labels: Tensor) -> None:
        """A number that a module keeps counts the places of these labels."""

    def counted(self, key: NumberKey) -> Tensor | None:
        """The labels that a module's number was found to count."""

    def layer(self, name: str, kind: str, labels: Tensor) -> None:
        """The current node is a layer of the graph, with these output channels."""

    def norm(self, path: str, dim: int, labels: Tensor, kept: bool) -> None:
        """The statistics of this module run over these labels, (channels,): see `graphprune.graph.channel_graph.Norm`."""

    def applied(self, weight: str, positions: float) -> None:
        """A weight is multiplied in at so many places."""

    def multiplied(self, labels: Tensor, macs: float) -> None:
        """Each of the places of these labels, (n,), takes part in so many multiply-adds of two computed tensors."""

    def keep_whole(self, tensor: str, why: str) -> None:
        """Nothing of this parameter or buffer may go."""


Rule = Callable[[Run, Call], Any]


def given(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str, default: Any) -> Any:
    """An argument by position, torch's keyword or NumPy's."""
    if len(args) > position:
        return args[position]
    return kwargs[name] if name in kwargs else kwargs.get(NUMPY_NAMES.get(name, name), default)


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested arguments, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, slice):
        tree = (tree.start, tree.stop, tree.step)
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else ()
    found: list[Tensor] = []
    for part in parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, tuple | list | dict | slice):
            found += tensors(part)
    return found


def number_key(raw: Any) -> NumberKey | None:
    """Which number of a module an argument is, as written; None if it is no such number, or computed of one."""
    key: Any = raw.args if isinstance(raw, fx.Node) and raw.target is attribute else None
    return key


def of_attributes(raw: Any) -> bool:
    """Whether an argument, as written, is a number that a module keeps, or computed of such numbers alone."""
    if not isinstance(raw, fx.Node) or raw.op == "call_method":
        return False
    return raw.target is attribute or (raw.meta.get("rule", 0) is None and all(map(of_attributes, raw.all_input_nodes)))


def size_of(raw: Any, tensor: Any) -> bool:
    """Whether an argument, as written, is a size of this tensor, or computed of one."""
    if not isinstance(raw, fx.Node) or raw.meta.get("rule", 0) is not None:
        return False
    if raw.target == "size":
        return raw.args[0] is tensor
    return any(size_of(source, tensor) for source in raw.all_input_nodes)


def others(labels: Tensor, *dims: int) -> list[int]:
    """All dimensions but these."""
    kept = {dim % labels.ndim for dim in dims}
    return [dim for dim in range(labels.ndim) if dim not in kept]


def as_dims(dims: Any, ndim: int) -> list[int]:
    """`dim` as torch takes it (None, a number or several) as a list of non-negative dimensions."""
    if dims is None or dims == ():
        return list(range(ndim))
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)]


def unknown(run: Run, call: Call, why: str = "is not a known operation") -> Any:
    """Freeze everything that enters: the unknown is safe."""
    if call.is_module:
        for name in named_tensors(call.op):
            run.keep_whole(f"{call.node.target}.{name}", f"{call.what} {why}")
    for source in call.node.all_input_nodes:
        if source.op == "get_attr":
            run.keep_whole(str(source.target), f"{call.what} {why}")
    for labels in call.operands:
        run.ledger.refuse(labels, f"{call.what} {why}")
    return unlabelled_like(call.out)


def unlabelled_like(tree: Any) -> Any:
    """The same structure with unlabelled tensors."""
    return map_aggregate(tree, lambda leaf: unlabelled(leaf.shape) if isinstance(leaf, Tensor) else leaf)


def refuses(rule: Rule | None) -> bool:
    """Whether a rule is `unknown`, alone or with a reason of its own."""
    return getattr(rule, "func", rule) is unknown


def hold_along(run: Run, call: Call, dims: Any, why: str) -> None:
    """Places along these dimensions must stay: what other dimensions tell apart goes as whole rows, or not at all."""
    for dim in dims:
        if varies(call.x, dim):
            run.ledger.collapse(call.x, [dim], f"{call.what} {why}")
