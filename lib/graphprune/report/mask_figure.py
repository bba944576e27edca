"""One decision of an agent in a small world: the channels' chances, the mask drawn, and what it is worth among all masks.

Where nobody moves a slider (papermill, nbval, a page) the cell's output is a plain picture of the first draw.
"""

from __future__ import annotations

import seaborn
import torch
from IPython.display import Image, display
from ipywidgets import IntSlider, Layout, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphprune.report.picture import is_interactive, make_picture
from graphprune.rl.agent import scores
from graphprune.rl.policy import Policy, log_chances
from graphprune.rl.world import World


def decide(policy: Policy, world: World, network: int, budget: int, draw: int) -> tuple[Tensor, int]:
    """Each channel's chance to stay, (C,), given that `budget` of them do, and the mask of a draw.

    Raises:
        ValueError: a network or a budget that is not there.
    """
    if not 0 <= network < len(world):
        raise ValueError(f"network={network}: must be 0 .. {len(world) - 1}")
    if not 2 <= budget <= world.channels:
        raise ValueError(f"budget={budget}: must be 2 .. {world.channels} channels, one of each group at least")
    one = world.take([network])
    chances = log_chances(scores(policy, one, budget), one.masks, one.allowed(budget))[0].exp()
    generator = torch.Generator().manual_seed(draw)
    return chances @ one.masks, int(chances.multinomial(1, generator=generator))


def draw(policy: Policy, world: World, network: int, budget: int, number: int) -> Figure:
    """Left: the network's graph, kept channels filled. Right: the accuracy of all masks of the budget, and of this one.

    Args:
        network: its row in the world.
        budget: channels that stay.
        number: which draw.
    """
    chance, mask = decide(policy, world, network, budget, number)
    figure, colours = Figure(figsize=(11.5, 4.2), layout="constrained"), seaborn.color_palette("colorblind")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    _graph(left, world, network, chance, world.masks[mask].bool(), colours)
    left.set_title(f"network {network}, {budget} of {world.channels} channels stay, draw {number}", fontsize=11)
    allowed = world.allowed(budget)[network]
    accuracy = 100 * world.accuracy[network]
    right.hist(accuracy[allowed].tolist(), bins=40, color="#bbbbbb")
    expected = float(
        (log_chances(scores(policy, world.take([network]), budget), world.masks, allowed[None])[0].exp() * accuracy).sum()
    )
    for value, name, style, colour in (
        (float(accuracy[allowed].max()), "best of all masks", "-", colours[2]),
        (expected, "the policy on average", "--", colours[0]),
        (float(accuracy[mask]), "this mask", "-", colours[1]),
    ):
        right.axvline(value, color=colour, ls=style, lw=2.5, label=f"{name}: {value:.1f} %")
    sign = {1: "+1", 0: "0", -1: "-1"}[int(accuracy[mask] > expected) - int(accuracy[mask] < expected)]
    right.set(xlabel="validation accuracy (%)", ylabel=f"masks, of {int(allowed.sum()):,}")
    right.set_title(
        f"reward beside the average: {sign}; regret {float(accuracy[allowed].max() - accuracy[mask]):.1f} points", fontsize=11
    )
    right.legend(fontsize=9)
    seaborn.despine(ax=right)
    return figure


def _graph(
    axis: Axes, world: World, network: int, chance: Tensor, kept: Tensor, colours: list[tuple[float, float, float]]
) -> None:
    """The two groups as columns; an edge between kept channels is blue where the weight is positive, red where negative."""
    half = world.channels // 2
    place = [(float(j >= half), -float(j % half)) for j in range(world.channels)]
    for target in range(half, world.channels):
        for source in range(half):
            weight, there = world.pairs[network, target, source, 1].item(), world.pairs[network, target, source, 3].item()
            if there:
                both = bool(kept[source] & kept[target])
                colour = (colours[0] if weight > 0 else colours[3]) if both else "#dddddd"
                (x0, y0), (x1, y1) = place[source], place[target]
                axis.plot([x0, x1], [y0, y1], color=colour, lw=0.4 + 1.6 * min(abs(weight), 2) * both, zorder=int(both))
    for j, (x, y) in enumerate(place):
        face = colours[2] if kept[j] else "white"
        axis.scatter([x], [y], s=430, color=[face], edgecolor="black", zorder=3)
        axis.annotate(f"{100 * chance[j]:.0f}", (x, y), ha="center", va="center", fontsize=9, zorder=4)
    for x, name in ((0, "first group"), (1, "second group")):
        axis.annotate(f"{name}\nchance to stay, %", (x, 0.65), ha="center", va="bottom", fontsize=9)
    axis.set_xlim(-0.35, 1.35)
    axis.set_ylim(-half + 0.3, 1.9)
    axis.set_axis_off()


def show(policy: Policy, world: World, network: int = 0, budget: int = 6) -> None:
    """The picture, and below it sliders over network, budget and draw where a person's notebook runs the cell."""
    picture = display(_png(draw(policy, world, network, budget, 0)), display_id=True)
    if picture is not None and is_interactive():
        wide = {"layout": Layout(width="34em"), "style": {"description_width": "8em"}}
        knobs = [
            IntSlider(network, min=0, max=len(world) - 1, description="network", **wide),
            IntSlider(budget, min=2, max=world.channels, description="channels kept", **wide),
            IntSlider(0, min=0, max=30, description="draw", **wide),
        ]
        for knob in knobs:
            knob.observe(lambda _: picture.update(_png(draw(policy, world, *(knob.value for knob in knobs)))), "value")
        display(VBox(knobs))


def _png(figure: Figure) -> Image:
    words = (
        "A small network's channels with their chances to stay, one mask drawn, and its accuracy among all masks of the budget"
    )
    return make_picture(figure, words)
