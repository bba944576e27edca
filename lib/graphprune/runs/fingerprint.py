"""Where an artefact comes from, as hashes: of source files and all they import, of parameters."""

import ast
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGE = Path(__file__).resolve().parents[1]


def sources(modules: Sequence[str]) -> dict[str, str]:
    """A hash for each of the named graphprune modules and of all modules they import inside the package.

    Comments, docstrings and formatting do not count. Imports anywhere in a file count, those made by
    `importlib` do not.

    Raises:
        ValueError: a name is no module of graphprune.

    >>> sorted(sources(["runs.store"]))
    ['runs.fingerprint', 'runs.runtime', 'runs.safe_files', 'runs.store']
    """
    todo = [name.removeprefix("graphprune.") for name in ([modules] if isinstance(modules, str) else modules)]
    unknown = [name for name in todo if _file(name) is None]
    if unknown:
        known = ", ".join(sorted(".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in PACKAGE.rglob("*.py")))
        raise ValueError(f"modules: {unknown[0]!r} is no module of graphprune; there are: {known}")
    seen: dict[str, str] = {}
    while todo:
        name = todo.pop()
        file = _file(name)
        if name not in seen and file is not None:
            seen[name], imported = _parsed(file, name, file.stat().st_mtime_ns)
            todo += imported
    return dict(sorted(seen.items()))


def _file(name: str) -> Path | None:
    """The source file of a module of the package, `name` counted from the package ("" is the package itself)."""
    place = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@lru_cache(maxsize=256)
def _parsed(file: Path, name: str, modified_ns: int) -> tuple[str, tuple[str, ...]]:
    found, tree = parsed(file)
    return found, tuple(sorted(set(graphprune_imports(tree, name if file.name != "__init__.py" else f"{name}.__init__"))))


def parsed(file: Path) -> tuple[str, ast.Module]:
    """The hash of a source file without its comments, docstrings and layout, and its syntax tree without docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return sha256(ast.unparse(tree).encode()), tree


def graphprune_imports(tree: ast.AST, importer: str | None = None) -> Iterator[str]:
    """The modules of graphprune that a source file imports anywhere; "" is the package itself.

    Args:
        importer: the name inside graphprune of the module that the file is; None for a file from elsewhere.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level and importer is None:
                continue
            here = ["graphprune", *(importer or "").strip(".").split(".")]
            base = ".".join([*here[: len(here) - node.level], *filter(None, [node.module])]) if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (_module_part(name) for name in names if f"{name}.".startswith("graphprune."))


def _module_part(name: str) -> str:
    """The longest leading part of "graphprune.module.attribute" that is a module; "" for the package itself.

    A public name, such as `graphprune.train` or `graphprune.prune`, stands for the module that is its home.
    """
    parts = name.split(".")[1:]
    homes: dict[str, str] = sys.modules["graphprune"].HOMES  # not imported: the package is no part of what is hashed
    if parts and parts[0] in homes:
        parts = [*homes[parts[0]].split(".")[1:], *parts[1:]]
    while parts and _file(".".join(parts)) is None:
        parts.pop()
    return ".".join(parts)


def digest(value: Any) -> str:
    """A sha256 that two values share only if they are equal, the same in every process and on every machine.

    Takes None, bools, numbers, text, bytes, tensors, arrays, dataclasses, and dicts, lists, tuples and sets of those;
    the order of dicts and sets does not count, and a tuple equals a list, as it does in JSON. A dataclass's field marked
    `metadata={"later": True}` counts only where it differs from its default: what was stored before it was added is known.

    Raises:
        TypeError: anything else, a path first of all: name a file in `inputs`, so that its content counts.

    >>> digest({"a": 1, "b": (2.0, None)}) == digest({"b": [2.0, None], "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    return sha256(_canonical(value))


def _canonical(value: Any) -> bytes:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return _tagged(type(value).__name__, repr(value).encode())
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        return _tagged(f"tensor {plain.dtype} {tuple(plain.shape)}", content)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _tagged(f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if not _unused(field, value)}
        return _tagged(f"dataclass {type(value).__name__}", _canonical(fields))
    if isinstance(value, Mapping):
        return _tagged("dict", b"".join(sorted(_canonical(k) + _canonical(v) for k, v in value.items())))
    if isinstance(value, list | tuple):
        return _tagged("list", b"".join(map(_canonical, value)))
    if isinstance(value, set | frozenset):
        return _tagged("set", b"".join(sorted(map(_canonical, value))))
    if isinstance(value, os.PathLike):
        raise TypeError(f"digest: {value!r} is a path: give the file in `inputs`, or its name as text")
    raise TypeError(f"digest: a {type(value).__name__} has no stable hash: give plain data, tensors or dataclasses")


def _unused(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field that was added later is at its default: then the digest is that of the class without it."""
    return bool(field.metadata.get("later")) and getattr(value, field.name) == field.default


def _tagged(kind: str, content: bytes) -> bytes:
    return f"{kind}:{len(content)}:".encode() + content


def sha256(content: bytes) -> str:
    """The sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
