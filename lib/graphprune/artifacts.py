"""Artefacts of a run: written whole or not at all, checked when read, made again when what they came from changed."""

import csv
import errno
import glob
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from graphprune import runtime
from graphprune.provenance import digest, sha256, sources

__all__ = ["CorruptedError", "Results", "demand_writable", "digest", "find", "load", "provenance", "replace", "save"]
__all__ += ["sources", "stage"]

T = TypeVar("T")


class CorruptedError(ValueError):
    """An artefact's bytes are not those that were saved."""


def stage(
    path: Path,
    compute: Callable[[], T],
    *,
    parameters: Mapping[str, Any],
    modules: Sequence[str] = (),
    inputs: Sequence[Path] = (),
) -> T:
    """Load what `compute` made at `path` before, or compute and save it; either way the value comes from the file.

    It is loaded when its bytes are those saved and its provenance is today's: the sources of `modules` and of all
    they import inside graphprune (comments and docstrings aside), `parameters`, and the contents of `inputs`. The old
    artefact stays until the new one is complete; processes that want the same one wait for the first to make it.

    Args:
        path: where it lives; the suffix says the kind: `.json` (plain data), `.parquet` (DataFrame) or `.safetensors`
            (dict of tensors).
        parameters: all that `compute` depends on beside code and files, of a kind that `digest` takes.
        modules: names of graphprune modules, e.g. `("train", "search")`.
        inputs: files that `compute` reads.
    Raises:
        ValueError, TypeError, FileNotFoundError: an argument is wrong. OSError: the folder cannot be written.
            All are raised before anything is computed.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "answer.json"
    ...     [stage(path, lambda: print("thinking") or 42, parameters={"n": 1}) for _ in range(2)]
    thinking
    [42, 42]
    """
    path = Path(path)
    _check_kind(path)
    wanted = provenance(parameters, modules, inputs)
    try:
        return cast(T, _load_if(path, wanted))
    except (FileNotFoundError, CorruptedError, _Stale):
        demand_writable(path)
    with _lock(path):
        try:  # another process may have made it meanwhile
            return cast(T, _load_if(path, wanted))
        except CorruptedError as error:
            warnings.warn(f"{error}: it is rebuilt", UserWarning, stacklevel=2)
        except (FileNotFoundError, _Stale):
            pass
        _write(path, compute(), wanted)
        return cast(T, load(path))


def provenance(parameters: Mapping[str, Any], modules: Sequence[str] = (), inputs: Sequence[Path] = ()) -> dict[str, Any]:
    """What an artefact comes from, as plain data: a hash for every source module, parameter and input file."""
    missing = [str(file) for file in inputs if not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(f"inputs: no such file: {', '.join(missing)}; run the stage that makes it first")
    return {
        "sources": sources(modules),
        "parameters": {str(name): digest(value) for name, value in sorted(parameters.items())},
        "inputs": [[Path(file).name, sha256(Path(file).read_bytes())] for file in inputs],
    }


def save(path: Path, value: Any, provenance: Mapping[str, Any]) -> None:
    """Write `value` whole or not at all, with its sha256 and `provenance` beside it in `PATH.provenance.json`.

    Raises:
        ValueError: the suffix is none of `stage`'s. TypeError: `value` is not of the suffix's kind. OSError: the folder
            cannot be written; an artefact that was there is still there.
    """
    path = Path(path)
    _check_kind(path)
    demand_writable(path)
    with _lock(path):
        _write(path, value, dict(provenance))


def find(path: Path, *, parameters: Mapping[str, Any], modules: Sequence[str] = (), inputs: Sequence[Path] = ()) -> Any | None:
    """What `stage` would load, or None where it would compute.

    Args, Raises: as for `stage`.
    """
    try:
        return _load_if(Path(path), provenance(parameters, modules, inputs))
    except (FileNotFoundError, CorruptedError, _Stale):
        return None


def load(path: Path) -> Any:
    """Read an artefact and check it against the sha256 it was saved with.

    Raises:
        ValueError: the suffix is none of `stage`'s. FileNotFoundError: there is none. CorruptedError: it was changed or
            cut short since it was saved.
    """
    try:
        return _load_if(Path(path), None)
    except CorruptedError:  # or replaced while it was read: then a second look finds it whole
        return _load_if(Path(path), None)


# --- files ------------------------------------------------------------------------------------------------------------


class _Stale(Exception):
    """The artefact is whole but comes from other code, parameters or inputs."""


def _load_if(path: Path, wanted: Mapping[str, Any] | None) -> Any:
    _check_kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"no artefact {path}: run the stage that makes it first")
    content = path.read_bytes()  # before the sidecar, which is always written first: so the two fit without a lock
    record = _record_of(path, content)
    if wanted is not None and record["provenance"] != wanted:
        raise _Stale
    return _KINDS[path.suffix][1](content)


