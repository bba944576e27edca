"""What a contrastive loss asks for: embeddings that are moved freely, without any network, downhill on the loss.

Where nobody chooses (papermill, nbval, a page) the cell's output is a plain picture of the first choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import seaborn
import torch
from IPython.display import Image, display
from ipywidgets import Dropdown, HBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphprune.encoders.contrast import Loss, similarity
from graphprune.report.picture import is_interactive, make_picture
from graphprune.runs.checks import at_least
from graphprune.runs.runtime import seed_generator

ANCHORS = {"one anchor for all rows": True, "an anchor for each row": False}
KINDS = {"own positive": "-", "own negative": "--", "other rows' positives": ":"}


def descend(loss: Loss, shared: bool, rows: int = 16, steps: int = 150, temperature: float = 0.5, seed: int = 0) -> Tensor:
    """Cosines to the anchors while free embeddings in 8 dimensions go down a loss with Adam.

    Args:
        loss: such as `contrast.loss_printed`.
        shared: whether all rows have one anchor, as in reading (a), or each its own.
        rows: triads in the batch, 2 or more.
        steps: of gradient descent.
        temperature: of the similarities.
        seed: of where the embeddings start.

    Returns:
        (steps, 3, rows): for each row the cosine of its anchor with its own positive, with its own negative, and the mean
        over the positives of the other rows.

    >>> from graphprune import contrast
    >>> descend(contrast.loss_printed, shared=True, rows=4, steps=2).shape
    torch.Size([2, 3, 4])
    """
    at_least(2, rows=rows)
    at_least(1, steps=steps)
    z = torch.randn(3, rows, 8, generator=seed_generator(seed, "free embeddings")).requires_grad_()
    optimizer, history = torch.optim.Adam([z], lr=0.05), []
    for _ in range(steps):
        anchor = z[0, :1].expand(rows, -1) if shared else z[0]
        history.append(_cosines(anchor.detach(), z[1].detach(), z[2].detach()))
        optimizer.zero_grad()
        loss(anchor, z[1], z[2], temperature, 1e-8).backward()
        optimizer.step()
    return torch.stack(history)


def _cosines(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    pairs, rows = similarity(anchor, positive, 1.0), len(anchor)
    others = (pairs.sum(1) - pairs.diagonal()) / (rows - 1)
    return torch.stack([pairs.diagonal(), similarity(anchor, negative, 1.0).diagonal(), others])


def draw(axis: Axes, paths: Tensor) -> None:
    """The mean of each kind of cosine over the rows as a line, from the smallest to the largest as a shade.

    Args:
        axis: to draw in.
        paths: (steps, 3, rows), from `descend`.
    """
    palette = seaborn.color_palette("colorblind")
    for path, (kind, line), colour in zip(paths.unbind(1), KINDS.items(), (palette[0], palette[1], palette[7]), strict=True):
        axis.plot(path.mean(1), line, color=colour, label=kind, lw=2)
        axis.fill_between(range(len(path)), path.amin(1), path.amax(1), color=colour, alpha=0.15, lw=0)
    axis.set(ylim=(-1.05, 1.05))


def figure_of(losses: Mapping[str, Loss], name: str, anchors: str) -> Figure:
    """Left: the cosines on their way down one loss; right: where each row ends.

    Args:
        losses: the readings by name.
        name: one of them.
        anchors: one of `ANCHORS`.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    paths = descend(losses[name], ANCHORS[anchors])
    draw(left, paths)
    palette = seaborn.color_palette("colorblind")
    for end, kind, marker, colour in zip(paths[-1][:2], KINDS, "os", palette, strict=False):
        right.plot(range(1, len(end) + 1), end, marker, color=colour, label=kind, ms=7, mfc="none" if marker == "s" else colour)
    left.set(xlabel="step of gradient descent", ylabel="cosine to the anchor", title=f"{name}, {anchors}")
    right.set(xlabel="row (configuration)", title="after the last step", xticks=[1, 4, 8, 12, 16])
    left.legend(fontsize=9, loc="lower right")
    return figure


def show(losses: Mapping[str, Loss]) -> None:
    """The picture of the first loss with one anchor; and two menus above it where a person's notebook runs the cell."""
    name, anchors = next(iter(losses)), next(iter(ANCHORS))
    if is_interactive():
        menus = Dropdown(options=list(ANCHORS), description="anchor"), Dropdown(options=list(losses), description="loss")
        display(HBox(menus))
    picture = display(_png(losses, name, anchors), display_id=True)
    if picture is not None and is_interactive():
        for menu in menus:
            menu.observe(lambda _: picture.update(_png(losses, menus[1].value, menus[0].value)), "value")


def _png(losses: Mapping[str, Loss], name: str, anchors: str) -> Image:
    words = f"Cosines to the anchor while 16 free triads go down the loss {name}, {anchors}, and each row's cosines at the end"
    return make_picture(figure_of(losses, name, anchors), words)
