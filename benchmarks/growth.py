"""How the cost grows: with candidates, groups, the encoder's width and its depth; a figure and the slopes.

Over candidates and groups the work is Algorithm 1, lines 8 to 13: candidates with R(r) >= 0.3 drawn, costed, scored, the
300 best kept. Over width and depth it is the scoring alone, which is all that depends on them. One thread, processor
seconds. Writes reports/benchmarks_growth.csv and .png; `make bench` gathers the slopes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timing import Row, row, seconds

from graphprune import figures, importance, models, runtime
from graphprune.coupling import trace
from graphprune.encoder import GraphEncoder
from graphprune.scorer import Scorer
from graphprune.window import Window

REPORTS = Path(__file__).resolve().parent.parent / "reports"
IMAGE, USUAL = torch.zeros(1, 3, 32, 32), 1 << 18
NETWORKS = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


def spent(sweep: str, name: str, n: int, repeats: int = 3, **options: object) -> dict[str, object]:
    """Processor seconds of n candidates of one network; `sweep` says which of the four questions the point belongs to."""
    net = models.seeded(name, 0)
    graph = trace(net, IMAGE)
    encoder = GraphEncoder.seeded(0, graph.feature_index.shape[1], **options)
    score, window = Scorer(encoder, graph, importance.l1(net, graph)), Window(graph, IMAGE, 0.3, (0.0, 0.9))
    if sweep in ("hidden", "layers"):
        indices = window.draw(n, runtime.seed_generator(0))
        found = seconds(lambda: score(indices), 5)
    else:
        found = seconds(lambda: window.best(score, n, 300, runtime.seed_generator(0)), repeats)
    facts = {"sweep": sweep, "network": name, "groups": len(graph.groups), "candidates": n, "hidden": encoder.hidden}
    return facts | {"kind": encoder.kind, "layers": len(encoder.convs), "seconds": float(np.median(found)), "n": len(found)}


def measured() -> pd.DataFrame:
    """A row a point."""
    points = [spent("candidates", "resnet56", n) for n in (1000, 10_000, 100_000, 1_000_000)]
    points.append(spent("candidates", "resnet56", 5_000_000, repeats=1))
    points += [spent("groups", name, USUAL) for name in NETWORKS]
    points += [spent("hidden", "resnet56", USUAL, hidden=hidden) for hidden in (16, 32, 64, 128, 256)]
    layers = [(kind, depth) for kind in ("gcn", "sage", "gat") for depth in (1, 2, 3)]
    points += [spent("layers", "resnet56", USUAL, kind=kind, layers=depth) for kind, depth in layers]
    return pd.DataFrame(points)


PANELS = {
    "candidates": ("drawn, costed, scored: ResNet-56", "candidates"),
    "groups": (f"the same, {USUAL:,}: ResNet-8 to -110", "coupled groups"),
    "hidden": (f"scored, {USUAL:,} of ResNet-56: width", "encoder's width D"),
    "layers": (f"scored, {USUAL:,} of ResNet-56: depth", "encoder layers"),
}


def slope(x: pd.Series, y: pd.Series) -> float:
    """The exponent of the power law through the points: the slope of log y over log x."""
    return float(np.polyfit(np.log(x.to_numpy(float)), np.log(y.to_numpy(float)), 1)[0])


def fitted(points: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """The points the slope is of: below 10,000 candidates fixed costs rule."""
    return points[(points["sweep"] == sweep) & ((sweep != "candidates") | (points["candidates"] >= 10_000))]


def draw(points: pd.DataFrame) -> None:
    from matplotlib import pyplot as plt

    figures.style()
    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    for axis, (sweep, (title, label)) in zip(axes, PANELS.items(), strict=True):
        for kind, part in points[points["sweep"] == sweep].groupby("kind", sort=False):
            near = fitted(part, sweep)
            name = str(kind).upper() if sweep == "layers" else f"slope {slope(near[sweep], near['seconds']):.2f}"
            axis.plot(part[sweep], part["seconds"], marker={"gcn": "o", "sage": "s", "gat": "^"}[str(kind)], label=name)
        axis.set(yscale="log", xlabel=label)
        axis.set_title(title, fontsize=11)
        if sweep == "candidates":
            axis.set_xscale("log")
        else:
            ticks = sorted(points.loc[points["sweep"] == sweep, sweep].unique())
            axis.set_xscale("linear" if sweep == "layers" else "log")
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.set_ylim(0.02, 2)
        axis.minorticks_off()
        axis.legend(loc="upper left")
    axes[0].set_ylabel("processor seconds, one thread")
    figures.save(figure, REPORTS / "benchmarks_growth.png")
    plt.close(figure)


def rows() -> list[Row]:
    torch.set_num_threads(1)
    points = measured()
    points.to_csv(REPORTS / "benchmarks_growth.csv", index=False, float_format="%.4g", lineterminator="\n")
    draw(points)
    found = []
    for sweep in ("candidates", "groups", "hidden"):
        near = fitted(points, sweep)
        first, last = (f"{near['seconds'].iloc[i]:.3g} s at {near[sweep].iloc[i]:,}" for i in (0, -1))
        about = {
            "work": f"default GCN: growth with the {PANELS[sweep][1]}",
            "ours": slope(near[sweep], near["seconds"]),
            "unit": "exponent",
        }
        found.append(
            about | {"against": "proportional", "theirs": 1.0, "ratio": None, "n": len(near), "spread": f"{first}, {last}"}
        )
    for kind, part in points[points["sweep"] == "layers"].groupby("kind", sort=False):
        one, three = part["seconds"].iloc[0], part["seconds"].iloc[-1]
        found.append(row(f"{str(kind).upper()} of 3 layers, {USUAL:,} of ResNet-56", "s", [three], "1 layer", [one]) | {"n": 5})
    return found


if __name__ == "__main__":
    for line in rows():
        print(line)
