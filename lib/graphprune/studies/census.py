"""A census of pruned networks: which configurations of a network are really pruned, trained and measured, and how.

Rankings can only be judged where the truth is known for networks that no ranker picked, and for those it picked. So
there are two strata: U, configurations exactly uniform within bands of R(r) and of MACs, and T, the best of a million
candidates of each ranker. All are trained the same light way under two seeds, some of them fully as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.groups import trace
from graphprune.pruning import importance
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.rates import RateSpace
from graphprune.pruning.window import Score, Window
from graphprune.runs import runtime, store
from graphprune.runs.description import network
from graphprune.search.trial import Task, Trial, run_all
from graphprune.studies.tabular import TRUTHS, folder
from graphprune.training import base_network, data, models
from graphprune.training.data import Dataset
from graphprune.training.recipe import Recipe
from graphprune.training.splits import TensorSplit, stratified

RATIO_EDGES = tuple(tenth / 10 for tenth in range(10))
MACS_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
LOOKED = 300  # validation images that an untrained network is judged by, at most
PIECES = 200  # of draws, before a band is given up
DESIGN = 1 / 3
"""The share of each band on which rankers may be designed; the rest is only for reporting."""


@dataclass(frozen=True)
class Census:
    """What is measured, and how.

    Attributes:
        name: the table's.
        dataset, network: as `data.load` and `models.build` take them.
        base: how the unpruned network is trained; None = public weights.
        seed: of the unpruned network and of all draws.
        images: validation and test images each that measure a network; None for all.
        per_band: configurations in each band of R(r) and of MACs (stratum U).
        light: the recipe every configuration is trained by, under each of `seeds`.
        full: the recipe some are trained by as well, under each of `seeds`.
        fully: how many of stratum U are; of stratum T what rankers named, under the first seed.
        encoders: encoders trained for each reading of the paper, and draws of labels for learners.
        lessons: networks that the suite's own ranker looks at before it scores.
        flights: networks that the bee colony looks at.
        source: another census, what is learned on which is carried to this one; "" for none.
        restarts: how many of a random ranker's candidates are also trained from new weights, by the recipe `anew`.
        window: MACs of stratum T, shares of the whole network's.
        top: configurations of stratum T a ranker.
        draws: candidates they are the best of.
    """

    name: str
    dataset: str
    network: str
    base: Recipe | None
    light: Recipe
    full: Recipe
    per_band: int
    fully: int
    window: tuple[float, float] = (0.2, 0.22)
    top: int = 150
    draws: int = 1_000_000
    images: int | None = None
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1)
    encoders: int = 2
    lessons: int = 1000
    flights: int = 512
    source: str = ""
    restarts: int = 0
    anew: Recipe | None = None


@dataclass(frozen=True, eq=False)
class Survey:
    """A census at work: the network, its graph, its data, and the folder of what was measured."""

    census: Census
    folder: Path

    @cached_property
    def data(self) -> Dataset:
        found = data.load(self.census.dataset)
        found = found if self.census.base else found.for_public_weights()
        if self.census.images is None:
            return found
        return replace(found, val=_some(found.val, self.census.images), test=_some(found.test, self.census.images))

    @cached_property
    def looked(self) -> Dataset:
        """The same with `LOOKED` validation images at most: what rankers see that look at networks themselves."""
        few = len(self.data.val) <= LOOKED
        return self.data if few else replace(self.data, val=_some(self.data.val, LOOKED))

    @cached_property
    def model(self) -> nn.Module:
        """The trained network: its weights from beside the committed table, if they are there, the same on any machine."""
        census, shape = self.census, self.data.input_shape
        if census.base is None or not self.weights.is_file():
            return base_network.network(census.network, self.data, census.base, seed=census.seed, folder=self.folder)
        model = models.build(census.network, num_classes=self.data.num_classes, in_channels=shape[0])
        model.load_state_dict(store.load(self.weights))
        return model.eval()

    @property
    def weights(self) -> Path:
        """Where the committed weights are."""
        return folder() / f"{self.census.name}.safetensors"

    @cached_property
    def graph(self) -> ChannelGraph:
        return trace(self.model, self.data.example())

    @cached_property
    def scores(self) -> Mapping[str, Tensor]:
        """The L1 norms that say which channels survive."""
        return importance.l1(self.model, self.graph)

    @cached_property
    def anywhere(self) -> Window:
        return Window(self.graph, self.data.example())

    def generator(self, *purpose: str) -> torch.Generator:
        return runtime.seed_generator(self.census.seed, "census", *purpose)

    def fingerprint(self) -> str:
        """What every result depends on."""
        return self.base

    @cached_property
    def base(self) -> str:
        """What every result depends on: a digest of the network's weights, the graph and the data."""
        return store.digest([network(self.model), self.graph.fingerprint(), self.data.fingerprint()])

    def trials(self, indices: Tensor, recipe: Recipe, seed: int, inherit: bool = True) -> list[Trial]:
        task = Task(
            model=self.model,
            costs=self.anywhere.costs,
            data=self.data,
            base=self.base,
            recipe=recipe,
            inherit=inherit,
            threads=1,
            folder=self.folder.absolute() / "trials",
            store_weights=False,
            tested=True,
        )
        return [Trial(task, mask, seed) for mask in kept_masks(self.graph, indices, self.scores)]


