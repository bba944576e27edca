"""Files that are written whole or not at all, and that say by a seal inside them whether they are still as they were written.

The seal is the text `sha256:` and the sha256, in hexadecimal, of the file's bytes with zeros in the place of these 64 digits:
it covers every byte, and needs no second file. A format with a place for a line of text of one's own can hold one: JSON,
the header of safetensors, the footer of Parquet.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

SEAL = re.compile(rb"sha256:([0-9a-f]{64})")
BLANK = f"sha256:{'0' * 64}"
"""What stands in the place of the seal until `sealed` puts it there."""
_TENSORS = "graphprune"  # the key in the header of safetensors, the only one: several would stand in an order by chance


class CorruptedError(ValueError):
    """A file's bytes are not those that were saved."""


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, whole or not at all, whenever the process is killed.

    Raises:
        OSError: the folder cannot be written; the file is as it was.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> replace(path, b"42")
    >>> path.read_bytes()
    b'42'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def demand_writable(path: Path, size: int = 1 << 16) -> None:
    """Make the path's folder; raise a clear OSError if it is read-only or full, now rather than after an hour's computation."""
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


# --- the seal ---------------------------------------------------------------------------------------------------------


def sealed(content: bytes) -> bytes:
    """A file's bytes with the seal in the place of `BLANK`.

    Raises:
        ValueError: `BLANK` does not stand there once.

    >>> check(sealed(BLANK.encode() + b" and 42"), "answer.txt")
    >>> changed = sealed(BLANK.encode() + b" and 42").replace(b"42", b"43")
    >>> check(changed, "answer.txt")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    graphprune.runs.safe_files.CorruptedError: answer.txt is corrupted: its content is not what was saved
    """
    before, found, after = content.partition(BLANK.encode())
    if not found or BLANK.encode() in after:
        raise ValueError(f"content: the text {BLANK[:12]} ... must stand in it once, where the seal is to be")
    return before + f"sha256:{hashlib.sha256(content).hexdigest()}".encode() + after


def check(content: bytes, name: str | Path, last: bool = False) -> None:
    """Raise CorruptedError unless a file's bytes are those that its seal was made for.

    Args:
        name: said in the error.
        last: the seal is the last text in the file that looks like one, not the first.
    """
    seal = next(reversed(list(SEAL.finditer(content))) if last else SEAL.finditer(content), None)
    if seal is None:
        raise CorruptedError(f"{name} is corrupted or was not saved whole: it has no sha256 in it")
    found, rest = hashlib.sha256(), memoryview(content)
    for part in (rest[: seal.start(1)], b"0" * 64, rest[seal.end(1) :]):
        found.update(part)
    if found.hexdigest().encode() != seal[1]:
        raise CorruptedError(f"{name} is corrupted: its content is not what was saved")


def packed(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> bytes:
    """A sealed safetensors file: tensors, tied ones as two, and plain data about them in its header."""
    from safetensors.torch import save  # here, so that what stores no tensors needs no safetensors

    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return sealed(save(state, {_TENSORS: f"{BLANK} {json.dumps(about)}"}))


def unpacked(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file."""
    from safetensors.torch import load

    return load(content)


def header(content: bytes) -> dict[str, Any] | None:
    """What `packed` was told about the tensors of a file that has been checked; None where that is nothing.

    >>> header(packed({"w": torch.zeros(2)}, {"made": "by hand"}))
    {'made': 'by hand'}
    """
    size = int.from_bytes(content[:8], "little")
    said: str = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(_TENSORS, "null")
    found: dict[str, Any] | None = json.loads(said[len(BLANK) :] if said.startswith("sha256:") else said)
    return found


def read_kind(path: str | os.PathLike[str], kind: str, thing: str, writer: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file whose metadata names its kind.

    Args:
        kind: what the metadata must say under "kind".
        thing, writer: what the file holds, and the function that writes such files, for the messages.
    Raises:
        FileNotFoundError: there is no such file. ValueError: it is cut short, or of another kind.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> path = Path(tempfile.mkdtemp()) / "mask.safetensors"
    >>> save_file({"fc": torch.tensor([True, False])}, path, {"kind": "mask 1"})
    >>> read_kind(path, "mask 1", "weight mask", "save")
    {'fc': tensor([ True, False])}
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file; {writer} writes one")
    try:
        with safe_open(str(path), "pt") as file:
            found = (file.metadata() or {}).get("kind")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the handle is no dict
    except SafetensorError as error:
        again = f"save the {thing.split()[-1]} again"
        raise ValueError(f"path={str(path)!r} is no whole safetensors file ({error}); {again}") from error
    if found != kind:
        raise ValueError(f"path={str(path)!r} holds tensors, but no {thing}; {writer} writes one")
    return tensors
