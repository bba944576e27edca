"""Run the benchmarks that have `rows()`, each in a process of its own; write reports/benchmarks.csv and .md.

    python benchmarks/gather.py            all of them
    python benchmarks/gather.py NAME ...   these; the other rows stay as they are

A benchmark that fails leaves its former rows, is named in the report, and makes the exit status 1.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from graphprune.runs import runtime

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "reports" / "benchmarks.csv"
REPORT = TABLE.with_suffix(".md")
COLUMNS = ["benchmark", "work", "ours", "unit", "against", "theirs", "ratio", "n", "spread", "hardware"]


def names() -> list[str]:
    """The modules here that define `rows`."""
    files = sorted(HERE.glob("*.py"))
    return [file.stem for file in files if any(isinstance(d, ast.FunctionDef) and d.name == "rows" for d in _top(file))]


def _top(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def run(name: str) -> list[dict[str, object]] | None:
    """The rows of one benchmark, or None where it fails; its output goes through."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        start = time.perf_counter()
        failed = subprocess.run([sys.executable, __file__, "--rows", name, str(out)]).returncode
        print(f"{name}: {'failed' if failed else 'done'} after {time.perf_counter() - start:.0f} s", flush=True)
        return None if failed else json.loads(out.read_text())


def write(table: pd.DataFrame, failed: list[str]) -> None:
    table.to_csv(TABLE, index=False, float_format="%.6g", lineterminator="\n")
    table = pd.read_csv(TABLE)  # so that a row reads the same whether it was measured now or before
    lines = [
        "# Benchmarks",
        "",
        "Ours against a peer, a goal or a limit, both measured in the same run unless the row says otherwise; medians of n. "
        "The ratio says how many times better ours is (of a limit: the share of it that is reached).",
        "",
    ]
    if failed:
        lines += [f"Did not run, so that its rows, if any, are older: {', '.join(failed)}.", ""]
    for hardware, of_hardware in table.groupby("hardware", sort=False):
        lines += [f"Measured on {hardware}.", ""]
        for name, part in of_hardware.groupby("benchmark", sort=False):
            lines += [f"## {name}", "", "| work | ours | unit | against | theirs | ratio | n | spread |", "|" + "---|" * 8]
            lines += [_line(row) for row in part.to_dict("records")] + [""]
    REPORT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _line(row: dict[str, object]) -> str:
    cells = [row["work"], _short(row["ours"]), row["unit"], row["against"], _short(row["theirs"]), _short(row["ratio"])]
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in [*cells, row['n'], row['spread']])} |"


def _short(value: object) -> str:
    """Three digits: 12,300,000; 0.326; 9.3e+12; small whole numbers entire, nothing for NaN."""
    number = float(str(value))
    if number != number:
        return ""
    if number == int(number) and abs(number) < 1e4:
        return f"{number:.0f}"
    if not 1000 <= abs(number) < 1e10:
        return f"{number:.3g}"
    return f"{float(f'{number:.3g}'):,.0f}"


def main(wanted: list[str]) -> int:
    if unknown := set(wanted) - set(names()):
        raise SystemExit(f"{sorted(unknown)[0]!r} is no benchmark with rows(); there are: {', '.join(names())}")
    table = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    failed = []
    for name in wanted or names():
        rows = run(name)
        if rows is None:
            failed.append(name)
            continue
        new = pd.DataFrame(
            [{"benchmark": name, **row, "hardware": runtime.hardware()} for row in rows], columns=COLUMNS
        ).astype({"ratio": float})
        others = table[(table["benchmark"] != name) & table["benchmark"].isin(names())]
        table = new if others.empty else pd.concat([others, new], ignore_index=True)
        table = table.sort_values("benchmark", kind="stable")
        write(table, failed)
    write(table, failed)
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rows"]:
        Path(sys.argv[3]).write_text(json.dumps(importlib.import_module(sys.argv[2]).rows()))
    else:
        sys.exit(main(sys.argv[1:]))
