"""What results are stored under, as plain data: settings, functions and classes with a hash of their code, networks.

Code of graphprune stands in a description by its name, because `store.stage` hashes the sources of the `modules` it is
told; so does code of installed packages, whose versions are pinned. All other code is somebody's own, which may be edited
between two runs: of a file, the whole file counts and every file of one's own that it imports; of a notebook, the function or
class itself and all that it uses.
"""

from __future__ import annotations

import ast
import dis
import functools
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.runs.fingerprint import digest, graphprune_imports, parsed, sha256, sources

PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, np.ndarray, np.generic)
HELD = (*PLAIN, list, tuple, dict, set, frozenset)
INSTALLED = tuple({f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}


def described(value: Any) -> Any:
    """Settings as `store.digest` takes them: objects by class and fields, code by name and hash.

    What has a method `fingerprint` stands there by what it returns; so do data sets.

    Raises:
        TypeError: there is something in the settings of which it cannot be known whether it changed.

    >>> from graphprune.ranking.rankers import LogWidths
    >>> described(LogWidths("groups"))
    ['LogWidths', {'per': 'groups'}]
    """
    return _Description().of(value)


def modules(value: Any) -> tuple[str, ...]:
    """The modules of graphprune that settings, and the code in them, come from: what results depend on.

    >>> from graphprune.ranking.rankers import LogWidths
    >>> modules(LogWidths("groups"))
    ('ranking.rankers',)
    """
    description = _Description()
    description.of(value)
    return tuple(sorted(description.modules))


def network(model: nn.Module) -> str:
    """A hash of all that a network computes with: weights, and each module's class, code and settings (stride, eps, ...).

    >>> digests = {network(nn.Sequential(nn.LeakyReLU(slope))) for slope in (0.1, 0.2)}
    >>> len(digests)
    2
    """
    description = _Description()
    return digest([description.of(model), sources(sorted(description.modules))])


class _Description:
    """One walk through a value, with the modules of graphprune met on the way."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._open: list[Any] = []  # what is being described, so that a circle ends

    def of(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, torch.dtype | torch.device | Enum):
            return str(value)
        if any(value is other for other in self._open):
            return ["again", len(self._open)]
        self._open.append(value)
        try:
            return self._of(value)
        finally:
            self._open.pop()

    def _of(self, value: Any) -> Any:
        if isinstance(value, type):
            return self._named(value, self._of_class)
        if isinstance(value, Mapping):
            return {str(key): self.of(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part) for part in value]
        if isinstance(value, set | frozenset):
            return sorted(digest(self.of(part)) for part in value)
        if isinstance(value, functools.partial):
            return ["partial", self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, types.MethodType):
            return [self.of(value.__self__), value.__name__]
        if isinstance(value, types.FunctionType):
            return self._named(value, self._of_function)
        if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType):
            return f"{getattr(value, '__module__', None)}.{value.__name__}"
        if callable(wrapped := getattr(value, "__wrapped__", None)):  # by functools.cache, for one
            return self.of(wrapped)
        return self._of_network(value) if isinstance(value, nn.Module) else self._of_object(value)

    def _of_object(self, value: Any) -> Any:
        kind = type(value)
        library = kind.__module__.partition(".")[0] == "graphprune"
        if callable(getattr(value, "fingerprint", None)):
            return value.fingerprint() if library else [self.of(kind), value.fingerprint()]
        if not is_dataclass(value) and (_installed(kind) or not hasattr(value, "__dict__")):
            raise TypeError(
                f"{value!r}: results are stored under what they come from, and of a {kind.__qualname__} it cannot be known "
                "whether it changed; give plain data, functions or dataclasses, or a class with a method fingerprint() "
                "that returns text"
            )
        code = self.of(kind)
        names = [field.name for field in fields(value)] if is_dataclass(value) else sorted(vars(value))
        held = {name: self.of(getattr(value, name)) for name in names}
        return [kind.__name__, held] if library else [kind.__name__, code, held]

    def _of_network(self, model: nn.Module) -> Any:
        parts, stored = [], model.state_dict()
        for path, module in model.named_modules(remove_duplicate=False):
            settings = {name: self._of_setting(value) for name, value in vars(module).items() if name[0] != "_"}
            settings.pop("training")
            parts.append([path, self.of(type(module)), settings])
        return [digest(stored), {name: buffer for name, buffer in model.named_buffers() if name not in stored}, parts]

    def _of_setting(self, value: Any) -> Any:
        """As `of`, of a module's attribute: some of them are no settings, and stand there by their class."""
        try:
            return self.of(value)
        except (TypeError, ValueError):
            return f"{type(value).__module__}.{type(value).__qualname__}"

    # --- code ---------------------------------------------------------------------------------------------------------

    def _named(self, value: Any, interactive: Callable[[Any], Any]) -> Any:
        """A function or class: its name, and what it does where that may have changed."""
        name, home = f"{value.__module__}.{value.__qualname__}", sys.modules.get(value.__module__)
        inner = isinstance(value, types.FunctionType) and "<" in value.__qualname__  # its name is not all there is of it
        if value.__module__.partition(".")[0] == "graphprune":
            self.modules.add(value.__module__.partition(".")[2])
            return [name, self._of_function(value)] if inner else name
        if _installed(value):
            return [name, self._of_function(value)] if inner else name
        file = _file(home)
        if file is None or not _is_in(value, file):
            return [name, interactive(value)]
        code = [name, self._of_files(home), self._of_constants(value)]
        if isinstance(value, types.FunctionType) and (inner or value.__closure__):
            code.append(self._of_function(value))
        return code

    def _of_files(self, home: Any) -> dict[str, str]:
        """A hash for a module's file, and for each file of one's own that it imports."""
        found: dict[str, str] = {}
        todo = [home]
        while todo:
            module = todo.pop()
            file = _file(module)
            if file is None or module.__name__ in found:
                continue
            found[module.__name__], tree = parsed(file)
            self.modules |= set(graphprune_imports(tree))
            todo += [sys.modules[name] for name in _imported(tree, module) if _is_own(sys.modules.get(name))]
        return dict(sorted(found.items()))

    def _of_constants(self, value: Any) -> dict[str, Any]:
        """The values now of the plain outer names that a file's function or class reads: they may be set while it runs."""
        used = {name: part for function in _functions(value) for name, part in _globals(function).items()}
        return {name: self._of_setting(part) for name, part in used.items() if isinstance(part, HELD)}

    def _of_function(self, function: Any) -> Any:
        """What a function is made of: its bytecode, its defaults, and the values of all outer names in it."""
        used = _globals(function)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        used |= {name: cell.cell_contents for name, cell in cells}
        defaults = self.of([function.__defaults__, function.__kwdefaults__])
        code = [_bytecode(code) for code in _codes(function.__code__)]
        return [code, defaults, {name: self._of_used(part) for name, part in used.items()}]

    def _of_class(self, kind: type) -> Any:
        """What a class is made of: what it inherits, its methods, and the values that stand in it."""
        parts = {}
        for name, part in vars(kind).items():
            method = _method(part)
            if method is not None and method.__code__.co_filename != "<string>":  # that is how a dataclass makes its own
                parts[name] = self._of_function(method)
            elif name[:2] != "__" and isinstance(part, HELD):
                parts[name] = self.of(part)
        return [[self.of(base) for base in kind.__bases__ if base is not object], dict(sorted(parts.items()))]

    def _of_used(self, value: Any) -> Any:
        if not isinstance(value, types.ModuleType):
            return self.of(value)
        if value.__name__.partition(".")[0] == "graphprune":
            self.modules.add(value.__name__.partition(".")[2])
        return [value.__name__, self._of_files(value) if _is_own(value) else ""]


def _globals(function: Any) -> dict[str, Any]:
    """The outer names that a function reads, and what they stand for now."""
    codes = _codes(function.__code__)
    names = {item.argval for code in codes for item in dis.get_instructions(code) if item.opname in GLOBAL}
    return {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}


def _functions(value: Any) -> list[Any]:
    """A function itself, or a class's methods."""
    return [value] if isinstance(value, types.FunctionType) else list(filter(None, map(_method, vars(value).values())))


def _method(part: Any) -> Any:
    """The function behind what stands in a class, also of a property, a static or a cached one; None where there is none."""
    part = getattr(part, "__func__", getattr(part, "fget", getattr(part, "func", part)))
    return part if isinstance(part, types.FunctionType) else None


def _file(module: Any) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name) if name is not None and Path(name).is_file() and name.endswith(".py") else None


