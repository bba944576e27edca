"""Numbers that know where they come from: a tensor's size, a module's attribute, and what is computed of them.

A forward reads sizes as plain integers, and in a pruned network they are smaller. While a network is recorded its sizes are
these numbers instead, so that `x.view(b, c // 2, 2)` is told from `x.view(b, 8, 2)`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any


class Size(int):
    """An integer with its origin: (operation, *operands)."""

    origin: tuple[Any, ...]
    on_use: Callable[[], None]

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int.__int__(self),)

    __hash__ = int.__hash__


class Ratio(float):
    """A floating point number with its origin."""

    origin: tuple[Any, ...]
    on_use: Callable[[], None]

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float.__float__(self),)

    __hash__ = float.__hash__


def attribute(path: str, name: str, place: int | None) -> int:
    """Stands in a trace for a number that a module keeps: `path.name`, or of a list of numbers the one at `place`."""
    raise NotImplementedError


def with_origin(value: Any, on_use: Callable[[], None], *origin: Any) -> Any:
    """The number with its origin; what is no int or float stays. on_use: called when it is computed or compared with."""
    kind: Any = Size if type(value) is int else Ratio if type(value) is float else None
    if kind is None:
        return value
    made = kind(value)
    made.origin, made.on_use = origin, on_use
    return made


def bare(value: Any) -> Any:
    """The plain number; anything else as it is."""
    if isinstance(value, Size):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Ratio) else value


def _arithmetic(op: Callable[..., Any], swapped: bool) -> Callable[..., Any]:
    def compute(self: Any, *other: Any) -> Any:
        if other and not isinstance(other[0], int | float):
            return NotImplemented
        self.on_use()
        operands = (other[0], self) if swapped else (self, *other)
        return with_origin(op(*map(bare, operands)), self.on_use, op, *operands)

    return compute


def _comparison(op: Callable[..., Any]) -> Callable[..., Any]:
    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        self.on_use()
        return op(bare(self), bare(other))

    return compare


for _kind in (Size, Ratio):
    for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        setattr(_kind, f"__{_name}__", _arithmetic(getattr(operator, _name), False))
        setattr(_kind, f"__r{_name}__", _arithmetic(getattr(operator, _name), True))
    _kind.__neg__ = _arithmetic(operator.neg, False)  # type: ignore[method-assign]
    for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(_kind, f"__{_name}__", _comparison(getattr(operator, _name)))