def _record_of(path: Path, content: bytes) -> dict[str, Any]:
    found = sha256(content)
    for record in _records(path):
        if record["sha256"] == found:
            return record
    raise CorruptedError(f"{path} is corrupted or was not saved whole (sha256 {found[:12]}... is not on record)")


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        records = json.loads(_sidecar(path).read_text())
        return [record for record in records if {"sha256", "provenance"} <= set(record)]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _write(path: Path, value: Any, provenance: Mapping[str, Any]) -> None:
    content = _KINDS[path.suffix][0](value)
    for left_over in path.parent.glob(f".{glob.escape(path.name)}*.tmp"):  # of a killed process: the lock is ours
        left_over.unlink(missing_ok=True)
    # The sidecar knows the old content until the new is in place: killed at any point, one of the two is valid.
    before = [_record_of(path, path.read_bytes())] if _is_whole(path) else []
    records = [{"sha256": sha256(content), "provenance": provenance}]
    replace(_sidecar(path), _json_bytes(records + before))
    replace(path, content)
    if before:
        replace(_sidecar(path), _json_bytes(records))


def _is_whole(path: Path) -> bool:
    try:
        return bool(_record_of(path, path.read_bytes()))
    except (FileNotFoundError, CorruptedError):
        return False


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, whole or not at all; no lock, no provenance.

    Raises:
        OSError: the folder cannot be written; the file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def demand_writable(path: Path, size: int = 1 << 16) -> None:
    """Raise a clear OSError now if the path's folder is read-only or full, rather than after an hour's computation."""
    temporary = path.with_name(f".{path.name}.probe.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    message = f"cannot write {path}: {reason}; free some space or choose a folder you may write to"
    return OSError(error.errno or errno.EIO, message)


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.provenance.json")


# --- kinds ------------------------------------------------------------------------------------------------------------


def _json_bytes(value: Any) -> bytes:
    try:
        return (json.dumps(value, indent=1) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"value: {error}; a .json artefact holds dicts, lists, text, numbers, bools and None") from error


def _parquet_bytes(value: Any) -> bytes:
    if not isinstance(value, pd.DataFrame):
        raise TypeError(f"value: a .parquet artefact holds a pandas DataFrame, got a {type(value).__name__}")
    file = io.BytesIO()
    value.to_parquet(file)
    return file.getvalue()


def _tensor_bytes(value: Any) -> bytes:
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise TypeError(f"value: a .safetensors artefact holds a dict of tensors, got a {type(value).__name__}")
    from safetensors.torch import save as packed  # here, so that what stores no tensors needs no safetensors

    return packed({name: t.detach().cpu().clone().contiguous() for name, t in value.items()})


def _tensors(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load as unpacked

    return unpacked(content)


_KINDS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    ".json": (_json_bytes, json.loads),
    ".parquet": (_parquet_bytes, lambda content: pd.read_parquet(io.BytesIO(content))),
    ".safetensors": (_tensor_bytes, _tensors),
}


def _check_kind(path: Path) -> None:
    if path.suffix not in _KINDS:
        raise ValueError(f"path={str(path)!r}: the suffix must be one of {', '.join(_KINDS)}")


# --- results ----------------------------------------------------------------------------------------------------------


class Results:
    """The rows of a results table: one number each, with its unit, spread, seeds and hardware.

    Args:
        path: the CSV file that `save` writes; rows stand in the order they were first added.

    >>> from pathlib import Path
    >>> results = Results(Path("results.csv"))
    >>> results.add("accuracy", 0.98251234, "share", n=5, low=0.98, high=0.985, seeds="0-4")
    >>> results.frame()["value"].item()
    '0.982512'
    """

    COLUMNS = ("name", "value", "unit", "n", "low", "high", "seeds", "hardware", "volatile", "note")

    def __init__(self, path: Path):
        self.path = Path(path)
        self.rows: dict[str, dict[str, str]] = {}

    def add(
        self,
        name: str,
        value: float | str,
        unit: str,
        *,
        n: int = 1,
        low: float | None = None,
        high: float | None = None,
        seeds: str = "",
        note: str = "",
        volatile: bool = False,
    ) -> None:
        """Add a row, or put it in the place of the row of that name.

        Args:
            value: floats are written with 6 significant digits, integers and text as they are.
            n: how many runs the value is the mean of; `low` and `high` are the interval's ends.
            volatile: the value differs from run to run (seconds, latency), so that a difference is no news.
        Raises:
            ValueError: `name` or `unit` is empty, or `n` is below 1.
        """
        if not name or not unit:
            raise ValueError(f"name={name!r}, unit={unit!r}: both must say something; a bare number has the unit '1'")
        if n < 1:
            raise ValueError(f"n={n!r}: a value is the mean of at least 1 run")
        row = (name, value, unit, n, low, high, seeds, runtime.hardware(), "yes" if volatile else "no", note)
        self.rows[name] = dict(zip(self.COLUMNS, map(_text, row), strict=True))

    def frame(self) -> pd.DataFrame:
        """The rows as they will be written, all text."""
        return pd.DataFrame(list(self.rows.values()), columns=list(self.COLUMNS))

    def save(self) -> None:
        """Write the rows to `path`, whole or not at all."""
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        demand_writable(self.path)
        replace(self.path, file.getvalue().encode())


def _text(value: Any) -> str:
    if isinstance(value, np.generic | torch.Tensor):
        value = value.item()
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
