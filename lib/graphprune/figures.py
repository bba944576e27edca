"""One look for every figure, and a file for each that only changes when the figure does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def style() -> None:
    """Seaborn's white grid with a colour-blind safe palette, for all figures of a notebook."""
    import seaborn

    seaborn.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 100, "svg.hashsalt": "0"})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the date or the software's name, so that equal figures are equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
