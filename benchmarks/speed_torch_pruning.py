"""Trace plus prune against Torch-Pruning, both in this run: half of the channels, random scores, one thread.

    python benchmarks/speed_torch_pruning.py [NAME ...]

Each network is timed on both in turn, in processor seconds, so that what else runs on the machine counts little. Writes
reports/benchmarks_pruning.csv and .md; a row that is there is not measured again unless it is named.
"""

from __future__ import annotations

import csv
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

import graphprune

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "reports" / "benchmarks_pruning.csv"
REPORT = ROOT / "reports" / "benchmarks_pruning.md"
COLUMNS = ["network", "input", "graphprune_s", "torch_pruning_s", "ratio", "graphprune_lost", "torch_pruning_lost"]
NAMES = [
    *["alexnet", "vgg11_bn", "resnet18", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "resnet50"],
    *["googlenet", "resnext50_32x4d", "efficientnet_b0", "regnet_y_400mf", "densenet121", "convnext_tiny", "vit_b_16"],
    *["resnet152", "densenet201", "efficientnet_b7", "regnet_x_16gf", "shufflenet_v2_x1_0"],
]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return graphprune.models.build(f"torchvision:{name}", num_classes=1000).eval()


def ours(model: nn.Module, x: torch.Tensor) -> tuple[float, nn.Module]:
    start = time.process_time()
    graph = graphprune.trace(model, x)
    scores = graphprune.importance.random(model, graph, torch.Generator().manual_seed(0))
    keep = graphprune.keep_from_rates(graph, torch.full((len(graph.groups),), 5), scores)
    small = graphprune.prune(model, graph, keep)
    return time.process_time() - start, small


def theirs(model: nn.Module, x: torch.Tensor) -> tuple[float, nn.Module]:
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    start = time.process_time()
    pruner = tp.pruner.BasePruner(model, x, tp.importance.RandomImportance(), pruning_ratio=0.5, ignored_layers=[last])
    pruner.step()
    return time.process_time() - start, model


def measure(name: str) -> dict[str, Any]:
    """One row; a network that a library fails on has the error's name for its seconds."""
    size = 224 if name.startswith("vit") else 64
    row: dict[str, Any] = {"network": name, "input": size, "ratio": ""}
    x = torch.zeros(1, 3, size, size)
    for library, run in (("graphprune", ours), ("torch_pruning", theirs)):
        model = build(name)
        params = sum(p.numel() for p in model.parameters())
        try:
            seconds, small = run(model, x)
            row[f"{library}_s"] = f"{seconds:.3g}"
            row[f"{library}_lost"] = f"{1 - sum(p.numel() for p in small.parameters()) / params:.3f}"
        except Exception as error:
            row[f"{library}_s"], row[f"{library}_lost"] = type(error).__name__, ""
    if row["torch_pruning_lost"] and row["graphprune_lost"]:
        row["ratio"] = f"{float(row['torch_pruning_s']) / float(row['graphprune_s']):.2f}"
    return row


def write(rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: float(row["ratio"] or 0), reverse=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    ratios = [float(row["ratio"]) for row in rows if row["ratio"]]
    lines = [
        "# Trace plus prune against Torch-Pruning, half of the channels, one thread",
        "",
        f"Processor seconds in the same run; ratio = Torch-Pruning / graphprune. {graphprune.runtime.hardware()}; torch "
        f"{torch.__version__}, torch_pruning {tp.__version__}. Ratios {min(ratios):.1f} to {max(ratios):.1f}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in rows),
    ]
    REPORT.write_text("\n".join(lines) + "\n")


def main() -> int:
    rows = list(csv.DictReader(TABLE.open())) if TABLE.is_file() else []
    TABLE.parent.mkdir(exist_ok=True)
    warm = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()  # first calls import and compile
    ours(warm, torch.zeros(1, 3, 16, 16))
    theirs(warm, torch.zeros(1, 3, 16, 16))
    for name in sys.argv[1:] or [name for name in NAMES if name not in {row["network"] for row in rows}]:
        rows = [row for row in rows if row["network"] != name] + [measure(name)]
        print(rows[-1], flush=True)
        write(rows)
    return int(any(row["ratio"] and float(row["ratio"]) < 1 for row in rows))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
