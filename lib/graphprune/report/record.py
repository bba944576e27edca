"""What a notebook shows and leaves behind, in one line each: figures, tables and rows of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.report import figures
from graphprune.runs import runtime, safe_files, store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Record:
    """The folder of one notebook's run, and its rows of results. Nothing is written without being shown or returned.

    Args:
        folder: where figures, tables and `results.csv` go.
        results: the rows so far.

    >>> from pathlib import Path
    >>> record = Record(Path("run"), store.Results(Path("run/results.csv")))
    >>> record.rows({"MACs before": 384, "MACs after": 256}, "multiply-adds")
    >>> record.results.frame()["value"].tolist()
    ['384', '256']
    """

    folder: Path
    results: store.Results

    @classmethod
    def of(cls, profile: str, notebook: str) -> Record:
        """The record of a notebook under a profile, with no row yet.

        >>> Record.of("laptop", "01_graph_construction").folder.parts[-2:]
        ('laptop', '01_graph_construction')
        """
        folder = runtime.run_dir(profile) / notebook
        return cls(folder, store.Results(folder / "results.csv"))

    def figure(self, figure: Figure, name: str, alt: str) -> None:
        """Save a figure as PNG, close it, and display the file.

        Args:
            figure: made with pyplot or without.
            name: of the file, without its folder.
            alt: what the picture shows, for those who do not see it.
        """
        import matplotlib.pyplot as plt
        from IPython.display import Image, display

        figures.save(figure, self.folder / name)
        plt.close(figure)
        display(Image(self.folder / name, alt=alt))

    def table(self, table: pd.DataFrame, name: str, digits: int | None = None) -> pd.DataFrame:
        """Write a table as CSV without its index, and return it to be displayed.

        Args:
            name: of the file, without its folder.
            digits: decimals of the numbers in the file; all of them if None.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        written = table if digits is None else table.round(digits)
        safe_files.replace(self.folder / name, written.to_csv(index=False, lineterminator="\n").encode())
        return table

    def rows(self, values: Mapping[str, Any], unit: str, **about: Any) -> None:
        """Add a row of results for each value.

        Args:
            values: name of the row -> number or text.
            unit: of all of them.
            about: what else they have in common; see `store.Results.add`.
        """
        for name, value in values.items():
            self.results.add(name, value, unit, **about)
