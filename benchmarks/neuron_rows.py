"""The contest of notebook 07 on real data: the cases of a profile, a row a network, way, share or threshold, and seed.

Sizes are those of notebook 07 in the profile. The rows are published as reports/<profile>/neuron_rows.csv, which the
notebook reads. What is worked out is stored, so that a run that was stopped goes on; the options work on a part.

    OMP_NUM_THREADS=1 python benchmarks/neuron_rows.py mnist
"""

from __future__ import annotations

import argparse

import pandas as pd

from graphprune import data, neurons
from graphprune.report import notebook
from graphprune.runs import runtime, safe_files
from graphprune.studies import neuron_study
from graphprune.training.recipe import Recipe

STEM = "07_mip_neurons"


def rows_of(values: dict, dataset: str, network: str, seed: int) -> pd.DataFrame:
    """The contest of one network and seed, and the paper's rule; each row with the status and the seconds of its scores."""
    folder = runtime.run_dir(values["profile"]) / "artifacts"
    limits = (values["time_limit"], values["class_seconds"], 1, values["head_images"])
    settings = neuron_study.Settings(values["lam"], values["radius"], *limits)
    about = {"batch_size": values["batch_size"], "augment": values["augment"], "warmup": 0.1}
    base, tune = (Recipe(*values[name], **about) for name in ("base", "tune"))
    case = neuron_study.case_of(network, data.load(dataset), base, seed, folder, settings)
    rows = neuron_study.study(case, values["ways"], values["shares"], tune, folder)
    states = {way: neuron_study.score(case, way, folder) for way in values["ways"]}
    solved = [way for way, found in states.items() if found.status in ("optimal", "local") and way != "critical"]
    ruled = [
        {"way": way, "threshold": threshold, "seed": seed}
        | neuron_study.measure(case, neurons.keep_above(states[way], threshold), tune)
        for way in solved
        for threshold in values["thresholds"]
    ]
    rows = pd.concat([rows, pd.DataFrame(ruled)], ignore_index=True)
    rows["status"] = [states[way].status if way in states else "" for way in rows["way"]]
    rows["seconds"] = [states[way].seconds if way in states else 0.0 for way in rows["way"]]
    return rows.assign(case=f"{dataset} {network}")


def main() -> None:
    """Work out the rows and write them."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("profile", choices=[name for name in notebook.profiles() if STEM in notebook.notebooks(name)])
    reader.add_argument("--cases", nargs="*", help="networks, as in 'mnist lenet5'; all cases of the profile if left out")
    reader.add_argument("--seeds", nargs="*", type=int, help="all of the profile if left out")
    reader.add_argument("--ways", nargs="*", help="labels of neuron_study.WAYS and SOLVERS; those of the profile if left out")
    given = reader.parse_args()
    source = runtime.root() / "notebooks" / f"{STEM}.ipynb"
    values = notebook.parameters(source) | notebook.settings(source, given.profile)
    values |= {"ways": given.ways} if given.ways else {}
    path = runtime.root() / "reports" / given.profile / "neuron_rows.csv"
    keys = ["case", "seed", "removed", "threshold", "way"]
    for dataset, network in values["cases"]:
        for seed in values["seeds"] if given.seeds is None else given.seeds:
            if given.cases and f"{dataset} {network}" not in given.cases:
                continue
            rows = rows_of(values, dataset, network, seed)
            if path.exists():  # the other rows stay
                rows = pd.concat([pd.read_csv(path), rows]).drop_duplicates(keys, keep="last")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = rows.sort_values(keys).to_csv(index=False, float_format="%.3f", lineterminator="\n")
            safe_files.replace(path, content.encode())
            print(f"{dataset} {network}, seed {seed}: done", flush=True)


if __name__ == "__main__":
    main()
