"""Do bfloat16 and distillation pay in recipe desk? ResNet-20 at half its MACs (uniform L1), trained for about equal times.

Three ways of retraining, each over a time near the others', three seeds; accuracy on the validation half. A row is written to
reports/paper/recipe_rows.csv as soon as it is made, and a row that stands there is not made again.

    OMP_NUM_THREADS=1 python benchmarks/recipe_rows.py
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pandas as pd

from graphprune import data, models
from graphprune.pruning.goal import prune_to
from graphprune.runs import runtime, safe_files
from graphprune.search import comparison
from graphprune.studies import paper
from graphprune.training import train

DESK = replace(paper.DESK.full, epochs=1)
WAYS = {  # as many passes as take about the same time on one core
    "float32": replace(DESK, precision="float32", distil=False),
    "bfloat16": replace(DESK, epochs=1.6, distil=False),
    "bfloat16, distilled": DESK,
}
SEEDS = (0, 1, 2)
PATH = runtime.root() / "reports" / "paper" / "recipe_rows.csv"


def measure(way: str, seed: int, images: data.Dataset) -> dict[Hashable, Any]:
    """Train the pruned network one way under one seed: its accuracy on validation, in %, and processor seconds."""
    whole = models.load_public("resnet20a")
    small = prune_to(whole, images.example(), macs=0.5).network
    started = time.process_time()
    trained = train.finetune(small, images, WAYS[way], seed=seed, teacher=whole if WAYS[way].distil else None)
    seconds = time.process_time() - started
    accuracy = 100 * train.evaluate(trained, images.val).accuracy
    row: dict[Hashable, Any] = {"way": way, "epochs": WAYS[way].epochs, "seed": seed, "validation accuracy": accuracy}
    return row | {"core seconds": seconds, "hardware": runtime.hardware()}


def main() -> None:
    """Work out what is missing, write the rows, and print the differences to float32, paired by seed."""
    images = data.load("cifar10").for_public_weights()
    rows = pd.read_csv(PATH).to_dict("records") if PATH.exists() else []
    known = {(row["way"], row["seed"]) for row in rows}
    for seed in SEEDS:
        for way in (way for way in WAYS if (way, seed) not in known):
            rows.append(measure(way, seed, images))
            table = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
            safe_files.replace(PATH, table.encode())
            print({key: rows[-1][key] for key in ("way", "seed", "validation accuracy", "core seconds")}, flush=True)
    wide = pd.DataFrame(rows).pivot_table(index="seed", columns="way", values="validation accuracy")
    for way in list(WAYS)[1:]:
        mean, low, high = comparison.interval((wide[way] - wide["float32"]).tolist())
        print(f"{way} minus float32: {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, n = {len(wide)}")


if __name__ == "__main__":
    main()
