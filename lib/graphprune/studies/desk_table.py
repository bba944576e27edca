"""The runs at desk size as a table, in words, and beside what others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from graphprune.runs import store
from graphprune.search.comparison import interval
from graphprune.studies import paper
from graphprune.studies.desk import (
    ARMS,
    KEY,
    LATENCY,
    PLAN,
    Outcome,
    load_committed,
    load_published,
    name_recipe,
    plan_runs,
    results_folder,
    run_key,
)
from graphprune.studies.desk_light import load_light
from graphprune.studies.paper import Sizes
from graphprune.studies.reproduction import format_table, format_value
from graphprune.training import train

NOTE = """accuracy: on the report half of the test images, of the network chosen on the validation half, after its last
epoch; means over the seeds. best of k on test: the paper's own selection; with k = 1 it is the same network. not retrained:
the best of the m lightly fine-tuned on validation, on the report half (for SACP this is what table 4 calls SACP-2). At equal
cost: every arm has the same MACs and the same passes over the training images; uniform and global L1 search nothing, so what
the others spend on m light fine-tunings is added to their retraining. What class means pays for its looks, and SACP for its
encoder, comes on top and is counted in core-hours, which are processor time. latency: of {batch} images on one thread, the
unpruned network's beside it; the 10 % quantile of {repeats} passes, as the machine was in use: rows were measured under
different load, so that only the two times of one row compare. published: as named there, each from its own base network, in
its own unit of FLOPs, chosen by its own rule. Empty: not done, or not published."""


COLUMNS = ["network", "method", "by", "n", "seeds", "accuracy, %", "drop, points", "best of k on test, %", "not retrained, %"]
COLUMNS += ["MACs, M", "MACs removed, %", "FLOPs removed, %", "params, k", "params removed, %", "latency, ms", "unpruned, ms"]
COLUMNS += ["core-hours", "of it ranking", "epochs", "networks", "hardware"]


def make_table(runs: pd.DataFrame) -> pd.DataFrame:
    """All rows planned, as text: a mean over the seeds each, empty where no seed is done; the published ones beside them."""
    rows = []
    for network in dict.fromkeys(network for network, _, _ in PLAN):
        for aim in dict.fromkeys(aim for name, aim, _ in PLAN if name == network):
            for arm in ARMS:
                rows.append(_ours(runs, network, aim, arm))
        published = sorted(paper.PUBLISHED.get(network.removesuffix("a"), {}).items(), key=lambda item: item[1].flops_cut)
        for method, row in published:
            values: dict[str, Any] = {"network": network, "method": method, "by": f"published ({row.source})"}
            values |= {"accuracy, %": row.accuracy, "FLOPs removed, %": row.flops_cut, "params removed, %": row.params_cut}
            rows.append(values)
    return pd.DataFrame([{column: format_value(row.get(column)) for column in COLUMNS} for row in rows], columns=COLUMNS)


def _ours(runs: pd.DataFrame, network: str, aim: float, arm: str) -> dict[str, Any]:
    row: dict[str, Any] = {"network": network, "method": arm, "by": f"ours, at least {aim:.1%} of the MACs removed", "n": 0}
    if runs.empty:
        return row
    own = runs[(runs["network"] == network) & (runs["aim"] == aim) & (runs["arm"] == arm)].sort_values("seed")
    if own.empty:
        return row
    mean = own.mean(numeric_only=True)
    row |= {"n": len(own), "seeds": " ".join(map(str, own["seed"]))}
    row |= {"accuracy, %": mean["accuracy"], "drop, points": mean["base accuracy"] - mean["accuracy"]}
    row |= {f"{name}, %": mean.get(name) for name in ("best of k on test", "not retrained")}
    row |= {f"{name}, %": mean[name] for name in ("MACs removed", "FLOPs removed", "params removed")}
    row |= {"MACs, M": mean["macs"] / 1e6, "params, k": mean["params"] / 1e3}
    row |= {"latency, ms": mean["latency"], "unpruned, ms": mean["base latency"]}
    row |= {"core-hours": own["core-hours"].sum(), "of it ranking": float(own["ranking core-hours"].sum())}
    row |= {
        "epochs": mean["epochs"],
        "networks": int(own["networks"].sum()),
        "hardware": " and ".join(sorted(set(own["hardware"]))),
    }
    return row


def name_rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The runs as rows of a results.csv, one number each, so that README and docs can name them: means over the seeds."""
    rows = []
    for (network, aim, arm), part in runs.groupby(["network", "aim", "arm"], sort=False):
        drop, latency = part["base accuracy"] - part["accuracy"], 100 * (1 - part["latency"] / part["base latency"])
        columns = {"accuracy": (part["accuracy"], "%"), "points lost": (drop, "points")}
        columns |= {name: (part[name], "%") for name in ("base accuracy", "MACs removed", "params removed")}
        columns |= {"latency saved": (latency, "%"), "core-hours": (part["core-hours"], "h")}
        if part["not retrained"].notna().all():
            columns["best of m, not retrained"] = (part["not retrained"], "%")
        about = {"seeds": " ".join(map(str, part["seed"])), "hardware": " and ".join(sorted(set(part["hardware"])))}
        for name, (values, unit) in columns.items():
            row = _name_number(f"{network}, {aim:.1%} of the MACs removed, {arm}: {name}", values, unit) | about
            rows.append(row | {"volatile": "yes" if name in ("latency saved", "core-hours") else "no"})
    return rows


