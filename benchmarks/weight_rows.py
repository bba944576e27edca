"""The contest of notebook 06 on real data: the networks of a profile, a row a network, start, way, sparsity and seed.

Sizes are those of notebook 06 in the profile. The rows are published as reports/<profile>/weight_rows.csv, which the
notebook reads. What is worked out is stored, so that a run that was stopped goes on; the options work on a part.

    OMP_NUM_THREADS=1 python benchmarks/weight_rows.py cifar
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace

import pandas as pd

from graphprune import data
from graphprune.report import notebook
from graphprune.runs import runtime, safe_files
from graphprune.studies import weight_study
from graphprune.training.recipe import Recipe
from graphprune.training.splits import stratified

STEM = "06_spectral_pruning"


def main() -> None:
    """Work out the rows and write them."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("profile", choices=[name for name in notebook.profiles() if STEM in notebook.notebooks(name)])
    reader.add_argument("--networks", nargs="*", help="all of the profile if left out, here and below")
    reader.add_argument("--seeds", nargs="*", type=int)
    reader.add_argument("--starts", nargs="*", choices=["trained", "untrained"])
    reader.add_argument("--sparsities", nargs="*", type=float)
    reader.add_argument("--ways", nargs="*")
    given = reader.parse_args()
    source = runtime.root() / "notebooks" / f"{STEM}.ipynb"
    values = notebook.parameters(source) | notebook.settings(source, given.profile)
    images = data.load(values["dataset"])
    images = images.for_public_weights() if values["public_weights"] else images
    if values["test_images"] is not None:
        images = replace(images, test=images.test.take(stratified(images.test.labels, values["test_images"])[1]))
    about = {"batch_size": values["batch_size"], "augment": values["augment"], "warmup": 0.1}
    ways = {label: weight_study.WAYS[label] for label in given.ways or values["ways"] or weight_study.WAYS}
    tuned = values["tuned_ways"]
    options = {"ways": ways, "starts": given.starts or values["starts"], "spectra": values["spectra"]}
    options["train_at"] = None if tuned is None else dict.fromkeys(tuned, values["judged"])
    folder, keys = runtime.run_dir(given.profile) / "artifacts", ["network", "start", "sparsity", "way", "seed"]
    path = runtime.root() / "reports" / given.profile / "weight_rows.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    for network in given.networks or values["plans"]:
        plan = weight_study.Plan(**{part: pair and Recipe(*pair, **about) for part, pair in values["plans"][network].items()})
        seeds = values["seeds"] if given.seeds is None else given.seeds
        for seed, sparsity in itertools.product(seeds, given.sparsities or values["sparsities"]):
            rows = weight_study.study(network, images, plan, [sparsity], seed, folder, **options)
            if path.exists():  # the other rows stay
                rows = pd.concat([pd.read_csv(path), rows]).drop_duplicates(keys, keep="last")
            content = rows.sort_values(keys).to_csv(index=False, float_format="%.4f", lineterminator="\n")
            safe_files.replace(path, content.encode())
            print(f"{network}, seed {seed}, {100 * sparsity:g} %: done", flush=True)


if __name__ == "__main__":
    main()
