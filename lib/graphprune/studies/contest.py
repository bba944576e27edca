"""The contest of rankers: who stands in the tables of true accuracies, and how a table is made, piece by piece.

`build` draws stratum U, lets rankers and searches name what they find best (stratum T), measures all that was drawn or
named, asks every ranker for its scores, and writes the table with its card. What is made is stored at once, so that a
killed build goes on where it stopped.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphprune.encoders.ranker import Ranker, RankFunction, prepare
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.correlation import spearman
from graphprune.ranking.distilled import Distilled, Lessons
from graphprune.ranking.rankers import Similarity
from graphprune.runs import jobs, runtime, store
from graphprune.runs.description import described, modules
from graphprune.runs.jobs import Died, Shared
from graphprune.studies.census import Census, Survey, draw_uniform, measure_networks, pick_best, split_parts
from graphprune.studies.entrants import (
    FULLY,
    ablations,
    baselines,
    bees,
    candidates,
    carry_rankers,
    climbers,
    learners,
    own_rankers,
    readings,
)
from graphprune.studies.tabular import TRUTHS, folder, once, rates, save, truths
from graphprune.training.recipe import Recipe

_TRAINED = Recipe(epochs=30, lr=0.1, batch_size=64, warmup=0.1)
_LIGHT, _FULL = Recipe(epochs=1, lr=0.02, batch_size=64), Recipe(epochs=5, lr=0.05, batch_size=64)

DRAWS = 3  # of labels, for the suite's own learner
_HARD, _HARDER = Recipe(epochs=0.05, lr=0.02, batch_size=64), Recipe(epochs=0.4, lr=0.02, batch_size=64)

_DIGITS = Census("digits", "digits", "resnet20", _TRAINED, _LIGHT, _FULL, per_band=84, fully=160, encoders=5)
_SMALL = replace(_DIGITS, per_band=16, fully=0, top=0, encoders=1, source="digits")
_CIFAR = Census("cifar10", "cifar10", "resnet20a", None, _HARD, _HARDER, per_band=8, fully=0, top=0, images=1000, encoders=1)

CENSUSES = {
    "digits": replace(_DIGITS, restarts=24, anew=_TRAINED),
    "digits_resnet8": replace(_SMALL, name="digits_resnet8", network="resnet8"),
    "cifar10": replace(_CIFAR, window=(0.4, 0.42), lessons=120, flights=60),
}
"""The tables there are."""


# --- what they say ----------------------------------------------------------------------------------------------------


def score_all(survey: Survey, indices: Tensor, rankers: Mapping[str, Ranker | RankFunction]) -> dict[str, Tensor]:
    """The scores of every ranker, (configurations,) each; a ranker's are stored when it has spoken.

    Beside them, "NAME.seconds", is stored how long it took: (prepare, score).

    Warns:
        UserWarning: some rankers killed their processes, each time they were tried; they are left out, and not run in this
            process. The next call tries them again.
    """
    shared = Shared((survey, indices))
    spoken = jobs.run(_score_in_job, shared, list(rankers.items()), -1, f"{survey.census.name}, rankers")
    died = {name: found.reason for name, found in zip(rankers, spoken, strict=True) if isinstance(found, Died)}
    if died:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in died.items())
        warnings.warn(f"{len(died)} of {len(rankers)} rankers said nothing and are left out: {reasons}", stacklevel=2)
    left = {name: ranker for name, ranker in rankers.items() if name not in died}
    return {name: _scores_of(survey, indices, name, ranker)["scores"] for name, ranker in left.items()}


def _score_in_job(shared: Shared[tuple[Survey, Tensor]], what: tuple[str, Ranker | RankFunction]) -> None:
    survey, indices = shared.value
    _scores_of(survey, indices, *what)


def _scores_of(survey: Survey, indices: Tensor, name: str, ranker: Ranker | RankFunction) -> dict[str, Tensor]:
    def speak() -> dict[str, Tensor]:
        started = time.perf_counter()
        score = prepare(ranker, survey.graph, survey.model)
        prepared = time.perf_counter()
        scores = score(indices).double()
        seconds = torch.tensor([prepared - started, time.perf_counter() - prepared], dtype=torch.float64)
        return {"scores": scores, "seconds": seconds}

    return _stage(survey, f"scores/{name}", speak, ranker, (), indices=indices)


def _stage(
    survey: Survey,
    file: str,
    compute: Callable[[], Any],
    ranker: Ranker | RankFunction,
    others: tuple[str, ...],
    **parameters: Any,
) -> dict[str, Tensor]:
    """`store.stage` in the survey's folder for what a ranker does, on one thread; `others`: modules it needs besides."""

    def alone() -> Any:
        with runtime.threads(1):
            return compute()

    known = {"base": survey.base, "ranker": described(ranker), **parameters}
    path = survey.folder / f"{file}.safetensors"
    return store.stage(path, alone, parameters=known, modules=(*modules(ranker), *others))