def _some(split: object, images: int) -> TensorSplit:
    assert isinstance(split, TensorSplit)
    return split.take(stratified(split.labels, images)[1])


# --- strata -----------------------------------------------------------------------------------------------------------


def draw_uniform(survey: Survey) -> pd.DataFrame:
    """Stratum U: `indices`, `band` and `part` of configurations exactly uniform within bands, no network twice."""
    window, seen = survey.anywhere, set[tuple[int, ...]]()
    least, bands = float(window.shares(window.table[:, -1:].T)), dict[str, Iterator[Tensor]]()
    for low, high in pairwise(RATIO_EDGES):
        name = f"R {low}-{high}"
        bands[name] = draw_ratio_band(window.space, low, high, survey.generator(name))
    for low, high in pairwise(MACS_EDGES):
        if high > least:
            name = f"MACs {low}-{high}"
            bands[name] = _pieces(replace(window, macs=(low, high)), survey.generator(name))
    count = survey.census.per_band
    rows = [(name, row) for name, pieces in bands.items() for row in _different(window, pieces, seen, count)]
    frame = pd.DataFrame(rows, columns=["band", "indices"])
    return frame.assign(stratum="U", part=split_parts(frame["band"], survey.generator("parts of U")))


def draw_ratio_band(space: RateSpace, low: float, high: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Configurations exactly uniform in { r : low <= R(r) <= high }, piece by piece without end.

    Uniform draws above `low`, those above `high` dropped; below the middle of the space, mirrored: r -> r_max - r maps
    what lies above one bound onto what lies below another.
    """
    top = len(space.rates) - 1
    mirrored = low + high < space.max_ratio
    floor = space.max_ratio - high if mirrored else low
    while True:
        drawn: Tensor = space.sample(1 << 14, round(floor, 6), generator)
        rows = top - drawn if mirrored else drawn
        ratio = space.ratio(rows)
        yield rows[(ratio >= low - 1e-12) & (ratio <= high + 1e-12)]


def _pieces(window: Window, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield window.draw(256, generator)


def _different(window: Window, pieces: Iterator[Tensor], seen: set[tuple[int, ...]], count: int) -> list[list[int]]:
    """The first `count` configurations that are networks not seen before.

    Raises:
        ValueError: there are fewer.
    """
    found: list[list[int]] = []
    for rows in islice(pieces, PIECES):
        for row, counts in zip(rows.tolist(), window.counts(rows).tolist(), strict=True):
            if tuple(counts) not in seen and len(found) < count:
                seen.add(tuple(counts))
                found.append(row)
        if len(found) == count:
            return found
    raise ValueError(f"per_band={count}: a band holds only {len(found)} networks that differ; ask for fewer")


def split_parts(groups: pd.Series, generator: torch.Generator) -> list[str]:
    """ "design" for a third of each group, drawn at random, "report" for the rest."""
    order = pd.Series(torch.randperm(len(groups), generator=generator).tolist(), index=groups.index)
    share = order.groupby(groups).rank() / groups.groupby(groups).transform("size")
    return ["design" if value <= DESIGN else "report" for value in share]


def pick_best(survey: Survey, score: Score) -> Tensor:
    """The best of the draws within the window, (top, groups), the best first, no network twice: stratum T of one ranker."""
    window = replace(survey.anywhere, macs=survey.census.window)
    return window.best(score, survey.census.draws, survey.census.top, survey.generator("candidates"))[0]


# --- truths -----------------------------------------------------------------------------------------------------------


def measure_networks(survey: Survey, indices: Tensor, recipe: Recipe, seed: int, inherit: bool = True) -> pd.DataFrame:
    """Prune, train and measure; each network is stored when it is done, and loaded when it was done before.

    Returns:
        A row each, in their order: `TRUTHS`, NaN where a training failed.
    """
    rows = pd.DataFrame(run_all(survey.trials(indices, recipe, seed, inherit), -1, f"{survey.census.name}, seed {seed}"))
    return rows[list(TRUTHS)].astype(float)
