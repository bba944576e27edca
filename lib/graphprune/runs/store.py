"""Artefacts of a run: written whole or not at all, checked when read, made again when what they came from changed."""

import csv
import glob
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from graphprune.runs import runtime, safe_files
from graphprune.runs.fingerprint import digest, sha256, sources
from graphprune.runs.safe_files import CorruptedError, demand_writable, replace

__all__ = ["CorruptedError", "Results", "demand_writable", "digest", "find", "load", "provenance", "replace", "save"]
__all__ += ["sources", "stage"]

T = TypeVar("T")


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
        modules: names of graphprune modules, e.g. `("training.train", "search")`.
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


def save(path: Path, value: Any, provenance: Mapping[str, Any], **options: Any) -> None:
    """Write `value` whole or not at all, in one file with its `provenance` and a sha256 of it all (see `safe_files`).

    A .parquet file is read by any Parquet reader, a .safetensors file by any of safetensors; a .json file holds
    `{"graphprune": the sha256, "provenance": ..., "value": ...}`.

    Args:
        provenance: plain data, as `provenance` gives it.
        options: of a .parquet file, as `pyarrow.parquet.ParquetWriter` takes them.

    Raises:
        ValueError: the suffix is none of `stage`'s. TypeError: `value` is not of the suffix's kind. OSError: the folder
            cannot be written; an artefact that was there is still there.
    """
    path = Path(path)
    _check_kind(path)
    demand_writable(path)
    with _lock(path):
        _write(path, value, dict(provenance), **options)


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
            cut short since it was saved, or was saved by something else.
    """
    return _load_if(Path(path), None)


# --- files ------------------------------------------------------------------------------------------------------------


class _Stale(Exception):
    """The artefact is whole but comes from other code, parameters or inputs."""


def _load_if(path: Path, wanted: Mapping[str, Any] | None) -> Any:
    _check_kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"no artefact {path}: run the stage that makes it first")
    content = path.read_bytes()
    safe_files.check(content, path, last=path.suffix == ".parquet")  # its footer
    value, found = _KINDS[path.suffix][1](content)
    if wanted is not None and found != wanted:
        raise _Stale
    return value


def _write(path: Path, value: Any, provenance: Mapping[str, Any], **options: Any) -> None:
    content = _KINDS[path.suffix][0](value, provenance, **options)
    for left_over in path.parent.glob(f".{glob.escape(path.name)}*.tmp"):  # of a killed process: the lock is ours
        left_over.unlink(missing_ok=True)
    replace(path, content)


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


# --- kinds ------------------------------------------------------------------------------------------------------------


def _json_bytes(value: Any, provenance: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps({"graphprune": safe_files.BLANK, "provenance": provenance, "value": value}, indent=1)
    except (TypeError, ValueError) as error:
        raise TypeError(f"value: {error}; a .json artefact holds dicts, lists, text, numbers, bools and None") from error
    return safe_files.sealed(f"{text}\n".encode())


def _from_json(content: bytes) -> tuple[Any, Any]:
    whole = json.loads(content)
    return whole["value"], whole["provenance"]


def _parquet_bytes(value: Any, provenance: Mapping[str, Any], **options: Any) -> bytes:
    if not isinstance(value, pd.DataFrame):
        raise TypeError(f"value: a .parquet artefact holds a pandas DataFrame, got a {type(value).__name__}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(value)
    if value.attrs:  # as `DataFrame.to_parquet` has them
        table = table.replace_schema_metadata({**table.schema.metadata, "PANDAS_ATTRS": json.dumps(value.attrs)})
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"graphprune": f"{safe_files.BLANK} {json.dumps(provenance)}"})  # to the footer alone
    return safe_files.sealed(file.getvalue())


def _from_parquet(content: bytes) -> tuple[pd.DataFrame, Any]:
    import pyarrow.parquet as pq

    said = pq.read_metadata(io.BytesIO(content)).metadata[b"graphprune"].decode()
    return pd.read_parquet(io.BytesIO(content)), json.loads(said[len(safe_files.BLANK) :])


def _tensor_bytes(value: Any, provenance: Mapping[str, Any]) -> bytes:
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise TypeError(f"value: a .safetensors artefact holds a dict of tensors, got a {type(value).__name__}")
    return safe_files.packed(value, provenance)


def _from_tensors(content: bytes) -> tuple[dict[str, torch.Tensor], Any]:
    return safe_files.unpacked(content), safe_files.header(content)


_KINDS: dict[str, tuple[Callable[..., bytes], Callable[[bytes], tuple[Any, Any]]]] = {
    ".json": (_json_bytes, _from_json),
    ".parquet": (_parquet_bytes, _from_parquet),
    ".safetensors": (_tensor_bytes, _from_tensors),
}
"""The suffix of each kind: (value, provenance) to a sealed file, and back."""


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
