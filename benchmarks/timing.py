"""How the benchmarks measure: processor seconds of one thread, repeated after a warm-up, and rows that say all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Processor seconds of each repeat: what else runs on the machine counts little. One warm-up is not counted."""
    found = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return found[1:]


def rates(work: Callable[[], object], n: int, repeats: int) -> list[float]:
    """Items a processor second of each repeat, where one call does n of them."""
    return [n / spent for spent in seconds(work, repeats)]


def row(work: str, unit: str, ours: Sequence[float], against: str, theirs: Sequence[float]) -> Row:
    """Medians; the ratio says how many times better ours is. Seconds and MiB are better low, everything else high."""
    mine, other = median(ours), median(theirs)
    ratio = other / mine if unit in ("s", "MiB") else mine / other
    spread = f"{min(ours):.3g} to {max(ours):.3g} against {min(theirs):.3g} to {max(theirs):.3g}"
    return {"work": work, "ours": mine, "unit": unit, "against": against, "theirs": other} | {
        "ratio": ratio,
        "n": len(ours),
        "spread": spread,
    }
