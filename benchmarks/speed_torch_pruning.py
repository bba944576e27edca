"""Trace plus prune against Torch-Pruning, both in this run: half of the channels, random scores, one thread.

    python benchmarks/speed_torch_pruning.py [NAME ...]

Each network has a process of its own, in which both libraries take turns: one warm call each, then the best of three (fewer
where 20 s are spent). Processor seconds, so that what else runs on the machine counts little. Networks get the smallest input
of at least 64 pixels that they take; the ten that Torch-Pruning is slowest on are measured at 224 as well. A library that
raises, takes over 120 processor seconds or over 8 GiB has that in place of its seconds. A row that is there is not measured
again unless it is named. Writes reports/benchmarks_pruning.csv and .md after each row.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

import graphprune
from graphprune.graph.tracing import InputRejected
from graphprune.runs import runtime

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "reports" / "benchmarks_pruning.csv"
REPORT = ROOT / "reports" / "benchmarks_pruning.md"
COLUMNS = ["network", "input", "graphprune_s", "torch_pruning_s", "ratio", "graphprune_lost", "torch_pruning_lost"]
NAMES = [
    *["alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet34", "resnet50", "resnet152", "resnext50_32x4d"],
    *["wide_resnet50_2", "squeezenet1_0", "squeezenet1_1", "densenet121", "densenet161", "densenet169", "densenet201"],
    *["googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_0"],
    *["mnasnet1_3", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x2_0", "efficientnet_b0", "efficientnet_b3"],
    *["efficientnet_b5", "efficientnet_b7", "efficientnet_v2_s", "efficientnet_v2_m", "regnet_x_400mf", "regnet_x_3_2gf"],
    *["regnet_y_400mf", "regnet_y_3_2gf", "convnext_tiny", "convnext_small", "swin_t", "swin_s", "swin_v2_t", "vit_b_16"],
    *["vit_b_32", "maxvit_t"],
]
SIZES = (64, 96, 224)
SECONDS, BYTES = 120, 8 << 30


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return graphprune.models.build(f"torchvision:{name}", num_classes=1000).eval()


def ours(model: nn.Module, x: torch.Tensor) -> nn.Module:
    graph = graphprune.trace(model, x)
    scores = graphprune.importance.random(model, graph, torch.Generator().manual_seed(0))
    keep = graphprune.keep_from_rates(graph, torch.full((len(graph.groups),), 5), scores)
    return graphprune.prune(model, graph, keep)


def theirs(model: nn.Module, x: torch.Tensor) -> nn.Module:
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    pruner = tp.pruner.BasePruner(model, x, tp.importance.RandomImportance(), pruning_ratio=0.5, ignored_layers=[last])
    pruner.step()
    return model


LIBRARIES = {"graphprune": ours, "torch_pruning": theirs}


# one network, in a process of its own ------------------------------------------------------------------------------------


def too_long(*_: Any) -> None:
    raise TimeoutError


def failure(error: BaseException) -> str:
    """What stands in the table in place of seconds."""
    if isinstance(error, TimeoutError):
        return f"over {SECONDS} s"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return f"over {BYTES >> 30} GiB"
    return type(error).__name__


def once(library: str, base: nn.Module, size: int) -> tuple[float, float]:
    """Processor seconds, and the share of the parameters lost."""
    model, x = copy.deepcopy(base), torch.zeros(1, 3, size, size)
    before = sum(parameter.numel() for parameter in model.parameters())
    gc.collect()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    start = time.process_time()
    small = LIBRARIES[library](model, x)
    seconds = time.process_time() - start
    signal.setitimer(signal.ITIMER_PROF, 0)
    return seconds, 1 - sum(parameter.numel() for parameter in small.parameters()) / before


def smallest(base: nn.Module) -> int:
    for size in SIZES:
        try:
            graphprune.trace(base, torch.zeros(1, 3, size, size))
            return size
        except InputRejected:
            continue
    raise ValueError(f"the network takes none of the input sizes {SIZES}")


def measure(name: str, size: int, libraries: list[str]) -> dict[str, Any]:
    """One row. The first call of each library warms it up; it counts only where it took over 20 s."""
    base = build(name)
    size = size or smallest(base)
    row: dict[str, Any] = {"network": name, "input": size, "ratio": ""}
    times: dict[str, list[float]] = {library: [] for library in libraries}
    for library in libraries * 4:
        found = times[library]
        if f"{library}_s" in row or (len(found) > 1 and sum(found) > 20) or (found and found[0] > 20):
            continue
        try:
            seconds, lost = once(library, base, size)
            found.append(seconds)
            row[f"{library}_lost"] = f"{lost:.3f}"
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            row[f"{library}_s"], row[f"{library}_lost"] = failure(error), ""
    best = {library: min(found[1:] or found) for library, found in times.items() if f"{library}_s" not in row}
    row |= {f"{library}_s": f"{seconds:.3g}" for library, seconds in best.items()}
    if len(best) == 2:
        row["ratio"] = f"{best['torch_pruning'] / best['graphprune']:.2f}"
    return row


def in_its_own_process(name: str, size: int) -> dict[str, Any]:
    """`measure` under the limits; where the process dies of Torch-Pruning, ours alone once more."""
    row: dict[str, Any] = {}
    for libraries in (list(LIBRARIES), ["graphprune"]):
        command = [sys.executable, __file__, "--one", name, str(size), ",".join(libraries)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        if done.returncode == 0:
            return dict.fromkeys(COLUMNS, "") | row | json.loads(done.stdout.splitlines()[-1])
        row = {"torch_pruning_s": f"died ({done.returncode})"}
    raise RuntimeError(f"graphprune failed on {name}: {done.stderr.splitlines()[-1:]}")


def child(name: str, size: int, libraries: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    signal.signal(signal.SIGPROF, too_long)
    warnings.simplefilter("ignore")
    print(json.dumps(measure(name, size, libraries)))


# the table ------------------------------------------------------------------------------------------------------------


def slowest(rows: list[dict[str, Any]], number: int = 10) -> list[str]:
    """The networks that Torch-Pruning handles slowest."""
    timed = {row["network"]: float(row["torch_pruning_s"]) for row in rows if row["ratio"] and int(row["input"]) < 224}
    return sorted(timed, key=lambda name: -timed[name])[:number]


def write(rows: list[dict[str, Any]]) -> None:
    """Both files, each under another name first."""
    rows = sorted(rows, key=lambda row: float(row["ratio"] or 0), reverse=True)
    part = TABLE.with_name(f".{TABLE.name}.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(TABLE)
    part = REPORT.with_name(f".{REPORT.name}.part")
    part.write_text("\n".join(report(rows)) + "\n")
    part.replace(REPORT)


def report(rows: list[dict[str, Any]]) -> list[str]:
    ratios = {f"{row['network']} at {row['input']}": float(row["ratio"]) for row in rows if row["ratio"]}
    slow = [f"{name} ({ratio})" for name, ratio in ratios.items() if ratio < 1]
    failed = [row["network"] for row in rows if row["graphprune_lost"] and not row["ratio"]]
    ours_failed = [row["network"] for row in rows if not row["graphprune_lost"]]
    missing = sorted(set(NAMES) - {row["network"] for row in rows})
    done = [row for row in rows if row["graphprune_lost"]]
    longest = max(done, key=lambda row: float(row["graphprune_s"]), default=dict.fromkeys(COLUMNS, "-"))
    return [
        "# Trace plus prune against Torch-Pruning, half of the channels, one thread",
        "",
        "Processor seconds in the same process, best of three after a warm call (`benchmarks/speed_torch_pruning.py`); ratio =",
        f"Torch-Pruning / graphprune. {runtime.hardware()}; torch {torch.__version__}, torch_pruning {tp.__version__}.",
        "",
        f"- {len(ratios)} rows compare both; ratios {min(ratios.values(), default=0)} to {max(ratios.values(), default=0)}.",
        f"- Torch-Pruning fails on, or exceeds the limits on: {', '.join(failed) or 'none'}.",
        f"- We fail on: {', '.join(ours_failed) or 'none'}.",
        f"- We are slower on: {', '.join(slow) or 'none'}.",
        f"- Our longest: {longest['graphprune_s']} s ({longest['network']} at {longest['input']}).",
        f"- Not measured: {', '.join(missing) or 'none'}.",
        f"- Its ten slowest, at their smallest input: {', '.join(slowest(rows))}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in rows),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Time trace plus prune against Torch-Pruning.")
    parser.add_argument("names", nargs="*", help="networks to measure anew; default: all, resumed")
    parser.add_argument(
        "--one", nargs=3, metavar=("NAME", "SIZE", "LIBRARIES"), help="one network, as JSON; for this script itself"
    )
    options = parser.parse_args()
    if options.one:
        child(options.one[0], int(options.one[1]), options.one[2].split(","))
        return 0
    rows = list(csv.DictReader(TABLE.open())) if TABLE.is_file() else []
    TABLE.parent.mkdir(exist_ok=True)
    for stage in (SIZES[0], 224):
        wanted = NAMES if stage < 224 else slowest(rows)
        if options.names:
            wanted = [name for name in wanted if name in options.names]
        for name in wanted:
            there = [row for row in rows if row["network"] == name and (int(row["input"]) >= 224 or stage < 224)]
            if there and not options.names:
                continue
            row = in_its_own_process(name, 0 if stage < 224 else 224)
            rows = [old for old in rows if (old["network"], int(old["input"])) != (name, row["input"])] + [row]
            print(row, flush=True)
            write(rows)
    return int(any(row["ratio"] and float(row["ratio"]) < 1 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