def measure_seconds(survey: Survey, configurations: int, rankers: Iterable[str]) -> pd.DataFrame:
    """How long rankers took on one thread, the mean over seeds: seconds to `prepare`, and `per_1000` configurations."""
    files = {name: survey.folder / "scores" / f"{name}.safetensors" for name in rankers}
    rows = [(re.sub(r"_\d$", "", name), *store.load(file)["seconds"].tolist()) for name, file in files.items()]
    frame = pd.DataFrame(rows, columns=["ranker", "prepare", "per_1000"]).groupby("ranker", sort=False).mean().reset_index()
    return frame.assign(per_1000=frame["per_1000"] * 1000 / configurations).round(6)


# --- the table --------------------------------------------------------------------------------------------------------


def build(name: str) -> Path:
    """Make a table, or what is missing of it, and write it with its card to `reports/tabular`.

    Raises:
        ValueError: there is no census of that name.
    """
    if name not in CENSUSES:
        raise ValueError(f"name={name!r}: there is no such census; choose from {', '.join(CENSUSES)}")
    survey, drawn, known = _survey_of(CENSUSES[name])
    default = _taught_ranker(survey)
    ours, tops = own_rankers(default, *known, min(survey.census.encoders, DRAWS)), {}
    if survey.census.top:
        tops = {who: _named(survey, who, ranker) for who, ranker in candidates(default, *known).items()}
        tops |= _search_scores(survey, default)
    chosen = join_candidates(survey, drawn, tops)
    rankers = {**readings(survey.census.encoders), **ablations(survey.census.encoders), **baselines(survey), **ours}
    rankers |= learners(*known, survey.census.encoders)
    if survey.census.source:
        source, _, labels = _survey_of(CENSUSES[survey.census.source])
        rankers |= carry_rankers(source, own_rankers(_taught_ranker(source), *labels, DRAWS))
    scores = score_all(survey, rates(chosen), rankers)
    table = assemble(survey, chosen, tops, scores)
    path = folder() / f"{name}.parquet"
    cost = measure_seconds(survey, len(chosen), scores).to_csv(index=False)
    store.replace(path.with_name(f"{name}_seconds.csv"), cost.encode())
    save(table, path, store.provenance({"census": survey.census, "base": survey.base}, ("search.trial", "studies.census")))
    store.replace(path.with_suffix(".md"), card(survey, table).encode())
    if survey.census.base is not None and not survey.weights.is_file():
        store.save(survey.weights, survey.model.state_dict(), store.provenance({"census": survey.census}))
    return path


def _survey_of(census: Census) -> tuple[Survey, pd.DataFrame, tuple[Tensor, Tensor]]:
    """A census at work, its stratum U, and the labels rankers may learn from: those of U's design part, first seed."""
    survey = Survey(census, runtime.run_dir("tabular") / census.name)
    drawn = draw_uniform(survey)
    light = measure_networks(survey, rates(drawn), census.light, census.seeds[0])
    known = (drawn["part"] == "design").to_numpy()
    return survey, drawn, (rates(drawn[known]), torch.tensor(light.loc[known, "accuracy_val"].to_numpy()))


def _taught_ranker(survey: Survey) -> Distilled:
    """The suite's own ranker without labels, its teacher asked once and for all."""
    ranker = Distilled(ClassMeans(survey.looked), survey.census.lessons)

    def stage(
        name: str, compute: Callable[[], dict[str, Tensor]], modules: Sequence[str], **parameters: Any
    ) -> dict[str, Tensor]:
        known = {"base": survey.base, **parameters}
        path = survey.folder / "lessons" / f"{store.digest(known)[:16]}-{name}"
        return store.stage(path, compute, parameters=known, modules=modules)

    def asked() -> dict[str, Tensor]:
        return ranker.ask(survey.graph, survey.model, stage)._asdict()

    lessons = _stage(survey, "lessons", asked, ranker, ())
    return replace(ranker, lessons=Lessons(**lessons))


