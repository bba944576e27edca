"""Tables of pruned networks' true accuracies: a ranker is judged on them in seconds, where one search takes a week.

    table = graphprune.tabular.load("digits")
    seen = table[(table.stratum == "U") & (table.part == "report")]

A row is one configuration trained under one seed. Stratum U holds configurations exactly uniform within bands of R(r) and
of MACs, stratum T the best of a million of each ranker, and what searches for a higher score find. Rankers are designed
on `part == "design"` and judged once on `"report"`; one that learns from labels takes them from the former.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphprune.runs import store

__all__ = ["TRUTHS", "Table", "folder", "load", "names", "once", "rates", "save", "scores", "seconds", "truths"]


def __dir__() -> list[str]:
    return __all__


Table = pd.DataFrame
"""One row a configuration and seed:

| column | what |
|---|---|
| indices | rate indices, a list of int, one a group |
| stratum, band | "U" and the band it is uniform in; "T" |
| part | "design" or "report" |
| ratio, macs, macs_share, params | R(r); multiply-adds, and their share of the whole network's; parameters |
| seed | of the fine-tuning |
| accuracy_val, loss_val, accuracy_test, loss_test, seconds | after light fine-tuning |
| full_accuracy_val, ..., full_seconds | after full fine-tuning; NaN where it was not done |
| anew_accuracy_val, ..., anew_seconds | after training from new weights; NaN where it was not done |
| rank_NAME | 1, 2, ...: its place in what the ranker or search NAME found best; NaN elsewhere |
| score_NAME, score_NAME_SEED | what the ranker NAME says, higher = believed better |
| score_default | what the suite's own ranker says |

`table.attrs["card"]` says how it was made.
"""
TRUTHS = ("accuracy_val", "loss_val", "accuracy_test", "loss_test", "seconds")
"""What is measured of a network: shares of correct images, mean cross-entropies in nats, seconds of its training."""


def folder() -> Path:
    """Where the committed tables are: beside the library's sources, wherever they are used from."""
    return Path(__file__).resolve().parents[3] / "reports" / "tabular"


def names() -> list[str]:
    """The tables there are."""
    return sorted(path.stem for path in folder().glob("*.parquet"))


def load(name: str) -> Table:
    """A committed table, checked against the sha256 it was written with.

    Raises:
        ValueError: there is no such table. artifacts.CorruptedError: its file was changed.

    >>> table = load("digits")
    >>> bool((table.groupby("part").size() > 0).all())
    True
    """
    if name not in names():
        raise ValueError(f"name={name!r}: there is no such table; choose from {', '.join(names()) or 'none: make tabular'}")
    path = folder() / f"{name}.parquet"
    table: Table = store.load(path)
    table["indices"] = [row.tolist() for row in table["indices"]]  # parquet reads lists as arrays
    table.attrs["card"] = path.with_suffix(".md").read_text(encoding="utf-8")
    return table


def save(table: Table, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a table small: scores in single precision, bytes of one place of all numbers together, zstd.

    Raises:
        OSError: the folder cannot be written; a table that was there is still there.
    """
    said = {column: np.float32 for column in map(str, table) if column.startswith("score_")}
    store.save(
        path,
        table.astype(said),
        provenance,
        compression="zstd",
        compression_level=19,
        use_dictionary=["stratum", "band", "part"],
        column_encoding=dict.fromkeys(said, "BYTE_STREAM_SPLIT"),
    )


def seconds(name: str) -> pd.DataFrame:
    """What each ranker of a table costs, a row each: seconds to `prepare`, and `per_1000` configurations, on one thread.

    Labels and the looks that a ranker shares with others are not in it.
    """
    return pd.read_csv(folder() / f"{name}_seconds.csv").set_index("ranker")


def once(table: Table) -> Table:
    """A row a configuration, its truths the means over seeds."""
    first, *_ = by_seed = [part.reset_index(drop=True) for _, part in table.groupby("seed")]
    columns = [*TRUTHS, *(f"full_{name}" for name in TRUTHS)]
    return first.assign(**{name: pd.concat([part[name] for part in by_seed], axis=1).mean(axis=1) for name in columns})


def truths(table: Table, column: str) -> np.ndarray:
    """A measured column, (seeds, configurations), in the order of `once`."""
    return np.stack([part[column].to_numpy(np.float64) for _, part in table.groupby("seed")])


def rates(table: Table) -> Tensor:
    """The rate indices, (rows, groups) int64."""
    return torch.tensor(table["indices"].tolist())


def scores(table: Table, name: str) -> np.ndarray:
    """What a ranker says, (its seeds, rows): one row where it has no seed.

    Raises:
        ValueError: no column of the table is of that ranker.
    """
    columns = [column for column in table.columns if re.fullmatch(rf"score_{re.escape(name)}(_\d+)?", column)]
    if not columns:
        raise ValueError(f"name={name!r}: no ranker of that name in this table; its columns are score_NAME or score_NAME_SEED")
    return table[columns].to_numpy(np.float64).T
