"""The state of one training as one file, and the clock that stops it.

The file is a safetensors file, written whole or not at all: weights, optimizer state and random state in their own precision,
all that is no tensor as JSON in its metadata, and a hash of both. Pickled code is never read.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from graphprune.runs import safe_files

EVERY = 60.0  # seconds between states stored in case the process is killed


class Paused(Exception):
    """Time is up; everything done so far is stored."""


class Clock:
    """The time that one call has; whatever it is, one piece of work gets done.

    Args:
        seconds: from now on; without end unless given.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.end, self.worked = time.time() + seconds, False

    @property
    def late(self) -> bool:
        return time.time() >= self.end

    def begin(self, what: str) -> None:
        """Raise `Paused` in place of beginning something when time is up."""
        if self.late and self.worked:
            raise Paused(what)
        self.worked = True


class Checkpoint:
    """Where the state of one training is kept, see `train.fit`.

    Args:
        path: the file.
        clock: when to stop; never, unless given.
        what: what is trained, said when it stops.
        known: what the training depends on, as a digest: a state of another training is not gone on from.

    Attributes:
        seconds: how long the training has taken, over all its pieces.
        core_seconds: the processor's share of them, of all threads.
    """

    def __init__(self, path: Path, clock: Clock | None = None, what: str = "training", known: str = "") -> None:
        self.path, self.clock, self.what, self.known = path, clock or Clock(), what, known
        self._before, self._since = (0.0, 0.0), (time.monotonic(), time.process_time())
        self._stored = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before[0] + time.monotonic() - self._since[0]

    @property
    def core_seconds(self) -> float:
        return self._before[1] + time.process_time() - self._since[1]

    def add(self, seconds: float, core_seconds: float) -> None:
        """Count what another training spent on something that this one reads."""
        self._before = (self._before[0] + seconds, self._before[1] + core_seconds)

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None at the beginning."""
        stored = read(self.path)
        if stored is None or stored["known"] != self.known:
            return None
        self._before = (stored["seconds"], stored["core_seconds"])
        return dict(stored["state"])

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Take the state when time is up, or when the last one is `EVERY` seconds old.

        Raises:
            Paused: time is up.
        """
        late = self.clock.late
        if late or time.monotonic() - self._stored >= EVERY:
            found = state()
            spent = {"seconds": self.seconds, "core_seconds": self.core_seconds}
            write(self.path, {"state": found, "known": self.known, **spent})
            self._stored = time.monotonic()
            if late:
                raise Paused(f"{self.what}, step {found['step']}")

    def clear(self) -> None:
        """Delete what is stored: the training is done."""
        self.path.unlink(missing_ok=True)
        for left_over in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a killed process
            left_over.unlink(missing_ok=True)


def write(path: Path, value: Any) -> None:
    """Store tensors, numbers and text in dicts, lists and tuples; killed at any moment, the old or the new file is whole.

    Raises:
        TypeError: something else is in it. OSError: the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    about = _plain(value, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    safe_files.replace(path, safe_files.packed(tensors, about))


def read(path: Path) -> Any | None:
    """What was stored at `path`, bit for bit and on the CPU; None where there is nothing.

    Warns:
        UserWarning: it is there, but not as it was stored: it has to be made again.
    """
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        safe_files.check(content, path)
    except safe_files.CorruptedError:
        warnings.warn(f"{path} is corrupted, so it is made again", stacklevel=2)
        return None
    return _nested(safe_files.header(content), safe_files.unpacked(content))


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The same as JSON can hold it, its tensors put aside; a dict's keys may be numbers."""
    if isinstance(value, Tensor):
        tensors[name := str(len(tensors))] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _plain(part, tensors)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(part, tensors) for part in value]}
    if isinstance(value, list):
        return [_plain(part, tensors) for part in value]
    return value


def _nested(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_nested(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _nested(part, tensors) for key, part in content}
    return tuple(_nested(part, tensors) for part in content)
