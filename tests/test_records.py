"""A growing file of results loses no line but the damaged one."""

import warnings
from pathlib import Path

import pytest

from graphprune.records import Records


def filled(path: Path) -> Path:
    records = Records(path)
    records["a"], records["b"], records["c"] = {"n": 1}, [0.1, None], "x"
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Records(filled(tmp_path / "results.jsonl"))
    assert [again[key] for key in "abc"] == [{"n": 1}, [0.1, None], "x"]
    assert ("b" in again, "d" in again, again.count("a"), len(again)) == (True, False, 1, 3)


def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    Records(filled(tmp_path / "results.jsonl"))["a"] = 2
    assert Records(tmp_path / "results.jsonl")["a"] == 2


def test_a_flipped_bit_costs_one_record(tmp_path: Path) -> None:
    path = filled(tmp_path / "results.jsonl")
    content = bytearray(path.read_bytes())
    content[content.index(b"0.1")] ^= 1
    path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"line 4: corrupted"):
        again = Records(path)
    assert ("a" in again, "b" in again, "c" in again) == (True, False, True)


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_line_cut_short_does_not_spoil_the_next(tmp_path: Path, cut: int) -> None:
    path = filled(tmp_path / "results.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    with warnings.catch_warnings(action="ignore"):
        records = Records(path)
        records["d"] = 4
        again = Records(path)
    assert ("a" in again, "b" in again, again["d"]) == (True, True, 4)
    assert ("c" in again) == (cut == 1)  # the newline alone
