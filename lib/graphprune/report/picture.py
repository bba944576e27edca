"""A figure as the output of a notebook's cell: a plain picture, which controls may draw anew where a person runs the cell.

Where a notebook runs without anybody to move a control (papermill, nbval, nbconvert) and where it is only read (GitHub, HTML),
the cell's output is the picture and nothing else, the same bytes each time.
"""

from __future__ import annotations

import io
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import Image
from matplotlib.figure import Figure


def is_interactive() -> bool:
    """Whether the cell that runs was sent by JupyterLab, Notebook or VS Code.

    They send its id with it, nbclient (so papermill and nbconvert) and nbval do not; a widget in a stored notebook would
    have another id each time and show nothing.
    """
    parent: dict[str, Any] = getattr(get_ipython(), "get_parent", dict)()  # a terminal has none
    return "cellId" in parent.get("metadata", {})


def make_picture(figure: Figure, alt: str | None = None) -> Image:
    """The figure as PNG; as in `figures.save` without the software's name, so that equal figures are equal bytes.

    Args:
        alt: what the picture shows, for those who do not see it.

    >>> make_picture(Figure(), "nothing yet").data[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return Image(data=buffer.getvalue(), format="png", alt=alt)
