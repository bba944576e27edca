"""What a network is called with: a tensor, several, a dictionary of keywords, or any of these nested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from graphprune.graph.weightless import ATOMS, without_data

Outputs = Callable[[Any], Any] | Sequence[Any] | None
"""Which outputs count: a function of the result, keys or positions of it, or None for all."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of a forward.

    Attributes:
        args, kwargs: by position and by keyword; any nesting of lists, tuples and dictionaries.
        outputs: which of the forward's outputs count.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs = None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in order."""
        return [leaf for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with other tensors."""

        def changed(tree: Any) -> Any:
            return on_leaves(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, tree)

        return Inputs(changed(self.args), changed(dict(self.kwargs)), self.outputs)

    def call(self, model: nn.Module) -> list[Tensor]:
        """Run a network, and give the tensors that count."""
        return chosen(model(*self.args, **self.kwargs), self.outputs)


def as_inputs(example_input: Any, keywords: Mapping[str, Any] | None = None, outputs: Outputs = None) -> Inputs:
    """What the caller gave as an `Inputs`.

    Args:
        example_input: a tensor, a tuple or list of the forward's arguments, a dictionary of its keywords, or an `Inputs`.
        keywords: more keywords.
        outputs: which outputs count.

    Raises:
        TypeError: there is no tensor.
    """
    if isinstance(example_input, Inputs):
        return example_input
    keywords = dict(keywords or {})
    args: tuple[Any, ...] = tuple(example_input) if isinstance(example_input, tuple | list) else (example_input,)
    if isinstance(example_input, Mapping):
        args, keywords = (), {**example_input, **keywords}
    elif example_input is None and keywords:
        args = ()
    inputs = Inputs(args, keywords, outputs)
    if not inputs.tensors:
        kinds = ", ".join([*(type(item).__name__ for item in args), *keywords])
        wanted = f"a tensor, a tuple or a dictionary of the forward's arguments, got ({kinds})"
        raise TypeError(f"example_input must be {wanted}; give for example torch.zeros(1, 3, 224, 224)")
    return inputs


@contextmanager
def naming_bad_input(inputs: Inputs) -> Iterator[None]:
    """Whatever a forward raises meanwhile is laid to the example input."""
    try:
        yield
    except Exception as error:
        raise ValueError(rejection(inputs, error.__cause__ or error)) from error


def rejection(inputs: Inputs, reason: BaseException | None) -> str:
    """What a user is told of an input that a network does not take."""
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    return f"model rejects example_input of shape {shapes}: {reason}; give a tensor, or the tensors, that its forward accepts"


def weightless_inputs(inputs: Inputs) -> Inputs:
    """The same shapes on the meta device."""
    return inputs.mapped(without_data)


def on_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    """Nested containers with each leaf changed; containers become plain ones (fx knows no torch.Size or OrderedDict)."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind(on_leaves(change, item) for item in tree)
    if kind in ATOMS or isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple | list):
        return (list if isinstance(tree, list) else tuple)(on_leaves(change, item) for item in tree)
    if isinstance(tree, Mapping):
        return {key: on_leaves(change, item) for key, item in tree.items()}
    if kind is slice:
        return slice(change(tree.start), change(tree.stop), change(tree.step))
    return change(tree)


def leaves(tree: Any) -> Iterable[Any]:
    """What nested containers hold, in order."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


def chosen(result: Any, outputs: Outputs) -> list[Tensor]:
    """The tensors of a forward's result that count.

    Raises:
        ValueError: there is none, or no such key.
    """
    if callable(outputs):
        result = outputs(result)
    elif outputs is not None:
        try:
            result = [getattr(result, key) if isinstance(key, str) and hasattr(result, key) else result[key] for key in outputs]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"outputs={outputs!r} names what the forward does not return ({type(result).__name__})") from error
    found = result_tensors(result, set()) or result_tensors(getattr(result, "__dict__", None), set())
    if found:
        return found
    raise ValueError(f"the forward returns no tensor that was found ({type(result).__name__}); say which with outputs=")


def result_tensors(result: Any, seen: set[int]) -> list[Tensor]:
    """The tensors in containers and dataclasses, each once. Other objects, a cache say, are not looked into."""
    if id(result) in seen:
        return []
    seen.add(id(result))
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        parts: Iterable[Any] = result.values()
    elif isinstance(result, tuple | list | set | frozenset):
        parts = result
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        parts = [getattr(result, item.name, None) for item in dataclasses.fields(result)]
    else:
        return []
    return [tensor for part in parts for tensor in result_tensors(part, seen)]
