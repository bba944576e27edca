"""Channel labels carried through a traced network, one operation at a time.

Beside every tensor of a recorded forward runs its label tensor. Producers (convolution, linear, their functional forms) start
fresh labels; operations that only move data are executed on the labels themselves and need no rule; elementwise operations tie
the labels they align; reductions make labels constant over what they reduce; whatever is not known freezes what it touches. On
the way the layers and the data flow between them are written down.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from graphprune.graph.parts import Parts
from graphprune.graph.rules.elementwise import elementwise
from graphprune.graph.rules.labels import Disagreement, Ledger, along, tidy, unlabelled
from graphprune.graph.rules.normalisation import kept_norm
from graphprune.graph.rules.operation import Call, NumberKey, refuses, tensors, unknown, unlabelled_like
from graphprune.graph.rules.table import reads_weight
from graphprune.graph.weightless import light_shell, without_data

LARGE, LARGE_KEPT = 1 << 16, 1 << 20
"""Parameters of more elements than this are fixed where they are operands: a standardised weight, say. The second where norms
run over the kept channels, so that the width of position embeddings follows."""


@dataclass
class Layer:
    """A layer of the data-flow graph as it is met: the labels of its output channels."""

    name: str
    kind: str
    labels: Tensor
    depth: int


@dataclass
class Record:
    """What one run wrote down."""

    ledger: Ledger
    layers: list[Layer] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    sites: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    elements: dict[str, Tensor] = field(default_factory=dict)  # labels of parameters used as operands, one an element
    opaque: dict[str, str] = field(default_factory=dict)  # parameters of which nothing may go, and why
    entering: dict[str, Any] = field(default_factory=dict)  # the arguments of each node, labels in place of tensors
    numbers: dict[NumberKey, Tensor] = field(default_factory=dict)  # numbers that modules keep: labels of what they count
    uses: Counter[str] = field(default_factory=Counter)  # layer -> how often it was met
    norms: dict[str, tuple[int, Tensor, bool]] = field(default_factory=dict)  # as `Norm` has them
    contractions: list[tuple[Tensor, float]] = field(default_factory=list)  # multiply-adds at each place of these labels
    products: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # weight -> positions it is applied at

    def continued(self) -> Record:
        """A record of another pass over the same parameters: labels go on, layers and edges are its own."""
        kept = {"elements": self.elements, "opaque": self.opaque, "numbers": self.numbers, "norms": self.norms}
        return Record(self.ledger, sites=self.sites, **kept)  # type: ignore[arg-type]


class Propagation:
    """Carries labels along a recorded forward, and fills a `Record`.

    Args:
        parts: the network; of its weights only the shapes are used.
        graph: its recording (`graphprune.graph.recording.record`), or that of a larger network that read no size.
        seeds: (tensor, dim) -> labels to give a producer instead of fresh ones: a pruned network's classes. Then only they
            are compared, and no layers are written down.
        atoms: with seeds, the number of prunable classes.
        record: one to go on with; else a new one.
        fixed: parameters and buffers that are constants as operands: what they are combined with keeps their sizes.
        held: numbers that modules keep and that stay as they are.
        recorded: whether the shapes are those of the recording; else they follow by formula or execution.
    """

    def __init__(
        self,
        parts: Parts,
        graph: fx.Graph,
        seeds: Mapping[tuple[str, int], Tensor] | None = None,
        atoms: int | None = None,
        record: Record | None = None,
        fixed: Collection[str] = (),
        held: Collection[NumberKey] = (),
        recorded: bool = True,
    ):
        self.parts, self.graph, self.seeds, self.recorded = parts, graph, seeds, recorded
        over_kept = any(getattr(node.meta.get("rule"), "func", None) is kept_norm for node in graph.nodes)
        self.large = LARGE_KEPT if over_kept else LARGE
        self.record = record or Record(Ledger(atoms))
        self.ledger = self.record.ledger
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, Any] = {}  # the values, label tensors in place of tensors
        self.sources: dict[fx.Node, tuple[int, ...]] = {}
        self.current: fx.Node | None = None
        self.tensors, self.canonical, self.fixed, self.held = parts.tensors, parts.canonical, fixed, held

    # one node ------------------------------------------------------------------------------------------------------

    def run(self) -> Record:
        """Every node in turn."""
        for node in self.graph.nodes:
            self.current = node
            if node.op == "placeholder":
                self._note(node, node.meta["value"])
            elif node.op == "get_attr":
                value = weightless(self.tensors.get(str(node.target), node.meta["value"]))
                self._note(node, value, self._attribute_labels(node, value))
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self.keep_whole(str(source.target) if source.op == "get_attr" else "", "it is the network's output")
                for leaf in tensors(map_arg(node.args, self.labels.__getitem__)):
                    self.ledger.refuse(leaf, "its channels are the network's output")
            elif node.meta["rule"] is None:  # a number
                self.record.entering[node.name] = self._filled(node, self.labels)
                self._note(node, node.meta["value"], node.meta["value"])
                self.sources[node] = ()  # a size is no data
            else:
                self._call(node)
            if self.seeds is None and node not in self.sources:
                self.sources[node] = self._flow(node)
        return self.record

    def _note(self, node: fx.Node, value: Any, labels: Any = None) -> None:
        self.values[node] = value
        self.labels[node] = unlabelled_like(value) if labels is None else labels

    def _call(self, node: fx.Node) -> None:
        """An operation: its result, and its labels by its rule."""
        if source := node.meta["passes_on"]:
            value, labels = self.values[source], self.labels[source]
            if isinstance(value, Tensor) and value.is_floating_point():
                self.record.entering[node.name] = labels
                return self._note(node, value, labels)
        op = self.parts.modules[str(node.target)] if node.op == "call_module" else node.target
        args, kwargs = self._filled(node, self.labels)
        call = Call(node, op, args, kwargs)
        call.out = self._result(call)
        if self.seeds is None:
            self.record.entering[node.name] = (args, kwargs)
        labels = map_aggregate(self._apply_rule(call), lambda leaf: tidy(leaf) if isinstance(leaf, Tensor) else leaf)
        self._note(node, call.out, labels)

    def _apply_rule(self, call: Call) -> Any:
        """The result's labels.

        Where the rule fails, or gives labels of another shape, what it touched is frozen instead, and the proof goes by that.
        """
        known, why = self.ledger.count, "is used in a form that is not known"
        try:
            labels = call.node.meta["rule"](self, call)
            if alike(labels, call.out):
                return labels
        except Exception as error:
            if self.seeds is not None or isinstance(error, Disagreement):
                raise
            why = unregistered(call, error) or f"{why} ({type(error).__name__}: {first_line(error)})"
        if self.seeds is None:
            call.node.meta["rule"] = functools.partial(unknown, why=why)
        self.ledger.freeze(torch.arange(known, self.ledger.count), f"{call.what} {why}")
        return unknown(self, call, why)

    def _filled(self, node: fx.Node, found: Mapping[fx.Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A node's arguments, with what was found in place of nodes."""
        args, kwargs = node.args, node.kwargs
        if len(args) == 1 and isinstance(args[0], fx.Node) and not kwargs:
            return (found[args[0]],), {}
        return map_arg(args, found.__getitem__), map_arg(kwargs, found.__getitem__) if kwargs else {}

    def _result(self, call: Call) -> Any:
        """As recorded; else by the formula of its shape if there is one, else executed."""
        node, formula = call.node, call.node.meta["formula"]
        if self.recorded or refuses(node.meta["rule"]):  # all that enters the unknown is whole
            return node.meta["value"]
        operands = [value for arg in node.all_input_nodes if isinstance(value := self.values[arg], Tensor)]
        if formula and operands and all(operand.is_floating_point() for operand in operands):
            shape = formula(call)
            if shape == operands[0].shape:
                return operands[0]
            if shape is not None:
                return torch.empty(shape, dtype=operands[0].dtype, device="meta")
        args, kwargs = self._filled(node, self.values)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        makes = not operands and getattr(call.op, "__module__", "") not in {"_operator", "builtins", "math"}
        with torch.device("meta") if makes else nullcontext():
            op = light_shell(call.op).eval() if call.is_module else call.op
            return op(*args, **kwargs)

    def _attribute_labels(self, node: fx.Node, value: Any) -> Any:
        """What an attribute of the network bears depends on who reads it: as a weight it is a site, as an operand it is not."""
        users = [user for user in node.users if user.meta.get("rule")]  # not those that read its size
        if any(not refuses(user.meta["rule"]) and not reads_weight(user, node) for user in users):
            return self._attribute(str(node.target), value)
        return unlabelled_like(value)

    def _attribute(self, name: str, value: Any) -> Any:
        """A parameter or buffer met as an operand: a label for each of its elements, until something reads it."""
        if name not in self.canonical or not value.is_floating_point() or value.numel() > self.large:
            return unlabelled_like(value)
        name = self.canonical[name]
        if name in self.fixed:
            self.keep_whole(name, "it is computed with before it is used")
            return unlabelled(value.shape)
        if self.seeds is not None:
            dims = [dim for (tensor, dim) in self.seeds if tensor == name]
            return along(self.seeds[name, dims[0]], dims[0], value.shape) if dims else unlabelled(value.shape)
        if value.numel() == 1:
            return unlabelled(value.shape)
        if name not in self.record.elements:
            self.record.elements[name] = self.ledger.fresh(value.numel()).view(value.shape)
        return self.record.elements[name]

    # bookkeeping ---------------------------------------------------------------------------------------------------

    def site(self, tensor: str, dim: int, labels: Tensor) -> None:
        """These labels lie along this dimension of this parameter or buffer."""
        key, size = (self.canonical[tensor], dim), self.tensors[tensor].shape
        if dim < len(size) and labels.numel() != size[dim]:
            raise Disagreement(f"{tensor} has {size[dim]} slices along dimension {dim}, its operand {labels.numel()} channels")
        if key in self.record.sites:
            self.ledger.tie(self.record.sites[key], labels, f"{tensor} is shared")
        else:
            self.record.sites[key] = labels

    def number(self, key: NumberKey, labels: Tensor) -> None:
        """A number that a module keeps counts the places of these labels, (n,): in a pruned network those that stay."""
        before = self.record.numbers.setdefault(key, labels)
        if self.seeds is not None:
            return
        if before.shape == labels.shape:
            self.ledger.tie(before, labels, f"the number '{key[0]}.{key[1]}' counts it")
        else:
            for found in (before, labels):
                self.ledger.freeze(found, f"the number '{key[0]}.{key[1]}' counts it, and something else")

    def norm(self, path: str, dim: int, labels: Tensor, kept: bool) -> None:
        """The statistics of this module run over these labels, (channels,)."""
        if self.seeds is None:
            before = self.record.norms.setdefault(path, (dim, labels, kept))
            self.ledger.tie(before[1], labels, f"the layer '{path}' is shared")

    def counted(self, key: NumberKey) -> Tensor | None:
        """The labels that a module's number was found to count so far."""
        return self.record.numbers.get(key)

    def applied(self, weight: str, positions: float) -> None:
        """A weight is multiplied in at so many places."""
        self.record.products[self.canonical[weight]] += positions

    def multiplied(self, labels: Tensor, macs: float) -> None:
        """Each of the places of these labels, (n,), takes part in so many multiply-adds of two computed tensors."""
        self.record.contractions.append((labels, macs))

    def keep_whole(self, tensor: str, why: str) -> None:
        """Nothing of this parameter or buffer may go."""
        self.record.opaque[self.canonical.get(tensor, "")] = why

    def produce(self, tensor: str, dim: int, channels: int) -> Tensor:
        """The labels of a producer's output channels: fresh, or the seeds, or those of its earlier use."""
        key = (self.canonical[tensor], dim)
        if self.seeds is not None and key in self.seeds:
            self.record.sites[key] = self.seeds[key]
        if key not in self.record.sites:
            self.record.sites[key] = self.ledger.fresh(channels) if self.seeds is None else torch.full((channels,), -1)
        return self.record.sites[key]

    # data flow -----------------------------------------------------------------------------------------------------

    def layer(self, name: str, kind: str, labels: Tensor) -> None:
        """The current node is a layer of the graph; `labels` (C,) are its output channels'. Used again, it is numbered."""
        assert self.current is not None
        if self.seeds is not None:
            return
        self.record.uses[name] += 1
        name = f"{name}:{self.record.uses[name]}" if self.record.uses[name] > 1 else name
        before = self._flow(self.current)
        index = len(self.record.layers)
        depth = 1 + max((self.record.layers[source].depth for source in before), default=0)
        self.record.layers.append(Layer(name, kind, labels, depth))
        self.record.edges += [(source, index) for source in before]
        self.sources[self.current] = (index,)

    def _flow(self, n: fx.Node) -> tuple[int, ...]:
        """The layers whose output reaches this node without another layer in between.

        Two branches that an elementwise operation merges become one: the merge belongs to the layer that ends the main
        (deepest) branch [our reading].
        """
        if len(n.all_input_nodes) == 1:
            return self.sources.get(n.all_input_nodes[0], ())
        branches = [self.sources[arg] for arg in n.all_input_nodes if self.sources.get(arg)]
        if len(branches) > 1 and n.meta.get("rule") is elementwise and n.op != "call_module":
            depth = [max(self.record.layers[source].depth for source in branch) for branch in branches]
            main = branches[depth.index(max(depth))]
            end = max(main, key=lambda source: self.record.layers[source].depth)
            for source in sorted({s for branch in branches for s in branch} - set(main)):
                if (source, end) not in self.record.edges:
                    self.record.edges.append((source, end))
                self._deepen(end, self.record.layers[source].depth + 1)
            return main
        return tuple(sorted({source for branch in branches for source in branch}))

    def _deepen(self, index: int, depth: int) -> None:
        """A layer is at least this deep, and what it feeds deeper still: else a later merge could close a circle."""
        if depth > self.record.layers[index].depth:
            self.record.layers[index].depth = depth
            for source, target in self.record.edges:
                if source == index:
                    self._deepen(target, depth + 1)


