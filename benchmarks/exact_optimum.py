"""The proven optimum: seconds against the goals, and its cosine against the best of a million random configurations.

    python benchmarks/exact_optimum.py

Untrained default encoders of three seeds, channels by L1 norm; processor seconds of one thread. Writes
reports/benchmarks_exact.csv. A row is the median over the seeds, its spread the least and the greatest; the work says how
many were proven.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphprune import exact, importance, models, runtime
from graphprune.costs import CostModel
from graphprune.coupling import trace
from graphprune.encoder import GraphEncoder
from graphprune.scorer import Scorer
from graphprune.space import RateSpace

TABLE = Path(__file__).resolve().parent.parent / "reports" / "benchmarks_exact.csv"
COLUMNS = ["work", "ours", "unit", "against", "theirs", "ratio", "n", "spread"]
SEEDS = range(3)
CASES = [("vgg16", 0.6, 5), ("resnet18", 0.7, 5), ("resnet56", 0.3, 60), ("resnet56", 0.85, 60)]  # SACP's taus; 0.85 is rare
MACS = (0.0, 0.1)
SAMPLES = 1_000_000

Case = tuple[Scorer, RateSpace, CostModel]


def prepare(name: str, seed: int) -> Case:
    net, example = models.seeded(name, seed), torch.zeros(1, 3, 32, 32)
    graph = trace(net, example)
    encoder = GraphEncoder.seeded(seed, graph.feature_index.shape[1])
    return Scorer(encoder, graph, importance.l1(net, graph)), RateSpace(graph), CostModel(graph, example)


def timed(solve: Callable[..., exact.Optimum], cases: list[Case], **options: Any) -> list[tuple[float, exact.Optimum]]:
    """Processor seconds and what was found, for every seed."""
    runs = []
    for scorer, space, _ in cases:
        start = time.process_time()
        found = solve(scorer, space, **options)
        runs.append((time.process_time() - start, found))
    return runs


def row(work: str, ours: list[float], unit: str, against: str, theirs: float, ratio: float) -> dict[str, Any]:
    spread = f"{min(ours):.3g} to {max(ours):.3g}"
    values = (f"{statistics.median(ours):.4g}", unit, against, f"{theirs:.4g}", f"{ratio:.3g}", len(ours), spread)
    return dict(zip(COLUMNS, (work, *values), strict=True))


def in_time(work: str, runs: list[tuple[float, exact.Optimum]], goal: float) -> dict[str, Any]:
    seconds = [spent for spent, _ in runs]
    proven = sum(found.proven for _, found in runs)
    work = f"{work}, proven {proven} of {len(runs)}, largest gap {max(found.gap for _, found in runs):.1g}"
    return row(work, seconds, "s", "goal", goal, goal / statistics.median(seconds))


def rows() -> list[dict[str, Any]]:
    """Every measurement, median over the seeds."""
    table = []
    for name, tau, goal in CASES:
        print(f"{name} at tau = {tau}", flush=True)
        cases = [prepare(name, seed) for seed in SEEDS]
        where = f"{name}, R >= {tau}"
        dots = timed(exact.top_dot, cases, min_ratio=tau, k=150)
        one, many = (timed(exact.optimum, cases, min_ratio=tau, k=k, seconds=goal) for k in (1, 150))
        lows = timed(exact.optimum, cases, min_ratio=tau, costs=cases[0][2], macs=MACS, seconds=goal)
        table.append(in_time(f"150 best by dot product, {where}", dots, 0.2))
        table.append(in_time(f"best by cosine, {where}", one, goal))
        table.append(in_time(f"150 best by cosine, {where}", many, goal))
        table.append(in_time(f"best by cosine, {where}, at most {MACS[1]:.0%} of the MACs", lows, goal))
        best = [found.score for _, found in one]
        random = [random_best(scorer, space, tau, seed) for seed, (scorer, space, _) in enumerate(cases)]
        middle = statistics.median(random)
        work = f"cosine of the best configuration found, {where}"
        table.append(row(work, best, "cosine", "best of 1M random", middle, statistics.median(best) / middle))
    return table


def random_best(scorer: Scorer, space: RateSpace, tau: float, seed: int) -> float:
    return scorer(space.sample(SAMPLES, tau, runtime.seed_generator(seed, "benchmark"))).max().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = rows()
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured)
