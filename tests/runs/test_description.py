"""What results are stored under: settings, somebody's own code in files and in notebooks, networks."""

import functools
import importlib
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import graphprune
from graphprune import contrast, data, importance, search
from graphprune.ranking.rankers import LogWidths, Similarity
from graphprune.runs.description import described, modules, network
from graphprune.runs.store import digest
from graphprune.training.recipe import Recipe


def key(value: Any) -> str:
    return digest(described(value))


# --- the library's own ------------------------------------------------------------------------------------------------


def test_what_is_the_library_s_stands_by_its_name() -> None:
    assert described(LogWidths("layers")) == ["LogWidths", {"per": "layers"}]
    assert described(contrast.loss_printed) == "graphprune.encoders.contrast.loss_printed"
    assert described({"rules": [importance.l1, torch.nn.functional.relu], "n": 2}) == {
        "rules": ["graphprune.pruning.importance.l1", "torch.nn.functional.relu"],
        "n": 2,
    }


def test_modules_are_those_of_all_that_is_held() -> None:
    assert modules(LogWidths("layers")) == ("ranking.rankers",)
    assert modules({"a": [LogWidths("layers"), functools.partial(importance.l1)]}) == ("pruning.importance", "ranking.rankers")
    assert modules(Similarity()) == ("encoders.contrast", "ranking.rankers")
    assert modules(data.load("digits", device="cpu")) == ()


def test_a_data_set_stands_by_its_fingerprint() -> None:
    digits = data.load("digits", device="cpu")
    assert described({"data": digits}) == {"data": digits.fingerprint()}


# --- somebody's own file ----------------------------------------------------------------------------------------------

MINE = """
from dataclasses import dataclass
import helping
from graphprune.ranking import proxies
from graphprune.ranking.rankers import Ranker
SCALE = 2.0

def add(x):
    return helping.double(x) + 1

@dataclass(frozen=True)
class Mine(Ranker):
    factor: float = 1.0
    def prepare(self, graph, model):
        return lambda indices: self.factor * SCALE * indices.double().sum(1)

class Bare:
    def __init__(self, factor):
        self.factor = factor
    def prepare(self, graph, model):
        return lambda indices: indices.double().sum(1)

def maker(n):
    def inner(x):
        return x + n
    return inner
"""