def unregistered(call: Call, error: Exception) -> str:
    """What to do about a weight that is no registered parameter, where a rule failed for that; else ""."""
    if not isinstance(error, KeyError) or not isinstance(path := error.args[0], str):
        return ""
    name = path.rpartition(".")[2]
    if not call.is_module:
        remedy = "keep its layer in an attribute of a module or in an nn.ModuleList, not in a list"
        return f"has a weight that is no parameter of the network: {remedy}" if name.startswith("_constant") else ""
    if nn.utils.parametrize.is_parametrized(call.op):
        return f"computes its {name}: call torch.nn.utils.parametrize.remove_parametrizations(module, '{name}') first"
    remedy = f"call torch.nn.utils.remove_weight_norm(module), or torch.nn.utils.prune.remove(module, '{name}'), first"
    return f"computes its {name} in a hook: {remedy}" if name in vars(call.op) else ""


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [""])[0]


def weightless(value: Any) -> Any:
    """A value, or a tensor's shape in its place."""
    return without_data(value) if isinstance(value, Tensor) and not value.is_meta else value


def alike(labels: Any, out: Any) -> bool:
    """Whether labels have the shapes of the result they are meant for."""
    if isinstance(labels, Tensor) and isinstance(out, Tensor):
        return labels.shape == out.shape
    return [leaf.shape for leaf in tensors(labels)] == [leaf.shape for leaf in tensors(out)]
