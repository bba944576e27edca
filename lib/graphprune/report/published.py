"""Our runs at desk size as figures: beside what others have published, and by the number of networks fine-tuned lightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from graphprune.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv"
LINES = ("-", "--", ":")
"""Of the first, the second and the third seed, and so on again."""


def draw_accuracy_against_cut(runs: pd.DataFrame, arms: Sequence[str], published: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy against the share of multiply-adds removed, a panel for each network.

    Args:
        runs: a row a run: `network`, `arm`, `accuracy`, `MACs removed` and `base accuracy`, in per cent; may be empty.
        arms: the methods compared, at most as many as there are `MARKERS`.
        published: network -> method -> a row with `accuracy` and `flops_cut`, in per cent.

    >>> row = {"network": "resnet20a", "arm": "L1", "accuracy": 90.0, "MACs removed": 50.0, "base accuracy": 91.7}
    >>> figure = draw_accuracy_against_cut(pd.DataFrame([row]), ["L1"], {"resnet20a": {}})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['L1', 'unpruned, ours']
    """
    import matplotlib.pyplot as plt

    figures.style()
    figure, axes = plt.subplots(1, len(published), figsize=(6.5 * len(published), 4.8), squeeze=False, sharex=True)
    for axis, (network, others) in zip(axes[0], published.items(), strict=True):
        own = runs[runs["network"] == network] if len(runs) else runs
        for number, arm in enumerate(arms):
            part = own[own["arm"] == arm] if len(own) else own
            if len(part):
                style = {"color": f"C{number}", "marker": MARKERS[number], "s": 44, "zorder": 3}
                axis.scatter(part["MACs removed"], part["accuracy"], label=arm, **style)
        if len(own):
            axis.axhline(own["base accuracy"].iloc[0], color="0.5", ls="--", lw=1, label="unpruned, ours")
        _name_points(axis, others)
        axis.margins(x=0.15)
        axis.set(title=network, xlabel="MACs removed, % (published: FLOPs)", ylabel="accuracy, %")
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _name_points(axis: Axes, others: Mapping[str, Any]) -> None:
    for method, row in others.items():
        axis.scatter(row.flops_cut, row.accuracy, s=40, facecolor="none", edgecolor="0.4")
        crowded = any(0 < o.flops_cut - row.flops_cut < 6 and abs(o.accuracy - row.accuracy) < 0.4 for o in others.values())
        place, side = ((-5, 2), "right") if crowded else ((5, 2), "left")  # a point at the right: the name goes to the left
        axis.annotate(
            method, (row.flops_cut, row.accuracy), place, textcoords="offset points", ha=side, fontsize=8, color="0.3"
        )


def _style(arms: Sequence[str], arm: Any, run: pd.DataFrame) -> dict[str, Any]:
    """How a run's line looks: a colour and a mark for its arm, dashes for its seed."""
    number = arms.index(arm)
    return {"color": f"C{number}", "marker": MARKERS[number], "ls": LINES[run["seed"].iloc[0] % len(LINES)]}


def draw_widths(widths: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """The share of every group's channels that the chosen networks keep: a panel for each network and cost, a line a run.

    Args:
        widths: a row a group: `network`, `aim`, `arm`, `seed`, `group`, `channels`, `kept`, in the order of the data flow.
        arms: the methods compared, in the order of their colours, which are those of `draw_accuracy_against_cut`.

    >>> row = {"network": "resnet20a", "aim": 0.5, "arm": "SACP", "seed": 0, "channels": 16}
    >>> rows = [row | {"group": "conv1", "kept": 8}, row | {"group": "layer1.0.conv1", "kept": 1}]
    >>> axis = draw_widths(pd.DataFrame(rows), ["L1", "SACP"]).axes[0]
    >>> axis.lines[0].get_ydata().tolist(), [label.get_text() for label in axis.get_xticklabels()]
    ([50.0, 6.25], ['conv1', 'layer1.0.conv1'])
    """
    import matplotlib.pyplot as plt

    figures.style()
    panels = list(widths.groupby(["network", "aim"]))
    size = (11, 0.6 + 3 * len(panels))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, ((network, aim), panel) in zip(axes[:, 0], panels, strict=True):
        for (arm, seed), part in panel.groupby(["arm", "seed"], sort=False):
            kept = 100 * part["kept"] / part["channels"]
            axis.plot(part["group"], kept, lw=1, ms=5, label=f"{arm}, seed {seed}", **_style(arms, arm, part))
        axis.tick_params(axis="x", labelrotation=90, labelsize=8)
        axis.margins(x=0.01)
        axis.set(title=f"{network}, {aim:.1%} of the MACs removed", ylabel="channels kept, %", ylim=(0, 104))
    known = {label: line for axis in axes[:, 0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=len(known), fontsize=9)
    return figure


def draw_best_of_m(curves: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Accuracy after light fine-tuning of the best of m networks, a panel for each network and cost, a line a run.

    Args:
        curves: rows as `desk_light.follow_m` gives them; at least one.
        arms: the methods compared, in the order of their colours, which are those of `draw_accuracy_against_cut`.

    >>> row = {"network": "resnet20a", "aim": 0.5, "seed": 0, "low": 60.0, "high": 70.0}
    >>> rows = [row | {"arm": "SACP", "m": m, "accuracy": 64.0 + m} for m in (1, 2)]
    >>> draw_best_of_m(pd.DataFrame(rows), ["L1", "SACP"]).axes[0].get_title()
    'resnet20a, 50.0% of the MACs removed'
    """
    import matplotlib.pyplot as plt

    figures.style()
    panels = list(curves.groupby(["network", "aim"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels), 4.2), squeeze=False)
    for axis, ((network, aim), panel) in zip(axes[0], panels, strict=True):
        for (arm, seed), part in panel.groupby(["arm", "seed"], sort=False):
            style = _style(arms, arm, part)
            axis.plot(part["m"], part["accuracy"], ms=4, label=f"{arm}, seed {seed}", **style)
            axis.fill_between(part["m"], part["low"], part["high"], color=style["color"], alpha=0.12, lw=0)
        axis.set(title=f"{network}, {aim:.1%} of the MACs removed", xlabel="m, networks fine-tuned lightly")
        axis.set(ylabel="accuracy of the best on validation, %")
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure
