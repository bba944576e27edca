"""The tables of `reports/`, README and docs against what is stored in the notebooks: the same numbers everywhere.

nbval compares stored outputs with a new run, but not cells that measure time; `make report` compares a new run with
`reports/`, but not what varies from run to run. Here nothing runs: a number that two files tell must be the same in both.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_readme import NUMBER, TEXT, rows

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports" / "laptop"
STEMS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@dataclass(frozen=True)
class Shown:
    """A table stored in a notebook: names of its columns, the index's empty if it has none, and its cells as text."""

    columns: list[str]
    body: list[list[str]]


def outputs(stem: str) -> list[Any]:
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


def parse(html: str) -> Iterator[Shown]:
    """The tables of an output, as pandas writes them; a cell that spans rows is repeated, spanning columns are left out."""
    for table in BeautifulSoup(html, "html.parser").find_all("table"):
        head = [[cell for cell in row.find_all("th")] for row in table.thead.find_all("tr")]
        if any(int(cell.get("colspan", 1)) > 1 for row in head for cell in row):
            continue
        columns = [cell.get_text() for cell in head[0]]
        if len(head) > 1:  # pandas writes the index's names in a row of their own
            columns = [low.get_text() or name for name, low in zip(columns, head[1], strict=True)]
        body: list[list[str]] = []
        for row in table.tbody.find_all("tr"):
            cells = [cell.get_text() for cell in row.find_all(["th", "td"])]
            above = body[-1][: len(columns) - len(cells)] if len(cells) < len(columns) else []
            body.append([*above, *cells])
        yield Shown(columns, body)


def shown_tables(stem: str) -> list[Shown]:
    return [table for output in outputs(stem) for table in parse(output.get("data", {}).get("text/html", ""))]


def reported(stem: str) -> dict[str, pd.DataFrame]:
    """The tables of a notebook in `reports/` and its results, as text; an index without a name has an empty one."""
    files = sorted((REPORTS / stem).glob("*.csv"))
    results = pd.read_csv(REPORTS / "results.csv", dtype=str, keep_default_na=False)
    tables = {"results.csv": results[results["notebook"] == stem]}
    tables |= {file.name: pd.read_csv(file, dtype=str, keep_default_na=False) for file in files}
    return {name: table.rename(columns=lambda column: re.sub(r"^Unnamed: .*", "", column)) for name, table in tables.items()}


def number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("−", "-"))
    except ValueError:
        return None


def decimals(text: str) -> int:
    mantissa, _, exponent = text.lower().partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)


def agree(shown: str, told: str) -> bool:
    """Whether two cells say the same: equal text, or numbers equal at the digits of the one that has fewer."""
    a, b = number(shown), number(told)
    if a is None or b is None or a != a or b != b:
        nothing = {"", "nan", "none"}
        return shown == told or {shown.lower(), told.lower()} <= nothing
    return abs(a - b) <= 0.501 * 10.0 ** -min(decimals(shown), decimals(told)) or a == b


def fits(table: Shown, told: pd.DataFrame) -> bool:
    """Whether a table shows rows of a table of the reports: three columns at least, and all of them are there."""
    named = [name for name in table.columns if name]
    words = "" in table.columns and not all(row[table.columns.index("")].isdigit() for row in table.body)
    index_is_told = not words or "" in told.columns  # `describe` has the same columns, and statistics for rows
    return len(named) >= 3 and set(named) <= set(told.columns) and index_is_told


def strangers(table: Shown, told: pd.DataFrame) -> list[list[str]]:
    """The rows shown that the reports do not have."""
    places = [(table.columns.index(name), name) for name in told.columns if name in table.columns]
    places = [(place, name) for place, name in places if name or not table.body[0][place].isdigit()]
    records = told.to_dict("records")
    return [row for row in table.body if not any(all(agree(row[at], other[name]) for at, name in places) for other in records)]


def compared(stem: str) -> dict[int, dict[str, list[list[str]]]]:
    """For each table shown that is in the reports: the files it may be, each with the rows that it lacks."""
    told = reported(stem)
    found = {}
    for place, table in enumerate(shown_tables(stem)):
        if files := {name: strangers(table, frame) for name, frame in told.items() if fits(table, frame)}:
            found[place] = files
    return found