def _search_scores(survey: Survey, default: Ranker) -> dict[str, Tensor]:
    """What searches for higher scores find, by "SEARCH_RANKER"; and the bees, who search for accuracy."""
    found: dict[str, Tensor] = {}
    for who, ranker in {"similarity": Similarity(), "default": default}.items():
        compute = partial(climbers, survey, ranker)
        rows = _stage(survey, f"tops/climbed_{who}", compute, ranker, ("studies.entrants",), **_candidate_settings(survey))
        found |= {f"{search}_{who}": rows[search] for search in sorted(rows)}  # files have no order
    colony = bees(survey)
    visited = _stage(survey, "tops/bees", lambda: {"indices": colony.forage(survey.graph, survey.model)[0]}, colony, ())
    return found | {"bees": visited["indices"][: survey.census.top]}


def _named(survey: Survey, name: str, ranker: Ranker | RankFunction) -> Tensor:
    def named() -> dict[str, Tensor]:
        return {"indices": pick_best(survey, prepare(ranker, survey.graph, survey.model))}

    return _stage(survey, f"tops/{name}", named, ranker, ("studies.census",), **_candidate_settings(survey))["indices"]


def _candidate_settings(survey: Survey) -> dict[str, Any]:
    """What the candidates depend on besides a ranker."""
    census = survey.census
    return {"window": census.window, "top": census.top, "draws": census.draws, "seed": census.seed}


def join_candidates(survey: Survey, drawn: pd.DataFrame, tops: Mapping[str, Tensor]) -> pd.DataFrame:
    """Stratum U and, below it, what was named and is not in it: no network twice."""
    window = survey.anywhere
    seen = {tuple(row) for row in window.counts(rates(drawn)).tolist()}
    fresh = []
    for rows in tops.values():
        for row, counts in zip(rows.tolist(), window.counts(rows).tolist(), strict=True):
            if tuple(counts) not in seen:
                seen.add(tuple(counts))
                fresh.append(row)
    if not fresh:
        return drawn
    named = pd.DataFrame({"indices": fresh, "stratum": "T", "band": ""})
    named["part"] = split_parts(named["band"], survey.generator("parts of T"))
    return pd.concat([drawn, named], ignore_index=True)


