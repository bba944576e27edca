import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from graphprune.runs import runtime, store

VALUES = {
    "plain.json": {"a": [1, 2.5, None, True], "b": {"c": "text"}},
    "table.parquet": pd.DataFrame({"name": ["a", "b"], "n": [1, 2], "indices": [[1, 2], [3]]}),
    "weights.safetensors": {"w": torch.arange(6.0).reshape(2, 3).t(), "flag": torch.tensor([True])},
}


def same(a, b):
    if isinstance(a, pd.DataFrame):
        return a.map(lambda x: list(x) if isinstance(x, np.ndarray) else x).equals(b)
    if isinstance(a, dict) and any(isinstance(v, torch.Tensor) for v in a.values()):
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
    return a == b


class Counted:
    """A computation that counts how often it runs."""

    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return self.value


def forbidden():
    raise AssertionError("computed")


@pytest.mark.parametrize("name", VALUES)
def test_a_stage_computes_once_and_loads_afterwards(tmp_path, name):
    compute = Counted(VALUES[name])
    path = tmp_path / "new" / "folder" / name
    first, second = (store.stage(path, compute, parameters={"n": 1}) for _ in range(2))
    assert compute.calls == 1
    assert same(first, VALUES[name])
    assert same(second, VALUES[name])
    assert same(store.load(path), VALUES[name])