class Files:
    """A module `mine` and its helper `helping`, written and imported anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, mine: str = MINE, helping: str = "def double(x):\n    return 2 * x\n") -> Any:
        for name, text in (("mine", mine), ("helping", helping)):
            (self.folder / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("mine")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Files(tmp_path)
    for name in ("mine", "helping"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("what", [lambda m: m.add, lambda m: m.Mine(), lambda m: m.Mine, lambda m: m.Bare(1)])
def test_an_edited_file_is_another_key(files: Files, what: Any) -> None:
    first = key(what(files.write()))
    assert key(what(files.write())) == first
    assert key(what(files.write("# a comment" + MINE.replace("def add", "\n\n\ndef add")))) == first
    edited = key(what(files.write(MINE.replace("sum(1)", "sum(1) / 2"))))
    helped = key(what(files.write(helping="def double(x):\n    return x + x\n")))
    assert len({first, edited, helped}) == 3


def test_fields_and_attributes_count(files: Files) -> None:
    mine = files.write()
    assert len({key(mine.Mine()), key(mine.Mine(2.0)), key(mine.Bare(1)), key(mine.Bare(2))}) == 4


def test_what_a_file_imports_of_the_library_counts_as_a_module(files: Files) -> None:
    assert modules(files.write().Mine()) == ("ranking.proxies", "ranking.rankers")


def test_functions_of_one_name_differ_by_what_they_close_over(files: Files) -> None:
    mine = files.write()
    assert key(mine.maker(1)) != key(mine.maker(2))
    assert key(mine.maker(1)) == key(mine.maker(1))
    assert key(functools.partial(mine.add, 1)) != key(functools.partial(mine.add, 2))


def test_a_constant_set_while_the_program_runs_counts(files: Files) -> None:
    mine = files.write()
    before = key(mine.Mine())
    mine.SCALE = 3.0
    assert key(mine.Mine()) != before


# --- a notebook's cells -----------------------------------------------------------------------------------------------


def cell(text: str, known: dict[str, Any] | None = None) -> SimpleNamespace:
    """What a cell defines, as an interpreter leaves it: no file has its source."""
    names = {"__name__": "__main__", "torch": torch, "dataclass": dataclass, **(known or {})}
    exec(compile(textwrap.dedent(text), "<cell>", "exec"), names)
    return SimpleNamespace(**{name: value for name, value in names.items() if name[:2] != "__"})


def test_an_edited_cell_is_another_key() -> None:
    texts = [
        "def f(x): return g(x) + K\ndef g(x): return x * 2\nK = 1",
        "def f(x): return g(x) + K\ndef g(x): return x * 3\nK = 1",
        "def f(x): return g(x) + K\ndef g(x): return x * 2\nK = 2",
        "def f(x, n=1): return g(x) + K\ndef g(x): return x * 2\nK = 1",
        "def f(x, n=2): return g(x) + K\ndef g(x): return x * 2\nK = 1",
        "def f(x): return torch.relu(x)",
        "def f(x): return torch.sigmoid(x)",
        "f = lambda x: x + 1",
        "f = lambda x: x + 2",
        "f = [lambda x, n=n: x + n for n in range(3)][1]",
        "f = [lambda x, n=n: x + n for n in range(3)][2]",
    ]
    assert len({key(cell(text).f) for text in texts}) == len(texts)
    assert [key(cell(text).f) for text in texts] == [key(cell(f"# moved\n\n{text}").f) for text in texts]


def test_an_edited_class_of_a_cell_is_another_key() -> None:
    text = """
    class Base:
        depth = 2
        def prepare(self, graph, model): return self.score
    @dataclass(frozen=True)
    class Mine(Base):
        n: int = 1
        def score(self, x): return x * self.n
        @property
        def twice(self): return 2 * self.n
    f = Mine()
    """
    changes = [("x * self.n", "x + self.n"), ("depth = 2", "depth = 3"), ("2 * self.n", "3 * self.n"), ("Mine()", "Mine(2)")]
    edited = [key(cell(text.replace(*change)).f) for change in changes]
    assert len({key(cell(text).f), *edited}) == len(changes) + 1
    assert key(cell(text).f) == key(cell(text).f)


def test_a_function_that_calls_itself_has_a_key() -> None:
    text = "def f(n): return 1 if n < 2 else n * f(n - 1)"
    assert key(cell(text).f) == key(cell(text).f)


def test_what_cannot_be_hashed_is_refused_with_a_remedy() -> None:
    draws = torch.Generator()
    for value in (draws, {"a": [draws]}, cell("def f(x): return draws", {"draws": draws}).f, object()):
        with pytest.raises(TypeError, match=r"it cannot be known whether it changed; give plain data.*fingerprint\(\)"):
            described(value)


def test_a_class_may_say_itself_what_it_comes_from() -> None:
    text = """
    class Mine:
        def __init__(self, n): self.draws, self.n = torch.Generator(), n
        def fingerprint(self): return self.n
    """
    mine = cell(text).Mine
    assert key(mine("a")) == key(mine("a")) != key(mine("b"))


# --- networks ---------------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, scale: float, act: Any = torch.relu) -> None:
        super().__init__()
        self.scale, self.act, self.up = scale, act, [self]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.scale * x)


def test_networks_of_equal_weights_differ_by_what_they_compute() -> None:
    conv = nn.Conv2d(2, 2, 3)
    strided = nn.Conv2d(2, 2, 3, stride=2)
    strided.load_state_dict(conv.state_dict())
    nets = [nn.Sequential(conv), nn.Sequential(strided), nn.Sequential(conv, nn.ReLU()), nn.Sequential(conv, nn.GELU())]
    nets += [nn.Sequential(conv, Scaled(1.0)), nn.Sequential(conv, Scaled(2.0)), nn.Sequential(conv, Scaled(1.0, torch.tanh))]
    nets += [nn.Sequential(nn.BatchNorm1d(2)), nn.Sequential(nn.BatchNorm1d(2, eps=0.1))]
    assert len({network(net) for net in nets}) == len(nets)


def test_a_network_s_key_is_that_of_its_copy_and_of_its_other_mode() -> None:
    one, other = (graphprune.models.seeded("resnet8", 0, in_channels=1) for _ in range(2))
    assert network(one.eval()) == network(other.train())
    assert network(one) != network(graphprune.models.seeded("resnet8", 1, in_channels=1))


def test_a_network_s_own_code_counts(files: Files) -> None:
    text = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x + 1\n"
    assert network(files.write(text).Net()) != network(files.write(text.replace("+ 1", "+ 2")).Net())


# --- a search ---------------------------------------------------------------------------------------------------------


def test_an_edited_ranker_of_one_s_own_ranks_again_in_the_same_folder(files: Files, tmp_path: Path) -> None:
    """The last group pruned least, then the last group pruned most: the networks found must differ."""
    digits, model = data.load("digits", device="cpu"), graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    graph, recipe = graphprune.trace(model, digits.example()), Recipe(epochs=0.1, lr=0.05, batch_size=64)

    def found(text: str) -> list[list[int]]:
        sizes: dict[str, Any] = {"m": 2, "k": 1, "n_candidates": 60, "n_jobs": 1}
        ranker = files.write(text).Mine()
        run = search.sacp(
            model, graph, digits, min_ratio=0.1, light=recipe, full=recipe, folder=tmp_path, ranker=ranker, **sizes
        )
        return run.trials["indices"].tolist()

    first = found(MINE)
    edited = found(MINE.replace("self.factor * SCALE", "-self.factor * SCALE"))
    assert first != edited
    assert found(MINE) == first
