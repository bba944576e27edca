"""A teacher whose outputs are stored, so that trainings which see the same batches ask it once for all.

The augmented batches of a training depend on the data and the seed alone, not on the network that learns from them. Networks
that are retrained under one seed therefore have the same teacher's outputs in their loss. On a CPU these are about a quarter
of the time of a training at half of the MACs. What is read is what was computed, bit for bit.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from graphprune.runs import safe_files
from graphprune.runs.fingerprint import digest
from graphprune.training.objective import plain

Spent = Callable[[float, float], None]
"""Called with the seconds and the processor seconds that outputs took when they were computed."""


class StoredTeacher(nn.Module):
    """A network that computes its outputs for a batch once, and reads them wherever they were stored before.

    Args:
        network: the trained network, on the CPU, in eval mode: its outputs depend on the batch alone.
        folder: of the stored outputs, a file for every batch. Processes and machines may share it; it may be deleted.
        known: a text for all else that the outputs depend on: weights, precision, number of threads.
        spent: told what outputs that are read took when they were computed, so that a training can count its whole cost.
    Shapes: the network's, such as (B, channels, height, width) -> (B, classes).
    Raises:
        OSError: the folder cannot be written.
    Warns:
        UserWarning: a file is not as it was stored, so it is made again.

    >>> import tempfile, torch
    >>> told = []
    >>> teacher = StoredTeacher(nn.Linear(3, 2), Path(tempfile.mkdtemp()), "weights 1", lambda *seconds: told.append(seconds))
    >>> with torch.no_grad():
    ...     torch.equal(teacher(torch.ones(4, 3)), teacher(torch.ones(4, 3))), len(told)
    (True, 1)
    """

    def __init__(self, network: nn.Module, folder: Path, known: str, spent: Spent) -> None:
        super().__init__()
        self.network, self._folder, self._known, self._spent = network, folder, known, spent
        safe_files.demand_writable(folder / "outputs.safetensors")

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs, as a tensor."""
        path = self._path(x)
        if (found := _read(path)) is not None:
            outputs, seconds = found
            self._spent(*seconds)
            return outputs
        wall, core = time.monotonic(), time.process_time()
        computed = plain(self.network(x))
        seconds = (time.monotonic() - wall, time.process_time() - core)
        path.parent.mkdir(exist_ok=True)
        safe_files.replace(path, safe_files.packed({"outputs": computed}, {"seconds": seconds}))
        return computed

    def _path(self, x: Tensor) -> Path:
        name = digest([self._known, x])
        return self._folder / name[:2] / f"{name[2:32]}.safetensors"  # thousands of files are slow in one folder


def _read(path: Path) -> tuple[Tensor, tuple[float, float]] | None:
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        safe_files.check(content, path)
    except safe_files.CorruptedError as error:
        warnings.warn(f"{error}, so it is made again", stacklevel=3)
        return None
    wall, core = (safe_files.header(content) or {})["seconds"]
    return safe_files.unpacked(content)["outputs"], (wall, core)
