"""One operation's rule on hand-made labels: what it ties and freezes, and the labels of the result."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from graphprune.graph.rules.labels import Ledger, along
from graphprune.graph.rules.operation import Call
from graphprune.graph.rules.table import rule_of


class Computed(int):
    """A number that the network's code computes: the trace holds a node in its place, no literal."""


class Calls:
    """A run of single calls, each with fresh or earlier labels.

    Attributes:
        ledger: ties and freezes.
        sites, layers: what the rules noted: (tensor, dim) -> labels, and (name, kind, labels) of each layer.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.graph = fx.Graph()
        self.labels: dict[fx.Node, Any] = {}
        self.seeds, self.held = None, ()
        self.sites: dict[tuple[str, int], list[int]] = {}
        self.layers: list[tuple[str, str, list[int]]] = []

    def fresh(self, *shape: int, dim: int = 1) -> Tensor:
        """New labels, different along one dimension only."""
        return along(self.ledger.fresh(shape[dim]), dim, shape)

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """The labels of `op(*args, **kwargs)`: a function, a method's name or a module, label tensors in place of tensors."""
        target = "layer" if isinstance(op, nn.Module) else op
        kind = "call_module" if isinstance(op, nn.Module) else "call_method" if isinstance(op, str) else "call_function"
        written = map_aggregate((args, kwargs), self._node)
        node = self.graph.create_node(kind, target, *written)
        real, options = map_aggregate((args, kwargs), self._stand_in)
        name = str(getattr(op, "__name__", op))
        if any(word in name for word in ("getitem", "index", "gather", "scatter")):
            place = 1 if name == "getitem" else 2
            indices = map_aggregate(real[place], lambda leaf: leaf.long() if isinstance(leaf, Tensor) else leaf)
            real = (*real[:place], indices, *real[place + 1 :])
        out = getattr(real[0], op)(*real[1:], **options) if isinstance(op, str) else op(*real, **options)
        return rule_of(op)(self, Call(node, op, args, kwargs, out))  # type: ignore[arg-type]

    def _node(self, leaf: Any) -> Any:
        if isinstance(leaf, fx.Node) or not isinstance(leaf, Tensor | Computed):
            return leaf
        node = self.graph.placeholder("x")
        self.labels[node] = leaf
        node.meta["value"] = self._stand_in(leaf)
        return node

    def _stand_in(self, leaf: Any) -> Any:
        """A value in place of labels, or of a size."""
        return torch.zeros(leaf.shape) if isinstance(leaf, Tensor) else self.labels.get(leaf, leaf)

    def number(self, x: Tensor, dim: int, size: int) -> fx.Node:
        """The size of a tensor that bears these labels, as the code computes it."""
        node = self.graph.create_node("call_method", "size", (self._node(x), dim))
        node.meta = {"rule": None, "value": size}
        self.labels[node] = size
        return node

    def site(self, tensor: str, dim: int, labels: Tensor) -> None:
        self.sites[tensor, dim] = labels.tolist()

    def layer(self, name: str, kind: str, labels: Tensor) -> None:
        self.layers.append((name, kind, labels.tolist()))

    @property
    def frozen(self) -> list[int]:
        return sorted({int(label) for labels, _ in self.ledger.reasons for label in labels})

    @property
    def reasons(self) -> set[str]:
        return {reason for _, reason in self.ledger.reasons}

    @property
    def tied(self) -> list[list[int]]:
        """The labels that live or die together, where there are several."""
        classes: dict[int, list[int]] = defaultdict(list)
        for label, number in enumerate(self.ledger.classes()):
            classes[int(number)].append(label)
        return [labels for labels in classes.values() if len(labels) > 1]


def channels(labels: Tensor, dim: int = 1) -> list[int]:
    """What lies along a dimension; the other dimensions must all bear the same."""
    first: Sequence[int] = labels.movedim(dim, 0).flatten(1)[:, 0]
    assert torch.equal(along(first, dim, labels.shape), labels)
    return first.tolist()
