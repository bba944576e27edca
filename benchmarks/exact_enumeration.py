"""The proven optimum against a list of more than 10^9 configurations: every one of them is scored.

    python benchmarks/exact_enumeration.py [NAME [TAU]]       resnet18 at 0.76 by default (1,069,702,532 of them)

The list knows nothing of `graphprune.exact`: configurations are made in halves of the groups, the second half sorted by
what it adds to R(r), and scored by `Scorer`. Resumed where it stopped; the state is kept in reports/runs/. Prints one line
and exits with 1 if the two disagree.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphprune import exact, importance, models
from graphprune.coupling import trace
from graphprune.encoder import GraphEncoder
from graphprune.scorer import Scorer
from graphprune.space import RateSpace

RUNS = Path(__file__).resolve().parent.parent / "reports" / "runs"
K = 150
CHUNK = 1 << 20  # configurations scored at a time
EVERY = 60.0  # seconds between two saves


def prepare(name: str) -> tuple[Scorer, RateSpace]:
    net = models.seeded(name, 0)
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    encoder = GraphEncoder.seeded(0, graph.feature_index.shape[1])
    return Scorer(encoder, graph, importance.l1(net, graph)), RateSpace(graph)


class Halves:
    """All configurations with R(r) >= tau, one chunk after the other."""

    def __init__(self, space: RateSpace, tau: float) -> None:
        units, need = space.budget(tau)
        table, half = np.array(units), space.groups // 2
        first, second = (grid(len(part), table.shape[1]) for part in (table[:half], table[half:]))
        added = [np.take_along_axis(part, rows.T, 1).sum(0) for part, rows in ((table[:half], first), (table[half:], second))]
        order = np.argsort(-added[1], kind="stable")
        self.first, self.second = torch.from_numpy(first), torch.from_numpy(second[order])
        counts = np.searchsorted(-added[1][order], added[0] - need, side="right")  # of the second half, for each first
        self.ends = np.cumsum(counts)

    def chunk(self, start: int) -> Tensor:
        """Configurations number start, start + 1, ..."""
        number = np.arange(start, min(start + CHUNK, int(self.ends[-1])))
        at = np.searchsorted(self.ends, number, side="right")
        place = number - np.where(at > 0, self.ends[at - 1], 0)
        return torch.cat([self.first[torch.from_numpy(at)], self.second[torch.from_numpy(place)]], 1)


def grid(groups: int, rates: int) -> np.ndarray:
    return np.indices([rates] * groups).reshape(groups, -1).T.copy()


def enumerate_all(name: str, tau: float, scorer: Scorer, space: RateSpace) -> tuple[int, Tensor]:
    """The number of configurations and the K highest scores."""
    file = RUNS / f"exact_enumeration_{name}_{tau}.json"
    halves = Halves(space, tau)
    total = int(halves.ends[-1])
    assert total == space.count(tau)
    state = json.loads(file.read_text()) if file.exists() else {"done": 0, "top": []}
    top, saved = torch.tensor(state["top"]), time.monotonic()
    for start in range(state["done"], total, CHUNK):
        scores = scorer(halves.chunk(start))
        top = torch.cat([top, scores.topk(min(K, len(scores))).values]).sort(descending=True).values[:K]
        if time.monotonic() - saved > EVERY or start + CHUNK >= total:
            RUNS.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"done": start + CHUNK, "top": top.tolist()}))
            saved = time.monotonic()
            print(f"{min(start + CHUNK, total):,} of {total:,}, best {top[0]:.7f}", flush=True)
    return total, top


def main(name: str = "resnet18", tau: str = "0.76") -> int:
    torch.set_num_threads(1)
    scorer, space = prepare(name)
    best = exact.optimum(scorer, space, min_ratio=float(tau), k=K)
    total, listed = enumerate_all(name, float(tau), scorer, space)
    off = float((best.scores - listed.double()).abs().max())
    verdict = "equal" if best.proven and off < 1e-6 else "DIFFERENT"
    print(
        f"{name}, R >= {tau}: {total:,} configurations listed, best {listed[0]:.7f}; proven {best.scores[0]:.7f} in "
        f"{best.seconds:.2f} s; the {K} best {verdict} (largest difference {off:.1e})"
    )
    return verdict != "equal"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
