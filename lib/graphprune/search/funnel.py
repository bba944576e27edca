"""The funnel every search shares: candidates at one cost, m of them lightly fine-tuned, k retrained, one chosen.

It is SACP's Algorithm 1, lines 9-16 (Liu et al., section 3.5), without saying who ranks the candidates: `search` ranks
them by similarity, and the arms it is compared with (`baselines`) in other ways, at the same cost and on the same training
budget. Every network trained is a file of its own, so that nothing is ever trained twice, and a killed run goes on
where it stopped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.channels import prune
from graphprune.pruning.criterion import Criterion, score_channels
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.rates import RATES, Rate
from graphprune.pruning.window import Score, Window
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Clock
from graphprune.runs.description import network
from graphprune.search.trial import Task, Trial, read_weights, run_all
from graphprune.training import train
from graphprune.training.data import Dataset
from graphprune.training.dataset import check_dataset
from graphprune.training.train import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ["stage", "rank", "indices", "counts", "ratio", "macs", "params", "score", "accuracy_val", "loss_val"]
COLUMNS += ["accuracy_test", "epochs", "seed", "seconds", "failed"]
MEASURED = ["accuracy_val", "loss_val", "accuracy_test", "seconds", "core_seconds"]


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """What a search found, and all it tried.

    Attributes:
        keep: the chosen network's channels, group name -> (C,) bool.
        best: its row of `trials`.
        trials: a row for each network trained: `stage` "light" or "full"; `rank`, from 1, in the order it was picked
            in; `indices` the rate indices (empty for an arm that is not bound to the rates) and `counts` the channels
            kept, by group; `ratio` R(r); `macs`, `params`; `score` the ranker's; `accuracy_val`, `loss_val` on the
            validation split; `accuracy_test` of the chosen network alone (of all, where the funnel is `tested`), else
            NaN; `epochs`, `seed` and `seconds` of its training; `failed` why there is no accuracy (a failed network is
            ranked nowhere), else "".
        model: the chosen network, pruned and retrained.
        core_seconds: processor time that ranking and training took, whenever that was.
        ranking_seconds: the ranking's part of it.
    """

    keep: Mapping[str, Tensor]
    best: dict[str, Any]
    trials: pd.DataFrame
    model: nn.Module
    core_seconds: float
    ranking_seconds: float

    def __repr__(self) -> str:
        best, kept = self.best, sum(int(mask.sum()) for mask in self.keep.values())
        channels = sum(len(mask) for mask in self.keep.values())
        found = f"{best['macs']:,} multiply-adds, {best['params']:,} parameters, {kept} of {channels} channels"
        measured = f"validation {best['accuracy_val']:.4f}, test {best['accuracy_test']:.4f}"
        return f"SearchResult({found}; {measured}; the best of {len(self.trials)} trainings)"

    def _repr_html_(self) -> str:
        from html import escape

        columns = ["stage", "rank", "macs", "params", "accuracy_val", "accuracy_test", "failed"]
        return f"<p>{escape(repr(self))}</p>{self.trials[columns].to_html(index=False, border=0)}"

    def plot(self) -> Figure:
        """Validation accuracy against multiply-adds: every network trained, and the one chosen."""
        from matplotlib import pyplot as plt

        figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
        for stage, rows in self.trials.groupby("stage", sort=False):
            axis.scatter(rows["macs"], rows["accuracy_val"], label=f"{stage} training")
        chosen = (self.best["macs"], self.best["accuracy_val"])
        axis.scatter(*chosen, s=160, facecolors="none", edgecolors="black", label="chosen")
        axis.set(xlabel="multiply-adds", ylabel="accuracy on validation")
        axis.legend()
        plt.close(figure)  # the caller shows it, once
        return figure

    @property
    def epochs(self) -> float:
        """The training budget spent, in passes over the training images."""
        return float(self.trials["epochs"].sum())


@dataclass(frozen=True, eq=False)
class Funnel:
    """What the arms of one comparison have in common: the network, the cost aimed at, and the training budget.

    Attributes:
        model: the trained base network; never changed.
        graph: its channel graph.
        data: trained on `.train`, everything chosen on `.val`, the one chosen tested on `.test`.
        m: how many candidates are lightly fine-tuned, by the recipe `light`.
        k: how many of them are retrained, by the recipe `full`.
        folder: where everything is stored. Searches may share one: what two of them train alike is trained once.
        min_ratio: the paper's tau, R(r) >= min_ratio.
        macs_window: (low, high), shares of the base network's MACs a candidate must lie in, both ends included. Ours:
            R(r) alone does not fix a cost, and a comparison is fair at equal MACs only.
        criterion: what the top k and the one are chosen by on the validation split: "accuracy" (the paper; ties by
            loss) or "loss" (ties by accuracy), which still tells networks apart when accuracies do not.
        inherit: retraining starts from the base network's weights [our reading], else from new ones.
        seed: of all that is random.
        n_jobs: networks trained at once, each in a process of its own, as in joblib: -1 is one for every core (or every
            worker of a Dask cluster, inside `joblib.parallel_config("dask")`), 1 trains in this process. On a GPU, as
            many as fit into its memory.
        threads: torch threads each of them has. It is not left to the machine, so that results do not depend on n_jobs.
        rates: those a group can be pruned at, the pruning granularity (the paper's 0, 0.1, ..., 0.9).
        tested: measure every network on `.test` as well, to report it; nothing is chosen by that.
        importance: what says which channels of a group survive: scores, or a function (model, graph) -> scores such as one of
            `graphprune.importance`; L1 norms (the paper's) unless given. Rankers that look at pruned networks prune by L1.
        clock: when to stop, by `checkpoint.Paused`; never, unless given. The same search called again goes on from there.
    """

    model: nn.Module
    graph: ChannelGraph
    data: Dataset
    m: int
    k: int
    light: Recipe
    full: Recipe
    folder: str | Path
    min_ratio: float = 0.0
    macs_window: tuple[float, float] = (0.0, 1.0)
    criterion: Literal["accuracy", "loss"] = "accuracy"
    inherit: bool = True
    seed: int = 0
    n_jobs: int = -1
    threads: int = 1
    rates: Sequence[Rate] = RATES
    tested: bool = False
    clock: Clock = field(default_factory=Clock)
    importance: Criterion = None

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def base(self) -> str:
        """What every result depends on: a digest of the base network's weights, the graph and the data."""
        return store.digest([network(self.model), self.graph.fingerprint(), self.data.fingerprint()])

    @cached_property
    def window(self) -> Window:
        """The configurations that are candidates."""
        return Window(self.graph, self.data.example(), self.min_ratio, self.macs_window, self.rates)

    @cached_property
    def scores(self) -> Mapping[str, Tensor]:
        """What says which channels survive at a given rate: L1 norms (SACP, section 3.4) unless `importance` is given."""
        return score_channels(self.importance, self.model, self.graph, self.data, "importance")

    def stage(self, name: str, compute: Callable[[], Any], modules: Sequence[str], **parameters: Any) -> Any:
        """`store.stage` in the folder, in a file for each set of parameters: no search overwrites another's."""
        rates = [str(rate) for rate in self.window.space.rates]
        parameters = {"base": self.base, "seed": self.seed, "rates": rates, **parameters}
        if self.importance is not None:
            parameters["importance"] = dict(self.scores)
        path = Path(self.folder) / name
        path = path.with_stem(f"{path.stem}-{store.digest(parameters)[:12]}")

        def begun() -> Any:
            self.clock.begin(path.stem)
            return compute()

        return store.stage(path, begun, parameters=parameters, modules=modules)


def _check(funnel: Funnel) -> None:
    if not 1 <= funnel.k <= funnel.m:
        raise ValueError(f"k={funnel.k}, m={funnel.m}: k of the m fine-tuned networks are retrained, so 1 <= k <= m")
    for name in ("light", "full"):
        if not isinstance(value := getattr(funnel, name), Recipe):
            raise TypeError(f"{name}={value!r}: must be a train.Recipe, e.g. Recipe(epochs=2, lr=0.01, batch_size=128)")
    if funnel.criterion not in ("accuracy", "loss"):
        raise ValueError(f"criterion={funnel.criterion!r}: must be 'accuracy' or 'loss'")
    if isinstance(funnel.seed, bool) or not isinstance(funnel.seed, int) or funnel.seed < 0:
        raise ValueError(f"seed={funnel.seed!r}: must be an integer >= 0")
    if funnel.n_jobs == 0 or funnel.threads < 1:
        raise ValueError(f"n_jobs={funnel.n_jobs}, threads={funnel.threads}: at least 1 of each (n_jobs=-1: every core)")
    check_dataset(funnel.data)
    funnel.data.demand("train", "val", "test")
    _ = funnel.window  # checks the rest
    if funnel.importance is not None:
        _ = funnel.scores


# --- candidates -> m --------------------------------------------------------------------------------------------------


def rank_draws(funnel: Funnel, score: Score, n_candidates: int) -> pd.DataFrame:
    """The m best of n_candidates draws (Algorithm 1, lines 9-13): `rank`, `indices`, `ratio`, `score`.

    No network stands in it twice: rates that keep the same number of channels everywhere count as one.

    Raises:
        ValueError: there are fewer than m different networks among the draws, or the scores are not one finite number each.
    """
    generator = runtime.seed_generator(funnel.seed, "candidates")
    indices, scores = funnel.window.best(score, n_candidates, funnel.m, generator)
    if len(indices) < funnel.m:
        raise ValueError(
            f"m={funnel.m}: only {len(indices)} different networks among n_candidates={n_candidates} draws; draw more, "
            f"fine-tune fewer, or widen macs_window={funnel.macs_window} or min_ratio={funnel.min_ratio}"
        )
    return rates_table(funnel, indices, scores)


def rates_table(funnel: Funnel, indices: Tensor, scores: Tensor) -> pd.DataFrame:
    """(n, groups) rate indices in the order they were picked in -> candidates: `rank`, `indices`, `ratio`, `score`."""
    ranks, ratios = range(1, len(indices) + 1), funnel.window.space.ratio(indices).tolist()
    return pd.DataFrame({"rank": ranks, "indices": indices.tolist(), "ratio": ratios, "score": scores.tolist()})


def run_ranking(
    funnel: Funnel, score: Score, *, n_candidates: int, ranking: Mapping[str, Any], modules: Sequence[str] = ()
) -> SearchResult:
    """The whole funnel for one way of ranking candidates: an ablation of rankers is a loop over a dict of them.

    Args:
        score: called with all candidates, block by block (`Window.best`), unless what it picked is stored; a ranker gives
            one for a network (`ranker.prepare`).
        ranking: all that the scores depend on, as plain data: what is stored is known by it.
        modules: the modules of graphprune that the scores come from, for the same purpose.

    Raises:
        ValueError: fewer candidates than m, or than m different ones.
    """
    if n_candidates < funnel.m:
        raise ValueError(f"n_candidates={n_candidates}: must be at least m={funnel.m}")
    parameters = {"m": funnel.m, "min_ratio": funnel.min_ratio, "macs_window": funnel.macs_window, "ranking": ranking}

    def compute() -> pd.DataFrame:
        started = time.process_time()
        return rank_draws(funnel, score, n_candidates).assign(ranking_seconds=time.process_time() - started)

    candidates = funnel.stage("top.parquet", compute, ("search.funnel", *modules), n_candidates=n_candidates, **parameters)
    candidates["indices"] = [row.tolist() for row in candidates["indices"]]  # parquet reads lists as arrays
    return finish(funnel, tune(funnel, candidates))


# --- m -> k -> one ----------------------------------------------------------------------------------------------------


def train_candidates(
    funnel: Funnel,
    stage: Literal["light", "full"],
    candidates: pd.DataFrame,
    kept: Tensor,
    recipe: Recipe,
    restarts: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Prune, train and measure candidates on the validation split, each stored the moment it is done.

    Args:
        stage: "full" stores the trained weights as well.
        candidates: a row each, with `rank`, `indices`, `ratio` and `score`.
        kept: (n, num_atoms) bool, their channels.
        restarts: a number each for the order of the training images; the same, 0, unless given.

    Returns:
        The candidates with cost, `accuracy_val`, `loss_val`, `epochs`, `seed`, `seconds`, `failed`, `counts`, `kept`
        and `weights`.
    """
    task = Task(
        model=funnel.model,
        costs=funnel.window.costs,
        data=funnel.data,
        base=funnel.base,
        recipe=recipe,
        inherit=funnel.inherit,
        threads=funnel.threads,
        folder=Path(funnel.folder).absolute() / stage,  # a worker has a working directory of its own
        store_weights=stage == "full",
        tested=funnel.tested,
        clock=funnel.clock,
    )
    seeds = [1000 * funnel.seed + restart for restart in restarts or [0] * len(kept)]
    trials = [Trial(task, mask, seed) for mask, seed in zip(kept, seeds, strict=True)]
    rows = pd.DataFrame(run_all(trials, funnel.n_jobs, f"{stage} training"), index=candidates.index)
    counts = torch.stack([kept[:, span].sum(1) for span in funnel.graph.slices.values()], 1)
    measured = rows[["macs", "params", "seed", "failed"]].join(rows[[name for name in MEASURED if name in rows]].astype(float))
    return candidates.assign(
        stage=stage,
        counts=counts.tolist(),
        epochs=float(recipe.epochs),
        kept=kept.tolist(),
        weights=[str(trial.weights) for trial in trials],
        **{str(name): column for name, column in measured.items()},
    )


def tune(funnel: Funnel, candidates: pd.DataFrame) -> pd.DataFrame:
    """Fine-tune candidates lightly and measure them on the validation split (Algorithm 1, line 14)."""
    indices = torch.tensor(candidates["indices"].tolist())
    kept = kept_masks(funnel.graph, indices, funnel.scores, funnel.rates)
    return train_candidates(funnel, "light", candidates, kept, funnel.light)


def finish(funnel: Funnel, light: pd.DataFrame) -> SearchResult:
    """Retrain the k best and choose one of them (Algorithm 1, lines 15-16)."""
    finalists = sort_trials(light, funnel.criterion).head(funnel.k).reset_index(drop=True)
    finalists["rank"] = range(1, len(finalists) + 1)
    kept = torch.tensor(finalists["kept"].tolist())
    return choose(funnel, train_candidates(funnel, "full", finalists, kept, funnel.full), light)


def choose(funnel: Funnel, full: pd.DataFrame, light: pd.DataFrame | None = None) -> SearchResult:
    """Choose one of the retrained on the validation split and test it alone (the paper chooses by test accuracy)."""
    chosen = sort_trials(full, funnel.criterion).index[0]
    weights = Path(full.loc[chosen, "weights"])
    keep = funnel.graph.unflatten(torch.tensor(full.loc[chosen, "kept"]))
    model = prune(funnel.model, funnel.graph, keep, check=False)  # as its trial did
    model.load_state_dict(read_weights(store.load(weights)))
    tested = store.stage(
        weights.with_name(f"{weights.stem}-test.json"),
        lambda: dataclasses.asdict(train.evaluate(model, funnel.data.test)),
        parameters={"base": funnel.base},
        modules=("search.trial",),
        inputs=[weights],
    )
    full = full if funnel.tested else full.assign(accuracy_test=float("nan"))
    full.loc[chosen, "accuracy_test"] = tested["accuracy"]
    spent = [part for part in (light, full) if part is not None]
    trials = pd.concat([part.reindex(columns=COLUMNS) for part in spent], ignore_index=True)
    ranking = float(light["ranking_seconds"].iloc[0]) if light is not None and "ranking_seconds" in light else 0.0
    core = ranking + sum(float(part["core_seconds"].sum()) for part in spent)
    return SearchResult(keep, full.loc[chosen, COLUMNS].to_dict(), trials, model, core, ranking)


class AllFailedError(RuntimeError):
    """No training of a stage succeeded, so that there is none to choose."""


def sort_trials(rows: pd.DataFrame, criterion: str) -> pd.DataFrame:
    """Trained networks from the best on validation down; ties go to the other measure, then to the better rank.

    Raises:
        AllFailedError: all of them failed.
    """
    if (rows["failed"] != "").all():
        first = rows["failed"].iloc[0]
        raise AllFailedError(f"all {len(rows)} trainings failed, the first by: {first}; see `light` and `full`")
    rows = rows[rows["failed"] == ""]
    by, ascending = ["accuracy_val", "loss_val", "rank"], [False, True, True]
    if criterion == "loss":
        by, ascending = ["loss_val", "accuracy_val", "rank"], [True, False, True]
    return rows.sort_values(by, ascending=ascending, kind="stable")
