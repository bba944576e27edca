"""Channel labels carried through a traced network, one operation at a time.

The network runs once on the meta device (shapes only), and beside every tensor runs its label tensor. Producers (convolution,
linear, their functional forms) start fresh labels; operations that only move data are executed on the labels themselves and
need no rule; elementwise operations tie the labels they align; reductions make labels constant over what they reduce; whatever
is not known freezes what it touches. On the way the layers and the data flow between them are written down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from graphprune.call import Call, tensors, unknown
from graphprune.labels import Ledger, along, tidy, unlabelled
from graphprune.rules import is_merge, keeps_shape, reads_weight, rule_of

LARGE = 1 << 16
"""Parameters of more elements than this are fixed where they are operands: a standardised weight, say."""


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
    opaque: set[str] = field(default_factory=set)  # parameters that an unknown operation reads
    entering: dict[str, list[Tensor]] = field(default_factory=dict)  # the labels that enter each node
    products: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # weight -> positions it is applied at

    def continued(self) -> Record:
        """A record of another pass over the same parameters: labels go on, layers and edges are its own."""
        return Record(self.ledger, sites=self.sites, elements=self.elements, opaque=self.opaque)


class Propagation(fx.Interpreter):
    """Runs a traced network on meta tensors with labels beside them, and fills a `Record`.

    Args:
        module: the network, on the meta device.
        graph: its trace.
        seeds: (tensor, dim) -> labels to give a producer instead of fresh ones: a pruned network's classes.
        atoms: with seeds, the number of prunable classes.
        record: one to go on with; else a new one.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: fx.Graph,
        seeds: Mapping[tuple[str, int], Tensor] | None = None,
        atoms: int | None = None,
        record: Record | None = None,
    ):
        super().__init__(module, garbage_collect_values=False, graph=graph)
        self.seeds = seeds
        self.record = record or Record(Ledger(atoms))
        self.ledger = self.record.ledger
        self.labels: dict[fx.Node, Any] = {}
        self.sources: dict[fx.Node, tuple[int, ...]] = {}
        self.current: fx.Node | None = None
        self.tensors = named_tensors(module)
        first: dict[int, str] = {}  # a shared tensor goes by the first of its names
        self.canonical = {name: first.setdefault(id(tensor), name) for name, tensor in self.tensors.items()}

    # one node ------------------------------------------------------------------------------------------------------

    def run_node(self, n: fx.Node) -> Any:
        self.current = n
        out = self._execute(n)
        self.labels[n] = self._label(n, out)
        if n not in self.sources:
            self.sources[n] = self._flow(n)
        return out

    def _execute(self, n: fx.Node) -> Any:
        """The result on the meta device; not computed where only its shape matters (torch decomposes such calls, slowly)."""
        found = [self.env[arg] for arg in n.all_input_nodes]
        operands = [value for value in found if isinstance(value, Tensor)]
        op = self._operation(n)
        if operands and all(t.is_floating_point() for t in operands) and op is not None and keeps_shape(op):
            shape = operands[0].shape if len(operands) == 1 else torch.broadcast_shapes(*(t.shape for t in operands))
            same = [t for t in operands if t.shape == shape]
            return same[0] if same else operands[0].new_empty(shape)
        with torch.device("meta") if n.op == "call_function" and not operands else nullcontext():
            return super().run_node(n)

    def _operation(self, n: fx.Node) -> Any:
        """The function, the method's name or the module that a node calls."""
        if n.op == "call_module":
            return self.module.get_submodule(str(n.target))
        return n.target if n.op in {"call_function", "call_method"} else None

    def _label(self, n: fx.Node, out: Any) -> Any:
        if n.op == "output":
            map_aggregate(self._labels_of(n.args), lambda leaf: self._freeze(leaf, "its channels are the network's output"))
            return None
        if n.op.startswith("call"):
            self.record.entering[n.name] = tensors(self._labels_of((n.args, n.kwargs)))
        if not holds_tensor(out) and not str(n.target).endswith("setitem"):
            return None
        if n.op == "placeholder":
            return unlabelled_like(out)
        if n.op == "get_attr":
            opaque = [user for user in n.users if rule_of(user.target) is unknown]
            self.record.opaque.update([self.canonical.get(str(n.target), "")] if opaque else [])
            operand = any(user not in opaque and not reads_weight(user, n) for user in n.users)
            return self._attribute(str(n.target), out) if operand else unlabelled_like(out)
        op = self._operation(n)
        values = self.fetch_args_kwargs_from_env(n)
        call = Call(n, op, self._labels_of(n.args), self._labels_of(n.kwargs), values[0], out)
        labels = rule_of(op)(self, call)
        if shapes(labels) != shapes(out):
            labels = unknown(self, call)
        return map_aggregate(labels, lambda leaf: tidy(leaf) if isinstance(leaf, Tensor) else leaf)

    def _labels_of(self, args: Any) -> Any:
        def swap(leaf: Any) -> Any:
            if not isinstance(leaf, fx.Node):
                return leaf
            return self.labels[leaf] if self.labels.get(leaf) is not None else self.env[leaf]

        return map_aggregate(args, swap)

    def _attribute(self, name: str, value: Any) -> Any:
        """A parameter or buffer met as an operand: a label for each of its elements, until something reads it."""
        if not isinstance(value, Tensor):
            return unlabelled_like(value)
        if name not in self.canonical or value.numel() == 1 or not value.is_floating_point() or value.numel() > LARGE:
            return unlabelled(value.shape)
        name = self.canonical[name]
        if self.seeds is not None:
            dims = [dim for (tensor, dim) in self.seeds if tensor == name]
            return along(self.seeds[name, dims[0]], dims[0], value.shape) if dims else unlabelled(value.shape)
        if name not in self.record.elements:
            self.record.elements[name] = self.ledger.fresh(value.numel()).view(value.shape)
        return self.record.elements[name]

    # bookkeeping ---------------------------------------------------------------------------------------------------

    def _freeze(self, leaf: Any, reason: str) -> Any:
        if isinstance(leaf, Tensor):
            self.ledger.freeze(leaf, reason)
        return leaf

    def site(self, tensor: str, dim: int, labels: Tensor) -> None:
        """These labels lie along this dimension of this parameter or buffer."""
        key, size = (self.canonical[tensor], dim), self.tensors[tensor].shape
        if dim < len(size) and labels.numel() != size[dim]:
            raise ValueError(f"{tensor} has {size[dim]} slices along dimension {dim}, what it is applied to {labels.numel()}")
        if key in self.record.sites:
            self.ledger.tie(self.record.sites[key], labels, f"{tensor} is shared")
        else:
            self.record.sites[key] = labels

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
        """The current node is a layer of the graph; `labels` (C,) are its output channels'."""
        assert self.current is not None
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
        branches = [self.sources[arg] for arg in n.all_input_nodes if self.sources.get(arg)]
        if len(branches) > 1 and is_merge(n.target):
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


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Path -> parameter or buffer; a shared one under each of its paths."""
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}


def flat(tree: Any) -> list[Any]:
    """The leaves of nested tuples, lists and dictionaries."""
    leaves: list[Any] = []
    map_aggregate(tree, leaves.append)
    return leaves


def holds_tensor(tree: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in flat(tree))


def shapes(tree: Any) -> list[torch.Size]:
    return [leaf.shape for leaf in flat(tree) if isinstance(leaf, Tensor)]


def unlabelled_like(tree: Any) -> Any:
    """The same structure with unlabelled tensors."""
    return map_aggregate(tree, lambda leaf: unlabelled(leaf.shape) if isinstance(leaf, Tensor) else leaf)
