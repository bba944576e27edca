"""README and docs: numbers have a row in `reports/` that made them, snippets run, links and commands lead somewhere."""

import re
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from dask_cluster import cluster

import graphprune
from graphprune.__main__ import _parser, _value
from graphprune.report.notebook import settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
each_page = pytest.mark.parametrize("page", TEXT)


# --- numbers ------------------------------------------------------------------------------------------------------------

SOURCE = r"`(?P<profile>\w+)/(?P<notebook>\w+): (?P<name>[^`]+)`"
ROW = re.compile(rf"^\| (?P<what>.+?) \| (?P<value>.+?) \| {SOURCE} \|$", re.MULTILINE)
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")


def rows(page: str) -> list[re.Match[str]]:
    return list(ROW.finditer(TEXT[page]))


def test_readme_has_a_page_and_a_half() -> None:
    assert len(TEXT["README.md"].splitlines()) <= 150
    assert len(TEXT["README.md"].encode()) <= 8_000


def test_readme_has_ten_numbers_at_most_and_docs_have_the_rest() -> None:
    assert 5 <= len(rows("README.md")) <= 10
    assert len(rows("docs/results.md")) >= 60
    written = sum(TEXT["README.md"].count(f"`{profile}/") for profile in ("laptop", "long", "paper"))
    assert written == len(rows("README.md")), "a row that is not written as a row is not checked"


@pytest.mark.parametrize(
    "row", [row for page in TEXT for row in rows(page)], ids=lambda row: f"{row['profile']}: {row['name']}: {row['value']}"
)
def test_numbers_are_those_of_the_report(row: re.Match[str]) -> None:
    results = pd.read_csv(ROOT / "reports" / row["profile"] / "results.csv", dtype=str, keep_default_na=False)
    found = results[(results["notebook"] == row["notebook"]) & (results["name"] == row["name"])]
    assert len(found) == 1, f"no row {row['name']!r} of {row['notebook']} in reports/{row['profile']}/results.csv"
    known = [float(text) for text in found[["value", "low", "high"]].iloc[0] if text]
    for text in NUMBER.findall(row["value"].replace("95 %", "").replace("−", "-")):
        digits = len(text.partition(".")[2])
        assert float(text) in {round(number, digits) for number in known}, f"{text} is none of {known}"


# --- links --------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


@each_page
def test_links_lead_somewhere(page: str) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", TEXT[page], flags=re.DOTALL)):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        if "://" in target:
            continue
        if not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8"))):
            lost.append(target)
    assert lost == []


def test_glossary_defines_a_term_once() -> None:
    terms = re.findall(r"^### (.+)$", TEXT["docs/glossary.md"], re.MULTILINE)
    assert len(terms) == len(set(terms)) >= 50
    bodies = re.split(r"^##+ .+$", TEXT["docs/glossary.md"], flags=re.MULTILINE)
    assert max(len(re.findall(r"[.!?](?:\s|$)", body.strip())) for body in bodies[1:]) <= 4, "a sentence or two, three at most"


# --- Python -------------------------------------------------------------------------------------------------------------


