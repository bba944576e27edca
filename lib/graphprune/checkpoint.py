"""The state of one training in files small enough to carry from machine to machine, and the clock that stops it.

Files are at most 16 MiB. A state of at most 16 MiB (2 million float32 parameters with their momentum) is stored exactly. A
larger one would not fit beside the base network into 48 MiB: of it, weights are rounded to float16 and the optimizer's
tensors to float8 with one scale each, 3 bytes a parameter in place of 8, and every use of such a state is counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphprune import artifacts

PART = 16 << 20  # bytes of a file, and of a state that is stored exactly
EVERY = 60.0  # seconds between states stored in case the process is killed
FLOAT8_MAX = 448.0  # of float8_e4m3fn


class Paused(Exception):
    """Time is up; everything done so far is stored."""


class Clock:
    """The time one call has; whatever it is, one piece of work gets done."""

    def __init__(self, seconds: float) -> None:
        self.end, self.worked = time.monotonic() + seconds, False

    @property
    def late(self) -> bool:
        return time.monotonic() >= self.end

    def begin(self, what: str) -> None:
        """Raise `Paused` in place of beginning something when time is up."""
        if self.late and self.worked:
            raise Paused(what)
        self.worked = True


class Checkpoint:
    """Where one training's state is kept, see `train.fit`.

    Args:
        path: of the files, their name's start.
        clock: when to stop.
        what: what is trained, said when it stops.

    Attributes:
        seconds: how long the training has taken, over all its pieces.
        rounded: how often it went on from a rounded state.
    """

    def __init__(self, path: Path, clock: Clock, what: str = "training") -> None:
        self.path, self.clock, self.what, self.rounded = path, clock, what, 0
        self._before, self._since = 0.0, time.monotonic()
        self._stored = self._since

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None at the beginning."""
        if (content := read(self.path)) is None:
            return None
        stored = unpacked(content)
        self.rounded, self._before = stored["rounded"] + stored["inexact"], stored["seconds"]
        return dict(_widened(stored["state"]))

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Take the state when time is up, or when the last one is `EVERY` seconds old.

        Raises:
            Paused: time is up.
        """
        late = self.clock.late
        if late or time.monotonic() - self._stored >= EVERY:
            found = state()
            self._save(found)
            if late:
                raise Paused(f"{self.what}, step {found['step']}")

    def _save(self, state: dict[str, Any]) -> None:
        about = {"seconds": self.seconds, "rounded": self.rounded}
        content = packed({"state": state, "inexact": 0, **about})
        if len(content) > PART:
            content = packed({"state": _narrowed(state), "inexact": 1, **about})
        write(self.path, content)
        self._stored = time.monotonic()

    def clear(self) -> None:
        """Delete what is stored: the training is done."""
        _index(self.path).unlink(missing_ok=True)
        _sweep(self.path, [])


# --- rounding ---------------------------------------------------------------------------------------------------------


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its float32 matrices and kernels rounded to float16; vectors (biases, BN) stay as they are."""
    return {name: tensor.half() if _large(tensor) else tensor for name, tensor in weights.items()}


def _large(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.ndim > 1


def _narrowed(state: dict[str, Any]) -> dict[str, Any]:
    moments = {index: {name: _eighth(value) for name, value in values.items()} for index, values in state["optimizer"].items()}
    return {**state, "model": halved(state["model"]), "optimizer": moments}


def _eighth(value: Any) -> Any:
    if not isinstance(value, Tensor) or not _large(value):
        return value
    scale = value.abs().max().clamp_min(1e-30).item() / FLOAT8_MAX
    return {"float8": (value / scale).to(torch.float8_e4m3fn).view(torch.uint8), "scale": scale}


def _widened(value: Any) -> Any:
    """The same with float32 in place of what was rounded."""
    if isinstance(value, dict):
        if "float8" in value:
            return value["float8"].view(torch.float8_e4m3fn).float() * value["scale"]
        return {key: _widened(part) for key, part in value.items()}
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


# --- files ------------------------------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    """Tensors, numbers and text in dicts and lists, as bytes; no pickled code, see `torch.load(weights_only=True)`."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def unpacked(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def write(path: Path, content: bytes) -> None:
    """Store bytes in files of at most 16 MiB beside `path`; killed at any moment, the old or the new content is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256(content).hexdigest()
    parts = [f"{path.name}.{whole[:12]}.{start // PART}.part" for start in range(0, len(content), PART)]
    for number, part in enumerate(parts):
        artifacts.replace(path.with_name(part), content[number * PART : (number + 1) * PART])
    artifacts.replace(_index(path), json.dumps({"sha256": whole, "parts": parts}).encode())
    _sweep(path, parts)


def read(path: Path) -> bytes | None:
    """What was stored at `path`, or None.

    Warns:
        UserWarning: it is there, but not as it was stored: it has to be made again.
    """
    if not _index(path).is_file():
        return None
    try:
        index = json.loads(_index(path).read_text())
        content = b"".join(path.with_name(part).read_bytes() for part in index["parts"])
        whole = hashlib.sha256(content).hexdigest() == index["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        warnings.warn(f"{_index(path)}: a part is missing or corrupted, so it is made again", stacklevel=2)
        return None
    return content


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts.json")


def _sweep(path: Path, keep: list[str]) -> None:
    for part in path.parent.glob(f"{path.name}.*.part"):
        if part.name not in keep:
            part.unlink(missing_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process
        left_over.unlink(missing_ok=True)
