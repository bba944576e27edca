"""Files written whole or not at all, and the seal that notices every changed byte."""

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graphprune.runs import safe_files
from graphprune.runs.safe_files import BLANK, CorruptedError, check, demand_writable, header, packed, sealed, unpacked

# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_file_is_put_in_place_by_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.replace` is the only thing that changes it: a process killed there leaves the old file, and no other."""
    path = tmp_path / "x.txt"
    safe_files.replace(path, b"old")

    def killed(source: Path, target: Path) -> None:
        assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
        raise SystemExit

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        safe_files.replace(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_bytes() == b"old"


def test_a_disk_that_fails_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: safe_files.replace(tmp_path / "x", b"new"), lambda: demand_writable(tmp_path / "x")):
        with pytest.raises(OSError, match=r"cannot write .*x: No space left on device; free some space") as raised:
            write()
        assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_noticed_before_anything_is_computed(tmp_path: Path) -> None:
    """A file size limit of 10 KB stands in for a full disk: writes fail in the operating system."""
    code = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from graphprune.runs.safe_files import demand_writable
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        demand_writable(Path({str(tmp_path)!r}) / "small", 10_000)
        try:
            demand_writable(Path({str(tmp_path)!r}) / "large", 10_001)
        except OSError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert "large: File too large; free some space" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    demand_writable(tmp_path / "new" / "folder" / "x.json")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*x\.json: "):
        demand_writable(tmp_path / "file" / "x.json")


# --- the seal ---------------------------------------------------------------------------------------------------------


def test_the_seal_is_the_hash_of_the_file_with_zeros_in_its_place() -> None:
    content = sealed(b"before " + BLANK.encode() + b" after")
    found = hashlib.sha256(b"before sha256:" + b"0" * 64 + b" after").hexdigest()
    assert content == f"before sha256:{found} after".encode()
    check(content, "x")


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    content = sealed(b"before " + BLANK.encode() + b" after")
    for place in range(len(content)):
        with pytest.raises(CorruptedError, match="x is corrupted"):
            check(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], "x")
    for length in range(len(content)):
        with pytest.raises(CorruptedError, match="x is corrupted"):
            check(content[:length], "x")


def test_a_text_like_a_seal_is_none_where_the_seal_is_the_last_one() -> None:
    content = sealed(b"sha256:" + b"1" * 64 + b" " + BLANK.encode())
    check(content, "x", last=True)
    with pytest.raises(CorruptedError, match="x is corrupted: its content is not what was saved"):
        check(content, "x")


@pytest.mark.parametrize("content", [b"no place", BLANK.encode() * 2])
def test_content_without_one_place_for_the_seal_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"content: the text sha256:00000 \.\.\. must stand in it once"):
        sealed(content)


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_tied_tensors_are_packed_as_two() -> None:
    weight = torch.ones(2, 2)
    found = unpacked(packed({"a": weight, "b": weight}, {}))
    assert sorted(found) == ["a", "b"]
    assert found["a"].data_ptr() != found["b"].data_ptr()


def test_packed_tensors_are_a_sealed_file_of_safetensors(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(6.0).reshape(2, 3).t().requires_grad_(), "flag": torch.tensor([True])}
    content = packed(tensors, {"made": ["by hand", 1]})
    check(content, "x")
    assert header(content) == {"made": ["by hand", 1]}
    (tmp_path / "x.safetensors").write_bytes(content)
    for found in (unpacked(content), load_file(tmp_path / "x.safetensors")):
        assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_a_folder_that_is_a_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot write"):
        safe_files.replace(tmp_path / "file" / "x.json", b"")