def blocks(page: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", TEXT[page], re.DOTALL | re.MULTILINE)


PYTHON = [page for page in TEXT if blocks(page, "python")]


@pytest.fixture(scope="module", params=PYTHON)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A page, and what its snippets made, run one after the other in an empty folder."""
    page, folder = request.param, tmp_path_factory.mktemp("page")
    scope: dict[str, Any] = {"__name__": "__main__"}  # as a script or a notebook has it
    (folder / "shared").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with cluster(folder / "shared") if "shared/scheduler.json" in TEXT[page] else nullcontext():
            for number, snippet in enumerate(blocks(page, "python"), 1):
                exec(compile(snippet, f"{page}, snippet {number}", "exec"), scope)
    return page, scope


def test_snippets_run_and_do_what_they_say(ran: tuple[str, dict[str, Any]]) -> None:
    page, made = ran
    assert made
    PROMISES.get(page, lambda made: None)(made)


def macs(model: Any, example: Any) -> int:
    return graphprune.cost(model, example).macs


def promise_readme(made: dict[str, Any]) -> None:
    assert 0.49 < macs(made["small"].network, made["image"]) / macs(made["model"], made["image"]) <= 0.5
    assert all(width % 8 == 0 for width in made["small"].widths["after"])
    assert len(blocks("README.md", "python")) == 1
    assert len(blocks("README.md", "python")[0].splitlines()) <= 10


def promise_own_network(made: dict[str, Any]) -> None:
    assert made["program"].module()(made["image"]).shape == (1, 10)
    assert set(made["result"].trials["stage"]) == {"light", "full"}
    assert made["result"].best["ratio"] >= 0.3
    assert len(made["own_result"].trials) == 4
    assert macs(made["result"].model, made["image"]) <= 0.4 * macs(made["model"], made["image"])
    assert macs(made["small"], made["image"]) <= 0.5 * macs(made["model"], made["image"])
    assert graphprune.train.evaluate(made["small"], made["data"].val).accuracy > 0.3, "far above chance, which is 0.1"
    assert made["done"]
    assert made["compared"]["method"].tolist() == ["mine", "random", "L1"]
    assert bool((made["compared"]["macs"] <= 0.5).all())
    assert macs(made["tuned"], made["image"]) <= 0.5 * macs(made["model"], made["image"])
    assert len(made["history"]) == 1
    left, whole = (sum(p.numel() for p in made[name].parameters()) for name in ("small_bert", "bert"))
    assert left < 0.4 * whole, "its width is pruned too"
    assert 0 < made["found"].value < made["most"].value < 1


def promise_training_elsewhere(made: dict[str, Any]) -> None:
    assert macs(made["net"], made["images"][:1]) <= 0.5 * macs(made["model"], made["images"][:1])
    with torch.no_grad():
        assert made["again"](made["images"]).logits.allclose(made["net"](made["images"]).logits)
    for block in blocks("docs/training_elsewhere.md", "py"):  # packages that the tests do not install
        compile(block, "docs/training_elsewhere.md", "exec")


def promise_clusters(made: dict[str, Any]) -> None:
    alone, spread = (made[name].trials.drop(columns="seconds") for name in ("result", "spread"))
    assert spread.equals(alone)


def promise_data_sets(made: dict[str, Any]) -> None:
    assert [len(part) for part in (made["data"].train, made["data"].val, made["data"].test)] == [1137, 300, 360]
    assert tuple(made["images"].shape) == (64, 1, 8, 8)


def promise_contributing(made: dict[str, Any]) -> None:
    example = torch.zeros(1, 1, 8, 8)
    assert macs(made["small"], example) < 0.5 * macs(made["model"], example)
    _, params = graphprune.CostModel(made["graph"], example).of_rates(made["indices"])
    assert (made["indices"] == made["best"]).all(1).nonzero()[0] == params.argmin()


PROMISES = {
    "CONTRIBUTING.md": promise_contributing,
    "README.md": promise_readme,
    "docs/own_network.md": promise_own_network,
    "docs/clusters.md": promise_clusters,
    "docs/data_sets.md": promise_data_sets,
    "docs/training_elsewhere.md": promise_training_elsewhere,
}


# --- shell --------------------------------------------------------------------------------------------------------------

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
FILE = re.compile(r"^(?:notebooks|lib|tests|docs|reports|benchmarks|data)/\S+|^\S+\.(?:yml|toml|lock|py|ipynb)$")


def commands(page: str) -> list[list[str]]:
    """The commands of a page's shell blocks, and those that stand as code in its text, in words; comments are left out."""
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    prose = re.sub(r"```.*?```", "", TEXT[page], flags=re.DOTALL)
    inline = re.findall(r"`((?:make|(?:\S*/)?python -m graphprune) [^`]+)`", prose)
    lines = [part for line in [*shell.splitlines(), *inline] for part in line.split(" && ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def trouble(words: list[str]) -> str:
    """Why a command cannot work here; empty if nothing speaks against it."""
    if words[0] == "make":
        unknown = [word for word in words[1:] if "=" not in word and word not in TARGETS]
        profile = [word.removeprefix("PROFILE=") for word in words if word.startswith("PROFILE=")]
        missing = [name for name in profile if name != "laptop" and not (ROOT / "notebooks/profiles" / f"{name}.yaml").exists()]
        return f"no make target {unknown}" if unknown else f"no profile {missing}" if missing else ""
    if words[1:3] == ["-m", "graphprune"]:
        options = _parser().parse_args(words[3:])  # exits where the arguments are not known
        if words[3] == "run":
            settings(ROOT / options.notebook, options.profile, {name: _value(text) for name, text in options.parameters})
        return ""
    lost = [word for word in words if FILE.match(word) and not (ROOT / word).exists()]
    return f"no file {lost}" if lost else ""


@each_page
def test_commands_name_what_is_there(page: str) -> None:
    assert {" ".join(words): why for words in commands(page) if (why := trouble(words))} == {}


def test_a_command_that_cannot_work_is_found() -> None:
    assert trouble(["make", "tset"]) == "no make target ['tset']"
    assert trouble(["make", "report", "PROFILE=cifra"]) == "no profile ['cifra']"
    assert trouble(["python", "benchmarks/none.py"]) == "no file ['benchmarks/none.py']"
    with pytest.raises(ValueError, match="seedz"):
        trouble(["python", "-m", "graphprune", "run", "notebooks/03_search.ipynb", "-p", "seedz", "[1]"])
    with pytest.raises(SystemExit):
        trouble(["python", "-m", "graphprune", "rnu", "notebooks/03_search.ipynb"])


def test_commands_are_found() -> None:
    assert ["make", "report"] in commands("README.md")
    assert ["make", "test"] in commands("README.md")