@pytest.mark.parametrize("stem", STEMS)
def test_tables_shown_are_those_of_the_reports(stem: str) -> None:
    assert {place: files for place, files in compared(stem).items() if all(files.values())} == {}


def test_many_tables_are_compared() -> None:
    found = {stem: len(compared(stem)) for stem in STEMS}
    assert found["01_graph_construction"] == 6
    assert sum(found.values()) >= 15


def test_another_number_another_name_and_a_row_too_many_are_found() -> None:
    told = pd.DataFrame({"network": ["a", "b"], "MACs": ["1.2345", "2"], "saved": ["10", "nan"]})
    table = Shown(["", "network", "MACs", "saved"], [["0", "a", "1.23", "10.0"], ["1", "b", "2", ""]])
    assert fits(table, told)
    assert strangers(table, told) == []
    for row in (["0", "a", "1.24", "10.0"], ["0", "c", "1.23", "10.0"], ["0", "a", "1.23", "9.0"], ["1", "b", "2", "3"]):
        assert strangers(Shown(table.columns, [*table.body, row]), told) == [row]


def test_a_cell_that_spans_rows_is_repeated() -> None:
    html = (
        "<table><thead><tr><th></th><th>x</th></tr></thead><tbody>"
        "<tr><th rowspan=2>a</th><td>1</td></tr><tr><td>2</td></tr></tbody></table>"
    )
    assert list(parse(html)) == [Shown(["", "x"], [["a", "1"], ["a", "2"]])]


# --- README and docs ----------------------------------------------------------------------------------------------------


def stored_numbers(stem: str) -> list[tuple[float, int]]:
    """The numbers in a notebook's text and stored outputs, each with its decimals."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    for output in outputs(stem):
        html = output.get("data", {}).get("text/html", "")
        texts += [output.get("text", ""), BeautifulSoup(html, "html.parser").get_text(" ")]
    found = re.findall(r"\d[\d,]*(?:\.\d+)?", "\n".join(texts))
    return [(float(text.replace(",", "")), decimals(text)) for text in found]


def is_stored(text: str, numbers: list[tuple[float, int]]) -> bool:
    digits, value = decimals(text), abs(float(text))
    return any(has >= digits and abs(other - value) <= 0.501 * 10.0**-digits for other, has in numbers)


def quotes(page: str, profile: str = "laptop") -> list[re.Match[str]]:
    """The rows of a page's tables that quote a notebook's results under a profile."""
    return [row for row in rows(page) if row["profile"] == profile and row["notebook"] in STEMS]


def lost(quoted: list[re.Match[str]]) -> list[str]:
    numbers = {stem: stored_numbers(stem) for stem in {row["notebook"] for row in quoted}}
    found = [(row, text) for row in quoted for text in NUMBER.findall(row["value"].replace("95 %", "").replace("−", "-"))]
    return [f"{text} of {row['name']}" for row, text in found if not is_stored(text, numbers[row["notebook"]])]


def test_numbers_of_the_readme_stand_in_the_notebooks() -> None:
    assert lost(quotes("README.md")) == []


def test_measured_times_of_the_docs_stand_in_the_notebooks() -> None:
    """They differ from run to run: reports and stored outputs must be of one run. Notebook 03 shows its longer study's."""
    timed = []
    for profile in ("laptop", "long"):
        results = pd.read_csv(REPORTS.parent / profile / "results.csv", dtype=str, keep_default_na=False)
        volatile = set(results[results["volatile"] == "yes"][["notebook", "name"]].itertuples(index=False, name=None))
        timed += [row for page in TEXT for row in quotes(page, profile) if (row["notebook"], row["name"]) in volatile]
    assert timed
    assert lost(timed) == []


def test_a_number_that_is_not_stored_is_found() -> None:
    numbers = [(22.31, 2), (1024.0, 0)]
    assert is_stored("22.3", numbers)
    assert is_stored("-22.31", numbers)
    assert not is_stored("21.0", numbers)
    assert not is_stored("1024.0", numbers), "a coarser number says less"
