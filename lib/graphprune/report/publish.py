"""Compare a profile's run with its committed results, and copy it there without what varies from run to run.

A table is replaced only when something outside its volatile part differs: that part is the rows marked `volatile` and
the columns of seconds, latencies, dates or hardware. A figure is replaced only when its picture differs; one whose file
name holds such a word (`latency.png`) is published once and then stays.
"""

import re
from pathlib import Path

import pandas as pd

from graphprune.report import notebook
from graphprune.runs import runtime, safe_files

RESULTS = "results.csv"
VOLATILE = re.compile(r"(?<![a-z])(seconds|latency|ms|date|time|hardware)(?![a-z])")
SHOWN = 8  # differing cells printed per table


def compare(profile: str = notebook.LAPTOP) -> list[str]:
    """Lines that say how the tables of a profile's run differ from the committed ones, volatile parts aside.

    Raises:
        ValueError: the profile is unknown.
    """
    committed = _committed(profile)
    lines = []
    for name, table in _tables(profile).items():
        lines += _differences(f"{profile}/{name}", _read(committed / name), table)
    return lines or [f"{profile}: no notebook has finished, nothing to compare"]


def publish(profile: str = notebook.LAPTOP) -> list[Path]:
    """Copy figures, tables and the merged results of a profile's finished notebooks to `reports/<profile>`.

    What a notebook used to write and no longer does is removed there; other notebooks' results stay.

    Returns:
        the files that changed, relative to the project.
    Raises:
        ValueError: the profile is unknown.
        FileNotFoundError: no notebook has finished under it.
    """
    committed, changed = _committed(profile), []
    if not _finished(profile):
        raise FileNotFoundError(f"profile={profile!r} has no finished run: make report PROFILE={profile} first")
    for stem in _finished(profile):
        sources = [file for file in notebook.outputs(runtime.run_dir(profile) / stem) if file.name != RESULTS]
        (committed / stem).mkdir(parents=True, exist_ok=True)
        for stale in {file.name for file in notebook.outputs(committed / stem)} - {file.name for file in sources}:
            (committed / stem / stale).unlink()
            changed.append(committed / stem / stale)
        for source in sources:
            if not _same(source, committed / stem / source.name):
                safe_files.replace(committed / stem / source.name, source.read_bytes())
                changed.append(committed / stem / source.name)
        if not any((committed / stem).iterdir()):
            (committed / stem).rmdir()
    results = _merged(profile)
    if len(results) and not _equal(results, _read(committed / RESULTS)):
        safe_files.replace(committed / RESULTS, results.to_csv(index=False, lineterminator="\n").encode())
        changed.append(committed / RESULTS)
    return [path.relative_to(runtime.root()) for path in changed]


def _committed(profile: str) -> Path:
    notebook.check_profile(profile)
    return runtime.root() / "reports" / profile


def _finished(profile: str) -> list[str]:
    folder = runtime.run_dir(profile)
    stems = sorted(file.stem for file in folder.glob("[0-9]*.ipynb") if not file.stem.endswith(".failed"))
    return [stem for stem in stems if not (folder / f"{stem}.failed.ipynb").exists()]


def _tables(profile: str) -> dict[str, pd.DataFrame]:
    tables = {}
    for stem in _finished(profile):
        for file in notebook.outputs(runtime.run_dir(profile) / stem):
            if file.suffix == ".csv" and file.name != RESULTS:
                tables[f"{stem}/{file.name}"] = _text(file)
    merged = _merged(profile)
    return tables | ({RESULTS: merged} if len(merged) else {})


def _merged(profile: str) -> pd.DataFrame:
    """Every notebook's results with its name in front; a notebook whose stable numbers are the same keeps its rows."""
    committed = _read(_committed(profile) / RESULTS)
    old: dict[str, pd.DataFrame] = {}
    if committed is not None:
        old = {str(stem): rows for stem, rows in committed.groupby("notebook")}
    blocks = dict(old)
    for stem in _finished(profile):
        blocks.pop(stem, None)
        file = runtime.run_dir(profile) / stem / RESULTS
        if file.exists():
            new = _text(file)
            new.insert(0, "notebook", stem)
            blocks[stem] = old[stem] if _equal(new, old.get(stem)) else new
    ordered = [blocks[stem] for stem in sorted(blocks)]
    return pd.concat(ordered, ignore_index=True).fillna("") if ordered else pd.DataFrame()


def _text(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)  # text: no digit is lost or gained


def _read(file: Path) -> pd.DataFrame | None:
    return _text(file) if file.exists() else None


def _stable(table: pd.DataFrame) -> pd.DataFrame:
    if "volatile" in table:
        table = table[table["volatile"] != "yes"]
    return table[[name for name in table.columns if not VOLATILE.search(str(name))]].reset_index(drop=True)


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    """What the rows of a table are, volatile ones included: adding or dropping such a row is a change."""
    return table[[name for name in ("notebook", "name") if name in table]].reset_index(drop=True)


def _equal(new: pd.DataFrame, old: pd.DataFrame | None) -> bool:
    return (
        old is not None and list(new) == list(old) and _stable(new).equals(_stable(old)) and _labels(new).equals(_labels(old))
    )


def _same(new: Path, old: Path) -> bool:
    if not old.exists():
        return False
    if new.suffix == ".csv":
        return _equal(_text(new), _text(old))
    if VOLATILE.search(new.stem) or new.read_bytes() == old.read_bytes():
        return True
    return _pixels_equal(new, old) if new.suffix == ".png" else _drawing(new) == _drawing(old)


def _pixels_equal(new: Path, old: Path) -> bool:
    import numpy as np
    from matplotlib.image import imread

    return np.array_equal(imread(new), imread(old))


def _drawing(file: Path) -> str:
    """An SVG without its date, its random ids numbered in order of appearance."""
    ids: dict[str, str] = {}
    text = re.sub(r"<dc:date>.*?</dc:date>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r'(id="|url\(#|href="#)([^")]+)', lambda m: m[1] + ids.setdefault(m[2], str(len(ids))), text)


def _differences(name: str, old: pd.DataFrame | None, new: pd.DataFrame) -> list[str]:
    if old is None:
        return [f"{name}: new, {len(new)} rows"]
    if _equal(new, old):
        return [f"{name}: as committed"]
    if list(new) != list(old):
        return [f"{name}: columns were {', '.join(map(str, old))} and are {', '.join(map(str, new))}"]
    before, after = _stable(old), _stable(new)
    if len(new) != len(old) or len(before) != len(after):
        return [f"{name}: {len(old)} rows before, {len(new)} now"]
    lines = []
    for row, (was, now) in enumerate(zip(before.to_numpy(), after.to_numpy(), strict=True)):
        pairs = zip(after.columns, was, now, strict=True)
        lines += [f"  {_label(after, row)} {column}: {x} -> {y}" for column, x, y in pairs if x != y]
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"{name}: {len(lines)} of {after.size} values differ", *lines[:SHOWN], *more]


def _label(table: pd.DataFrame, row: int) -> str:
    names = [table[name].iloc[row] for name in ("notebook", "name") if name in table]
    return " ".join(names) or f"row {row + 1}"
