"""Strata drawn exactly uniformly, against enumeration; a survey's truths, against pruning and training by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

import graphprune
from graphprune import train
from graphprune.pruning.masks import keep_from_rates
from graphprune.pruning.rates import RateSpace
from graphprune.runs import runtime
from graphprune.studies import census
from graphprune.training.recipe import Recipe

LIGHT = Recipe(epochs=0.2, lr=0.02, batch_size=64)
TINY = census.Census("tiny", "digits", "tiny_cnn", Recipe(1, 0.1, 64), LIGHT, LIGHT, per_band=2, fully=2, top=3, draws=500)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return census.Survey(TINY, tmp_path_factory.mktemp("census"))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (0.4, 0.5), (0.7, 0.8)])
def test_a_band_of_ratio_is_exactly_uniform(low, high) -> None:
    graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    space = RateSpace(graph)
    every = torch.tensor(list(itertools.product(range(10), repeat=space.groups)))
    ratio = space.ratio(every)
    inside = {tuple(row) for row in every[(ratio > low - 1e-9) & (ratio < high + 1e-9)].tolist()}
    pieces = census.draw_ratio_band(space, low, high, runtime.seed_generator(0))
    drawn = [tuple(row) for row in torch.cat(list(itertools.islice(pieces, 8))).tolist()]
    assert set(drawn) == inside
    counts = np.unique([hash(row) for row in drawn], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_stratum_u_has_its_bands_and_no_network_twice() -> None:
    chosen = census.Census("u", "digits", "resnet8", Recipe(0.1, 0.1, 64), LIGHT, LIGHT, per_band=6, fully=0)
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        there = census.Survey(chosen, Path(folder))
        rows = census.draw_uniform(there)
        assert (rows.groupby("band").size() == 6).all()
        assert (rows.groupby("band")["part"].apply(lambda part: (part == "design").sum()) == 2).all()
        indices = torch.tensor(rows["indices"].tolist())
        assert len(there.anywhere.counts(indices).unique(dim=0)) == len(rows)
        ratio, share = there.anywhere.space.ratio(indices), there.anywhere.shares(there.anywhere.counts(indices))
        for band, r, s in zip(rows["band"], ratio.tolist(), share.tolist(), strict=True):
            kind, bounds = band.split()
            low, high = map(float, bounds.split("-"))
            assert low - 1e-9 <= {"R": r, "MACs": s}[kind] <= high + 1e-9
        assert rows.equals(census.draw_uniform(there))  # the same seed, the same stratum


def test_truths_are_those_of_pruning_and_training_by_hand(survey) -> None:
    indices = torch.tensor([[3] * len(survey.graph.groups), [0] * len(survey.graph.groups)])
    found = census.measure_networks(survey, indices, LIGHT, seed=1)
    with runtime.threads(1):
        small = graphprune.prune(survey.model, survey.graph, keep_from_rates(survey.graph, indices[0], survey.scores))
        train.reestimate_bn(small, survey.data, seed=1)
        train.fit(small, survey.data, LIGHT, seed=1)
        by_hand = train.evaluate(small, survey.data.test)
    assert found.loc[0, "accuracy_test"] == by_hand.accuracy
    assert found.loc[0, "loss_test"] == pytest.approx(by_hand.loss)
    assert found["seconds"].gt(0).all()


def test_what_was_measured_is_not_measured_again(survey, monkeypatch) -> None:
    indices = torch.tensor([[4] * len(survey.graph.groups)])
    first = census.measure_networks(survey, indices, LIGHT, seed=0)
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("it was trained again"))
    assert census.measure_networks(survey, indices, LIGHT, seed=0).equals(first)


def test_a_network_too_small_for_its_bands(survey) -> None:
    with pytest.raises(ValueError, match="per_band=2: a band holds only"):
        census.draw_uniform(survey)