def name_light(light: pd.DataFrame) -> list[dict[str, Any]]:
    """For each run the mean accuracy of its lightly fine-tuned networks: n and the interval are over networks."""
    rows = []
    for (network, aim, arm, seed), part in light.groupby(KEY[:4], sort=False):
        name = f"{network}, {aim:.1%} of the MACs removed, {arm}: mean of m fine-tuned lightly, seed {seed}"
        rows.append(_name_number(name, part["accuracy"], "%") | {"seeds": str(seed), "volatile": "no"})
    return rows


def _name_number(name: str, values: pd.Series, unit: str) -> dict[str, Any]:
    """A row: the mean, and from two values on its 95 % t interval."""
    mean, low, high = interval(values.tolist())
    row = {"notebook": "table3_desk", "name": name, "value": mean, "unit": unit, "n": len(values)}
    return row | {"low": low, "high": high}


def compare_arms(runs: pd.DataFrame) -> list[str]:
    """For every arm its accuracy minus uniform L1's, paired by seed: 95 % t intervals from two seeds on."""
    if runs.empty:
        return []
    lines, pivot = [], runs.pivot_table("accuracy", ["network", "aim", "seed"], "arm")
    for (network, aim), part in pivot.groupby(level=["network", "aim"], sort=False):
        for arm in (arm for arm in ARMS[1:] if {arm, ARMS[0]} <= set(part)):
            gaps = (part[arm] - part[ARMS[0]]).dropna()
            if len(gaps) == 0:
                continue
            mean, low, high = interval(gaps.tolist())
            words = f"{mean:+.2f} points"
            if len(gaps) > 1:
                words += f" [{low:+.2f}, {high:+.2f}], {len(gaps)} seeds"
            else:
                words += f", a single run (seed {gaps.index[0][2]}): no interval"
            lines.append(f"- {network}, {aim:.1%} of the MACs removed, {arm} minus {ARMS[0]}: {words}")
    return lines


def markdown(runs: pd.DataFrame, sizes: Sizes = paper.DESK) -> str:
    """The table as Markdown, with what is missing, the comparison with uniform L1, and the recipe."""
    full, light = sizes.full, sizes.light
    wanted = len(plan_runs({network for network, _, _ in PLAN}))
    recipe = f"m = {sizes.m} networks fine-tuned lightly ({_words(light)}), k = {sizes.k} retrained ({_words(full)}); "
    recipe += f"R(r) >= {sizes.min_ratio}, {sizes.n_candidates:,} candidates, SACP's encoder trained on {sizes.n_train:,}; "
    recipe += f"class means looks at {sizes.looks} networks"
    missing = "Rows with n = 0 are not done yet." if len(runs) < wanted else "All rows are done."
    parts = [
        f"# Table 3 at desk size\n\n{len(runs)} of {wanted} runs are done. {missing}\n\nRecipe {name_recipe(sizes)}: {recipe}."
    ]
    parts.append(format_table(make_table(runs)).strip())
    parts.append("## Against uniform L1, paired by seed\n\n" + ("\n".join(compare_arms(runs)) or "Nothing to compare yet."))
    parts.append(NOTE.format(**LATENCY))
    return "\n\n".join(parts) + "\n"


def _words(recipe: train.Recipe) -> str:
    words = (
        f"{recipe.epochs:g} epochs of SGD, batch {recipe.batch_size}, cosine from {recipe.lr:g}, warm-up {recipe.warmup:g}, "
    )
    words += f"weight decay {recipe.weight_decay:g}, {recipe.precision}"
    return words + (", distilled from the unpruned network" if recipe.distil else "")


def publish(outcome: Outcome, sizes: Sizes = paper.DESK) -> list[Path]:
    """Write what is done, with what was published before, to reports/paper/table3_desk.csv, .md, _runs.csv, _light.csv (the
    lightly fine-tuned networks) and _widths.csv (what the chosen ones keep), and its numbers by name to results.csv."""
    folder = results_folder()
    runs = _add(load_committed(sizes), outcome.runs, KEY[:4])
    light = _add(load_light(sizes), outcome.light, [*KEY[:4], "rank"])
    widths = _add(load_published("widths", sizes), outcome.widths, [*KEY[:4], "group"])
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"_runs.csv": runs.to_csv(index=False, lineterminator="\n", float_format="%.6g")}
    contents |= {".csv": make_table(runs).to_csv(index=False, lineterminator="\n"), ".md": markdown(runs, sizes)}
    contents |= {"_light.csv": light.to_csv(index=False, lineterminator="\n", float_format="%.6g")}
    contents |= {"_widths.csv": widths.to_csv(index=False, lineterminator="\n")}
    files = {folder / f"table3_desk{suffix}": content for suffix, content in contents.items()}
    numbers = pd.DataFrame([*name_rows(runs), *name_light(light)], columns=["notebook", *store.Results.COLUMNS])
    files[folder / "results.csv"] = numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    for path, content in files.items():
        store.replace(path, content.encode())
    return list(files)


def _add(before: pd.DataFrame, new: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Rows published before and new ones, in the order of the plan; a new one takes the place of the old."""
    parts = [part for part in (before, new) if len(part)]
    if not parts:
        return before
    order = [(run.network, run.aim, run.arm, run.seed) for run in plan_runs({network for network, _, _ in PLAN})]
    rows: list[dict[Any, Any]] = pd.concat(parts, ignore_index=True).drop_duplicates(key, keep="last").to_dict("records")
    return pd.DataFrame(sorted(rows, key=lambda row: order.index(run_key(row))))
