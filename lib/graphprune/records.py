"""A growing file of results: one line each, known by a key and checked by its own hash, written the moment it is there."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from graphprune import artifacts
from graphprune.provenance import sha256


class Records:
    """Plain data by key, one line of a file each; only one process may write to it.

    A line that was cut short or changed is left out with a warning, and the others are read.

    Args:
        path: the file, made when the first record is added.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
    >>> Records(path)["answer"] = {"n": 42}
    >>> Records(path)["answer"], len(Records(path))
    ({'n': 42}, 1)
    """

    def __init__(self, path: Path) -> None:
        self.path, self._values = path, dict[str, Any]()
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            known, _, content = line.partition(" ")
            if known == _hash(content):
                key, value = json.loads(content)
                self._values[key] = value
            elif line:
                warnings.warn(f"{path}, line {number}: corrupted, so what it held is made again", stacklevel=2)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        content = json.dumps([key, value])
        artifacts.demand_writable(self.path, len(content))
        with self.path.open("ab") as file:  # the empty line ends one that a killed process cut short
            file.write(f"\n{_hash(content)} {content}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._values[key] = json.loads(content)[1]  # as it will be read

    def count(self, start: str) -> int:
        """How many keys start so."""
        return sum(key.startswith(start) for key in self._values)


def _hash(content: str) -> str:
    return sha256(content.encode())[:16]
