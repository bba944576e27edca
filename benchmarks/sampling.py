"""Sampling and costing configurations: counted draws against rejection, quadratic forms against pruned networks.

All in one run, one thread, processor seconds. Where rejection would take years, its rate is its measured rate of
unconditioned draws times the exact share of them that it accepts, and the row says so. `make bench` gathers the rows.
"""

from __future__ import annotations

import torch
from timing import Row, rates, row

from graphprune import costs, models
from graphprune.costs import CostModel
from graphprune.coupling import trace
from graphprune.pruning import prune
from graphprune.space import RateSpace, first_scores, keep_from_rates
from graphprune.window import Window

IMAGE = torch.zeros(1, 3, 32, 32)
MILLION, REPEATS = 1_000_000, 3
UNIT = "samples/s"


def rejected(space: RateSpace, tau: float, n: int) -> torch.Tensor:
    """What n unconditioned draws leave."""
    drawn = torch.randint(10, (n, space.groups))
    return drawn[space.ratio(drawn) >= tau]


def above_a_ratio() -> list[Row]:
    found = []
    for name, tau in (("resnet56", 0.85), ("resnet18", 0.7), ("vgg16", 0.6)):
        space = RateSpace(trace(models.build(name), IMAGE))
        ours = rates(lambda: space.sample(MILLION, tau, torch.Generator().manual_seed(0)), MILLION, REPEATS)  # noqa: B023
        share = space.count(tau) / space.count(0)
        tried = 1 << 18
        plain = rates(lambda: rejected(space, tau, tried), tried, REPEATS)  # noqa: B023
        against = f"rejection, {share:.2g} of draws accepted{', calculated' if share < 1e-3 else ''}"
        found.append(row(f"1M samples of {name} with R(r) >= {tau}", UNIT, ours, against, [rate * share for rate in plain]))
    return found


def in_a_window() -> list[Row]:
    """Draws with both bounds; the peer is rejection from draws that meet R(r) >= tau."""
    found = []
    for name, tau, macs, n in (
        ("resnet56", 0.0, (0.0, 0.06), 100_000),
        ("resnet56", 0.5, (0.5, 0.55), 10_000),
        ("resnet18", 0.7, (0.5, 0.6), 10_000),
    ):
        window = Window(trace(models.build(name), IMAGE), IMAGE, tau, macs)
        ours = rates(lambda: window.draw(n, torch.Generator().manual_seed(0)), n, REPEATS)  # noqa: B023
        drawn = window.space.sample(1 << 18, tau, torch.Generator().manual_seed(0))
        plain = rates(lambda: window.allows(window.space.sample(1 << 16, tau, torch.Generator())), 1 << 16, REPEATS)  # noqa: B023
        share, note = float(window.allows(drawn).double().mean()), ""
        if share < 1e-3:
            assert window.tally is not None
            kept = float(window.allows(window.tally.sample(1 << 16, torch.Generator().manual_seed(0))).double().mean())
            share, note = window.tally.count * kept / window.space.count(tau), ", calculated"
        work = f"{n:,} samples of {name} with R(r) >= {tau} and MACs in {macs}"
        found.append(row(work, UNIT, ours, f"rejection, {share:.2g} of draws accepted{note}", [rate * share for rate in plain]))
    return found


def costed() -> list[Row]:
    found = []
    for name in ("resnet56", "resnet18"):
        net = models.build(name)
        graph = trace(net, IMAGE)
        model, keep = CostModel(graph, IMAGE), keep_from_rates(graph, [5] * len(graph.groups), first_scores(graph))
        indices = torch.randint(10, (MILLION, len(graph.groups)), generator=torch.Generator().manual_seed(0))
        ours = rates(lambda: model.of_rates(indices), MILLION, REPEATS)  # noqa: B023
        theirs = rates(lambda: costs.cost(prune(net, graph, keep), IMAGE), 1, REPEATS)  # noqa: B023
        work = f"MACs and parameters of 1M configurations of {name}"
        found.append(row(work, "configurations/s", ours, "prune, then torch's FlopCounterMode", theirs))
    return found


def rows() -> list[Row]:
    torch.set_num_threads(1)
    return [*above_a_ratio(), *in_a_window(), *costed()]


if __name__ == "__main__":
    for line in rows():
        print(line)