def assemble(survey: Survey, chosen: pd.DataFrame, tops: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> pd.DataFrame:
    """Measure what was chosen, and put it beside what rankers say of it: the columns of `tabular.Table`."""
    census, indices = survey.census, rates(chosen)
    macs, params = survey.anywhere.costs.of_rates(indices)
    about = chosen.assign(
        ratio=survey.anywhere.space.ratio(indices).numpy(),
        macs=macs.numpy(),
        macs_share=(macs.double() / survey.anywhere.costs.full.macs).numpy(),
        params=params.numpy(),
    )
    place = {tuple(row): number for number, row in enumerate(survey.anywhere.counts(indices).tolist())}
    columns: dict[str, np.ndarray] = {}
    for name, rows in tops.items():
        columns[f"rank_{name}"] = np.full(len(chosen), np.nan)
        columns[f"rank_{name}"][[place[tuple(row)] for row in survey.anywhere.counts(rows).tolist()]] = range(1, len(rows) + 1)
    columns |= {f"score_{name}": values.numpy() for name, values in scores.items()}
    about = pd.concat([about, pd.DataFrame(columns)], axis=1)
    blocks = []
    for seed in census.seeds:
        light = measure_networks(survey, indices, census.light, seed)
        full = _some(survey, indices, _fully_trained(survey, about, seed), census.full, seed, "full_")
        anew = _some(survey, indices, _trained_from_new_weights(survey, about, seed), census.anew, seed, "anew_", inherit=False)
        blocks.append(pd.concat([about.assign(seed=seed), light, full, anew], axis=1))
    table = pd.concat(blocks, ignore_index=True)
    last = [column for column in table.columns if column.startswith(("rank_", "score_"))]
    return table[[column for column in table.columns if column not in last] + last]


def _fully_trained(survey: Survey, about: pd.DataFrame, seed: int) -> np.ndarray:
    """Which are trained fully: a random part of U, and under the first seed what rankers (not searches) named."""
    some = torch.randperm(int((about["stratum"] == "U").sum()), generator=survey.generator("fully"))[: survey.census.fully]
    mask = np.isin(np.arange(len(about)), some.numpy())
    if seed == survey.census.seeds[0]:
        mask |= about[[f"rank_{name}" for name in FULLY if f"rank_{name}" in about]].notna().any(axis=1).to_numpy()
    return mask


def _trained_from_new_weights(survey: Survey, about: pd.DataFrame, seed: int) -> np.ndarray:
    """Which are trained from new weights: the first of the random order, under the first seed."""
    first = seed == survey.census.seeds[0] and "rank_random" in about
    return (about["rank_random"] <= survey.census.restarts).to_numpy() if first else np.zeros(len(about), bool)


def _some(
    survey: Survey, indices: Tensor, mask: np.ndarray, recipe: Recipe | None, seed: int, prefix: str, inherit: bool = True
) -> pd.DataFrame:
    """The truths of some configurations, NaN for the rest."""
    rows = pd.DataFrame(np.nan, index=range(len(indices)), columns=[f"{prefix}{name}" for name in TRUTHS])
    if recipe is not None and mask.any():
        rows.loc[mask] = measure_networks(survey, indices[torch.from_numpy(mask)], recipe, seed, inherit).to_numpy()
    return rows


def card(survey: Survey, table: pd.DataFrame) -> str:
    """How a table was made, in Markdown: what a reader of its numbers must know."""
    census, data, full, rows = survey.census, survey.data, survey.anywhere.costs.full, once(table)
    first, second = truths(table, "accuracy_test")[:2]
    groups, size = len(survey.graph.groups), {name: int((rows["stratum"] == name).sum()) for name in "UT"}
    named = [f"{c.removeprefix('rank_')} {rows[c].notna().sum()}" for c in map(str, rows) if c.startswith("rank_")]
    part = rows["part"].value_counts()
    origin = f"trained ({_words(census.base)}; seed {census.seed})" if census.base else "public CIFAR-10 weights"
    seeds, anew = ", ".join(map(str, census.seeds)), int(rows["anew_accuracy_val"].notna().sum())
    return f"""# {census.name}: the true accuracies of {len(rows):,} pruned networks

`graphprune.tabular.load({census.name!r})`, one row a configuration and seed; `tabular.Table` describes the columns.

- **Network**: {census.network}, {origin}.
  {groups} groups of coupled channels, 10^{groups} configurations of the rates 0, 0.1 ... 0.9; unpruned {full.macs:,} MACs and
  {full.params:,} parameters.
- **Data**: {census.dataset}; {len(data.train):,} training, {len(data.val):,} validation and {len(data.test):,} test images.
- **A row**: the channels of the largest L1 norms stay, the others are cut out, BN statistics are re-estimated, then training
  goes on from the weights that are left.
  Light: {_words(census.light)}; seeds {seeds}.
  Full: {_words(census.full)}; {int(rows["full_accuracy_val"].notna().sum())} configurations.
  From new weights: {_words(census.anew) if census.anew else "none here"}; {anew} configurations.
- **Stratum U**: {size["U"]} configurations, exactly uniform within bands of R(r) and of MACs (column `band`).
- **Stratum T**: {size["T"]} configurations at {census.window[0]:g} to {census.window[1]:g} of the MACs: the best of
  {census.draws:,} draws of each ranker, and what searches for higher scores found: {", ".join(named) or "none here"}.
- **Parts**: {part.get("design", 0)} design, {part.get("report", 0)} report. Rankers that learn have their labels
  from U, design: the validation accuracy under the first seed.
- **Noise**: the test accuracies under two seeds are {100 * np.abs(first - second).mean():.2f} points apart on average;
  Spearman between them {float(spearman(first, second)):.3f}.
- **Made on** {runtime.hardware()}. **Licence**: MIT, as the project; the images keep their own.
"""


def _words(recipe: Recipe) -> str:
    return (
        f"{recipe.epochs:g} epochs of SGD, momentum {recipe.momentum:g}, batch {recipe.batch_size}, cosine from {recipe.lr:g}, "
        f"warm-up {recipe.warmup:g}, weight decay {recipe.weight_decay:g}, {'with' if recipe.augment else 'no'} augmentation"
    )
