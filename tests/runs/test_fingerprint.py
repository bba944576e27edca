"""Hashes of code and of parameters: what counts, and what does not."""

import ast
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from graphprune.runs import fingerprint, store


@pytest.fixture
def package(tmp_path, monkeypatch):
    files = {
        "__init__": "def __getattr__(name): ...",
        "low": '"""Doc."""\nX = 1\n',
        "other": "Y = 2",
        "third": "Z = 3",
        "middle": "import torch\nfrom graphprune.low import X\ndef f():\n    from . import third\n    return X",
        "high": "from graphprune import middle\nfrom .other import Y\n",
        "nested/__init__": "from .inner import A",
        "nested/inner": "from ..third import Z\nA = Z",
        "plain": "import graphprune.nested.inner\nimport graphprune_tools",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    return tmp_path


def test_the_sources_are_the_closure_of_all_kinds_of_import(package):
    assert list(fingerprint.sources(["high"])) == ["high", "low", "middle", "other", "third"]
    assert list(fingerprint.sources(["graphprune.middle"])) == ["low", "middle", "third"]
    assert list(fingerprint.sources(["nested"])) == ["nested", "nested.inner", "third"]
    assert list(fingerprint.sources(["plain"])) == ["nested.inner", "plain", "third"]
    assert list(fingerprint.sources(["low", "other"])) == ["low", "other"]


def rewrite(file, text):
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 1, before + 1))


def test_code_counts_and_comments_docstrings_and_layout_do_not(package):
    before = fingerprint.sources(["high"])
    rewrite(package / "low.py", '"""Another text."""\n# why\nX   =   1')
    assert fingerprint.sources(["high"]) == before
    rewrite(package / "low.py", "X = 2")
    assert {name for name, value in fingerprint.sources(["high"]).items() if value != before[name]} == {"low"}


def test_a_change_in_an_imported_module_recomputes(package):
    calls = []
    for text in ("X = 1", "X = 1  # same", "X = 5"):
        rewrite(package / "low.py", text)
        store.stage(package / "x.json", lambda: calls.append("computed"), parameters={}, modules=["high"])
    assert calls == ["computed"] * 2


def test_the_package_itself_is_read_through_its_real_imports():
    assert set(fingerprint.sources(["runs.store"])) == {"runs.fingerprint", "runs.runtime", "runs.safe_files", "runs.store"}


@dataclass(frozen=True)
class Setting:
    lr: float
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Twin:
    lr: float
    steps: tuple[int, ...] = (1, 2)


DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", "None", 0.1, 0.1 + 1e-16 * 2, [], {}, set(), [[]], [1, [2]], [[1], 2], ["12"],
    ["1", "2"],
    {"a": 1}, {"a": 2}, {1: "a"}, {"a": {"b": 1}}, {"a": 1, "b": 1},
    torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int32), torch.tensor([0.0, 1.0]), torch.zeros(0),
    torch.tensor(True), torch.zeros(2, dtype=torch.bfloat16), np.zeros(2), np.zeros(2, dtype=np.int64),
    np.zeros((1, 2)),
    Setting(0.1), Setting(0.2), Setting(0.1, (1, 3)), Twin(0.1), {"lr": 0.1, "steps": (1, 2)},
]  # fmt: skip


def test_digests_of_different_values_differ():
    assert len({store.digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_digests_of_equal_values_are_equal():
    pairs = [
        ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}),
        ({3, 1, 2}, {2, 3, 1}),
        (np.float64(0.5), 0.5),
        (np.int32(3), 3),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
        (torch.arange(6).reshape(2, 3).t(), torch.arange(6).reshape(2, 3).t().contiguous()),
        (Setting(0.1), Setting(0.1, (1, 2))),
    ]
    assert [store.digest(a) == store.digest(b) for a, b in pairs] == [True] * len(pairs)


def test_a_digest_is_the_same_in_every_process():
    value = {"b": {"x", "y", "z"}, "a": [1, 0.1, None], "t": torch.arange(3)}
    assert store.digest(value) == "069b5cff6a301a0adc49d03260ccb999b6947a641cda2736422ccb8302d7cc71"


@pytest.mark.parametrize("value", [Path("x"), object(), len, [Path("x")], {"a": object()}, Setting, np.array([object()])])
def test_what_has_no_stable_hash_is_refused(value):
    with pytest.raises(TypeError, match="digest: "):
        store.digest(value)


def test_a_file_from_elsewhere_names_the_modules_it_imports():
    text = "import graphprune\nimport graphprune.ranking.rankers as r\nfrom . import mine\n"
    text += "from graphprune.pruning.rates import RateSpace"
    assert sorted(fingerprint.graphprune_imports(ast.parse(text))) == ["", "pruning.rates", "ranking.rankers"]


def test_a_public_name_counts_as_the_module_at_its_home() -> None:
    text = "import graphprune.train\nfrom graphprune import importance, prune\nfrom graphprune.data import load"
    homes = ["pruning.channels", "pruning.importance", "training.data", "training.train"]
    assert sorted(fingerprint.graphprune_imports(ast.parse(text))) == homes