def _is_in(value: Any, file: Path) -> bool:
    """Whether a function or class was read from that file: a notebook's and an interpreter's own were not."""
    places = {function.__code__.co_filename for function in _functions(value)} - {"<string>"}
    return not places or any(Path(place).resolve() == file.resolve() for place in places)


def _is_own(module: Any) -> bool:
    """Whether a module is a file of somebody's own."""
    return module is not None and _file(module) is not None and not _is_library(module)


def _is_library(module: Any) -> bool:
    """Whether a module is of graphprune, of an installed package, or of Python."""
    name = getattr(module, "__file__", None) or ""
    inside = "site-packages" in name or "dist-packages" in name or name.startswith(INSTALLED)
    return inside or module.__name__.partition(".")[0] == "graphprune"


def _installed(value: Any) -> bool:
    """Whether a function or class belongs to an installed package or to Python."""
    home = sys.modules.get(value.__module__)
    if home is None or value.__module__ == "__main__":
        return False
    return getattr(home, "__file__", None) is None or _is_library(home)


def _imported(tree: ast.AST, module: Any) -> Iterator[str]:
    """The full names of all that a file imports, modules and what may be one."""
    package = module.__package__ or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = [*parts[: len(parts) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module or ""]
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bytecode(code: types.CodeType) -> list[str]:
    constants = [repr(constant) for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return [sha256(code.co_code), *constants, *code.co_names, *code.co_varnames]
