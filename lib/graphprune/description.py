"""Settings as plain data, which results are stored under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def described(value: Any) -> Any:
    """A dataclass of settings as `artifacts.digest` takes it: functions by name, data sets by `fingerprint`.

    Raises:
        ValueError: a function without a name, such as a lambda, in the settings.

    >>> from graphprune.rankers import LogWidths
    >>> described(LogWidths("groups"))
    ['LogWidths', {'per': 'groups'}]
    """
    if callable(getattr(value, "fingerprint", None)):
        return value.fingerprint()
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {field.name: described(getattr(value, field.name)) for field in fields(value)}]
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if callable(value) and not isinstance(value, Tensor):
        if "<" in value.__qualname__:
            raise ValueError(f"{value!r}: results are stored under its name, so give a plain function")
        return f"{value.__module__}.{value.__qualname__}"
    return value


def modules(value: Any) -> tuple[str, ...]:
    """The modules of graphprune that a dataclass of settings, and those it holds, come from: what results depend on.

    >>> from graphprune.rankers import LogWidths
    >>> modules(LogWidths("groups"))
    ('rankers',)
    """
    if not is_dataclass(value) or isinstance(value, type) or callable(getattr(value, "fingerprint", None)):
        return ()
    package, _, own = type(value).__module__.partition(".")
    held = {name for field in fields(value) for name in modules(getattr(value, field.name))}
    return tuple(sorted(held | ({own} if package == "graphprune" else set())))