def test_changed_parameters_or_inputs_recompute_silently(tmp_path, capfd):
    source = tmp_path / "in.txt"
    source.write_text("one")
    compute = Counted(1)

    def stage(n):
        store.stage(tmp_path / "x.json", compute, parameters={"n": n}, inputs=[source])
        return compute.calls

    calls = [stage(1), stage(1), stage(2), stage(2)]
    source.write_text("two")
    assert [*calls, stage(2), stage(2)] == [1, 1, 2, 2, 3, 3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another seal", "no seal", "another provenance"])
def test_a_damaged_file_is_noticed_and_rebuilt(tmp_path, name, damage):
    path = tmp_path / name
    store.stage(path, lambda: VALUES[name], parameters={})
    content = path.read_bytes()
    seal = next(reversed(list(re.finditer(rb"sha256:(.{64})", content))))
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        case "empty":
            path.write_bytes(b"")
        case "another seal":
            path.write_bytes(content.replace(seal[1], b"1" * 64))
        case "no seal":
            path.write_bytes(content.replace(seal[0], seal[0].upper()))
        case "another provenance":
            assert content.count(b"sources") == 1
            path.write_bytes(content.replace(b"sources", b"sourced"))
    with pytest.raises(store.CorruptedError, match=name):
        store.load(path)
    with pytest.warns(UserWarning, match=rf"{name} is corrupted.*rebuilt"):
        rebuilt = store.stage(path, lambda: VALUES[name], parameters={})
    assert same(rebuilt, VALUES[name])
    assert same(store.stage(path, forbidden, parameters={}), VALUES[name])


def test_a_failed_computation_leaves_the_old_artefact(tmp_path):
    path = tmp_path / "x.json"
    store.stage(path, lambda: "old", parameters={"n": 1})

    def fail():
        assert store.load(path) == "old"
        raise KeyError("no luck")

    with pytest.raises(KeyError, match="no luck"):
        store.stage(path, fail, parameters={"n": 2})
    assert store.stage(path, forbidden, parameters={"n": 1}) == "old"
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == ["x.json"]


def test_an_artefact_is_one_file_put_in_place_by_one_step(tmp_path, monkeypatch):
    """`os.replace` is the only thing that changes a file: with one of them, there is no moment between two."""
    path = tmp_path / "x.json"
    store.save(path, "old", {"v": 1})
    replace, done = os.replace, []

    def noted(source, target):
        done.append(Path(target).name)
        replace(source, target)

    def killed(source, target):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", noted)
        store.save(path, "old", {"v": 1})
    assert done == ["x.json"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            store.save(path, "new", {"v": 2})
    assert store.load(path) == "old"
    store.save(path, "newest", {"v": 3})
    assert store.load(path) == "newest"


def test_files_are_read_by_plain_readers_too(tmp_path):
    for name, value in VALUES.items():
        store.save(tmp_path / name, value, {"made": "by hand"})
    plain = json.loads((tmp_path / "plain.json").read_text())
    assert same(plain["value"], VALUES["plain.json"])
    assert plain["provenance"] == {"made": "by hand"}
    assert same(pd.read_parquet(tmp_path / "table.parquet"), VALUES["table.parquet"])
    assert same(load_file(tmp_path / "weights.safetensors"), VALUES["weights.safetensors"])


def test_a_table_s_own_notes_are_kept(tmp_path):
    table = VALUES["table.parquet"].copy()
    table.attrs["unit"] = "share"
    store.save(tmp_path / "t.parquet", table, {})
    assert store.load(tmp_path / "t.parquet").attrs == {"unit": "share"}


@pytest.mark.parametrize("name", VALUES)
def test_equal_values_and_provenance_are_equal_bytes(tmp_path, name):
    for copy in ("a", "b"):
        store.save(tmp_path / copy / name, VALUES[name], {"n": 1})
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_kill_9_at_random_moments_never_leaves_a_broken_artefact(tmp_path):
    path = tmp_path / "x.json"
    store.save(path, [0] * 20_000, {})
    code = textwrap.dedent(f"""
        import os, signal, time
        from pathlib import Path
        from graphprune.runs import store
        path = Path({str(path)!r})
        for round in range(12):
            child, n = os.fork(), 0
            while not child:
                n += 1
                store.save(path, [n] * 20_000, {{}})
            time.sleep(0.03 + 0.007 * round)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            values = store.load(path)
            print(len(values), len(set(values)))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["20000 1"] * 12 + [""], done.stderr
    store.save(path, [0], {})
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_that_want_one_artefact_compute_it_once(tmp_path):
    compute = Counted({"made": 1})

    def slow():
        time.sleep(0.3)
        return compute()

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(store.stage, tmp_path / "x.json", slow, parameters={}) for _ in range(4)]
    assert [job.result() for job in jobs] == [{"made": 1}] * 4
    assert compute.calls == 1


@pytest.fixture
def read_only_folder():
    """A folder nobody may write to, seen as an ordinary user even where the tests run as root."""
    folder = Path(tempfile.mkdtemp())
    store.save(folder / "old.json", "old", store.provenance({}))
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)


def test_a_read_only_folder_is_reported_before_computing_and_still_read(read_only_folder):
    assert store.stage(read_only_folder / "old.json", forbidden, parameters={}) == "old"
    with pytest.raises(PermissionError, match=r"cannot write .*new\.json: Permission denied; .*choose a folder"):
        store.stage(read_only_folder / "new.json", forbidden, parameters={})
    with pytest.raises(PermissionError, match=r"cannot write .*deep"):
        store.stage(read_only_folder / "deep" / "new.json", forbidden, parameters={})


def test_a_full_folder_is_reported_before_computing(tmp_path):
    """A file size limit of 10 KB stands in for a full disk: writes fail in the operating system."""
    code = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from graphprune.runs import store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        def forbidden(): raise AssertionError("computed")
        try:
            store.stage(Path({str(tmp_path)!r}) / "x.json", forbidden, parameters={{}})
        except OSError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert "free some space" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == []


def test_wrong_arguments_are_refused_before_computing(tmp_path):
    with pytest.raises(ValueError, match=r"x\.npz.*\.json, \.parquet, \.safetensors"):
        store.stage(tmp_path / "x.npz", forbidden, parameters={})
    with pytest.raises(ValueError, match=r"modules: 'sarch' is no module.*runs\.store"):
        store.stage(tmp_path / "x.json", forbidden, parameters={}, modules=["sarch"])
    with pytest.raises(FileNotFoundError, match=r"inputs.*gone\.csv"):
        store.stage(tmp_path / "x.json", forbidden, parameters={}, inputs=[tmp_path / "gone.csv"])
    with pytest.raises(TypeError, match="is a path"):
        store.stage(tmp_path / "x.json", forbidden, parameters={"file": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("a.json", {1, 2}), ("a.parquet", [1]), ("a.safetensors", {"w": [1.0]}), ("a.safetensors", torch.ones(1))],
)
def test_a_value_of_the_wrong_kind_is_refused_and_the_old_one_stays(tmp_path, name, value):
    old = VALUES[next(key for key in VALUES if key.endswith(Path(name).suffix))]
    store.save(tmp_path / name, old, {})
    with pytest.raises(TypeError, match=Path(name).suffix):
        store.save(tmp_path / name, value, {})
    assert same(store.load(tmp_path / name), old)


def test_loading_what_is_not_there_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no artefact .*x\.json: run the stage"):
        store.load(tmp_path / "x.json")


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_are_written_as_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "hardware", lambda: "2 cores Abacus")
    results = store.Results(tmp_path / "tables" / "results.csv")
    results.add("z_accuracy", 1.0, "share")
    results.add("parameters", 14_728_266, "count", seeds="0")
    results.add("latency", np.float32(3.25), "ms", n=30, low=3.0, high=4, volatile=True, note='batch 1, "warm"')
    results.add("plan", "tables", "text")
    results.add("z_accuracy", 0.98251234, "share", n=5, low=0.97, high=0.99, seeds="0-4")
    results.save()
    with (tmp_path / "tables" / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["name", "value", "unit", "n", "low", "high", "seeds", "hardware", "volatile", "note"],
        ["z_accuracy", "0.982512", "share", "5", "0.97", "0.99", "0-4", "2 cores Abacus", "no", ""],
        ["parameters", "14728266", "count", "1", "", "", "0", "2 cores Abacus", "no", ""],
        ["latency", "3.25", "ms", "30", "3", "4", "", "2 cores Abacus", "yes", 'batch 1, "warm"'],
        ["plan", "tables", "text", "1", "", "", "", "2 cores Abacus", "no", ""],
    ]
    assert results.frame().to_numpy().tolist() == rows[1:]
    first = results.path.read_bytes()
    results.save()
    assert results.path.read_bytes() == first
    assert b"\r" not in first


def test_a_row_without_name_unit_or_runs_is_refused(tmp_path):
    results = store.Results(tmp_path / "r.csv")
    with pytest.raises(ValueError, match="unit=''"):
        results.add("accuracy", 1.0, "")
    with pytest.raises(ValueError, match="n=0"):
        results.add("accuracy", 1.0, "share", n=0)
    assert results.rows == {}
