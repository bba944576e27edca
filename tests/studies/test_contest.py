"""A table made from nothing, on a network small enough; what stands in it is what was measured and said."""

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphprune
from graphprune import tabular
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled
from graphprune.ranking.rankers import LogWidths, RandomOrder, Similarity, Untrained
from graphprune.runs import jobs
from graphprune.runs.description import modules
from graphprune.runs.jobs import Died
from graphprune.search import trial
from graphprune.studies import contest, entrants
from graphprune.studies.census import Census, Survey, measure_networks
from graphprune.training.recipe import Recipe

DRIVER = os.getpid()
LIGHT = Recipe(epochs=0.2, lr=0.02, batch_size=64)
TINY = Census(
    "tiny", "digits", "resnet8", Recipe(1, 0.1, 64), LIGHT, LIGHT, per_band=1, fully=5, top=4, draws=500, window=(0.1, 0.9)
)


def test_what_a_ranker_holds_counts_among_its_sources() -> None:
    digits = graphprune.data.load("digits")
    assert modules(Distilled(ClassMeans(digits))) == ("ranking.class_means", "ranking.distilled")
    assert modules(entrants.Redrawn(Similarity(), entrants.drop_edges)) == (
        "encoders.contrast",
        "ranking.rankers",
        "studies.entrants",
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    survey = Survey(TINY, tmp_path_factory.mktemp("contest"))
    drawn = contest.draw_uniform(survey)
    rankers = {"similarity_0": Similarity(n_train=32, epochs=1), "random_0": RandomOrder(), "log_widths": LogWidths()}
    tops = {
        name: contest._named(survey, name, ranker) for name, ranker in {"random": RandomOrder(), "best": LogWidths()}.items()
    }
    chosen = contest.join_candidates(survey, drawn, tops)
    return (
        survey,
        rankers,
        tops,
        contest.assemble(survey, chosen, tops, contest.score_all(survey, tabular.rates(chosen), rankers)),
    )


def test_scores_are_the_rankers_own(made) -> None:
    survey, rankers, _, table = made
    for name, ranker in rankers.items():
        expected = ranker(survey.graph, survey.model, tabular.rates(table)).double().numpy()
        np.testing.assert_allclose(table[f"score_{name}"], expected, rtol=1e-5)


def test_what_rankers_took(made) -> None:
    survey, rankers, _, table = made
    found = contest.measure_seconds(survey, len(table) // 2, rankers)
    assert found["ranker"].tolist() == ["similarity", "random", "log_widths"]
    assert (found[["prepare", "per_1000"]] >= 0).all(axis=None)


class Deadly(LogWidths):
    """Kills its process, unless that is the one that counts the rankers: there it must not run."""

    def prepare(self, graph, model):
        if os.getpid() == DRIVER:
            raise AssertionError("run again in the driver")
        os.kill(os.getpid(), signal.SIGKILL)


def by_first(graph, model, indices):
    """A ranker that is a function."""
    return -indices[:, 0].double()


def test_a_ranker_that_dies_is_left_out_and_takes_nobody_with_it(made, monkeypatch) -> None:
    survey, _, _, _ = made
    indices, ran = torch.zeros(2, len(survey.graph.groups), dtype=torch.int64), []

    def run(function, shared, items, n_jobs, desc):
        ran.append([name for name, _ in items])
        return [Died("killed") if isinstance(ranker, Deadly) else function(shared, (name, ranker)) for name, ranker in items]

    monkeypatch.setattr(jobs, "run", run)
    with pytest.warns(UserWarning, match="1 of 2 rankers said nothing and are left out: deadly: killed"):
        found = contest.score_all(survey, indices, {"deadly": Deadly(), "first": by_first})
    assert list(found) == ["first"]
    assert found["first"].tolist() == [0.0, 0.0]
    assert contest.measure_seconds(survey, 2, found)["ranker"].tolist() == ["first"]
    assert ran == [["deadly", "first"]]


def test_looks_of_a_killed_build_are_not_repeated(made, monkeypatch) -> None:
    survey, _, _, _ = made
    small, looked = Survey(replace(TINY, lessons=120), survey.folder), []

    def prepare(self, graph, model):
        def score(indices):
            looked.append(len(indices))
            if len(looked) == 3:
                raise KeyboardInterrupt
            return -indices.sum(1).double()

        return score

    monkeypatch.setattr(ClassMeans, "prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        contest._taught_ranker(small)
    lessons = contest._taught_ranker(small).lessons
    assert looked == [50, 50, 20, 20]
    assert torch.equal(lessons.taught, -lessons.indices.sum(1).double())


def test_stratum_t_is_what_rankers_named(made) -> None:
    survey, _, tops, table = made
    rows = tabular.once(table)
    for name, indices in tops.items():
        named = rows[rows[f"rank_{name}"].notna()].sort_values(f"rank_{name}")
        assert named[f"rank_{name}"].tolist() == [1, 2, 3, 4]
        assert survey.anywhere.counts(tabular.rates(named)).tolist() == survey.anywhere.counts(indices).tolist()
        assert named["macs_share"].between(0.1, 0.9).all()
    assert set(rows.loc[rows["stratum"] == "U", "band"]) - {""}
    assert len({tuple(row) for row in survey.anywhere.counts(tabular.rates(rows)).tolist()}) == len(rows)


def test_truths_are_the_measured_ones(made) -> None:
    survey, _, _, table = made
    second = table[table["seed"] == 1].reset_index(drop=True)
    again = measure_networks(survey, tabular.rates(second), LIGHT, 1)
    pd.testing.assert_frame_equal(second[list(tabular.TRUTHS)], again, check_dtype=False)
    full = table["full_accuracy_test"].notna()
    assert full[table["seed"] == 1].sum() == 5  # a part of U; under the first seed what rankers named as well
    assert full[(table["seed"] == 0) & table["rank_random"].notna()].all()


def test_a_second_making_trains_nothing(made, monkeypatch) -> None:
    survey, rankers, tops, table = made
    monkeypatch.setattr(trial, "_fit", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(Untrained, "prepare", lambda *_: pytest.fail("asked again"))
    chosen = contest.join_candidates(survey, contest.draw_uniform(survey), tops)
    again = contest.assemble(survey, chosen, tops, contest.score_all(survey, tabular.rates(chosen), rankers))
    pd.testing.assert_frame_equal(again, table)


def test_a_table_is_written_small_and_read_whole(made, tmp_path, monkeypatch) -> None:
    survey, _, _, table = made
    path = tmp_path / "tiny.parquet"
    tabular.save(table, path, {"made": "here"})
    path.with_suffix(".md").write_text(contest.card(survey, table))
    monkeypatch.setattr(tabular, "folder", lambda: tmp_path)
    pd.testing.assert_frame_equal(tabular.load("tiny"), table, check_dtype=False, rtol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".lock") == ["tiny.md", "tiny.parquet"]


def test_the_card_says_how(made) -> None:
    survey, _, _, table = made
    text = contest.card(survey, table)
    for part in ("resnet8", "1,137 training, 300 validation and 360 test", "random 4, best 4", "0.2 epochs of SGD", "MIT"):
        assert part in text


def test_no_such_census() -> None:
    with pytest.raises(ValueError, match="name='digit': there is no such census; choose from digits, "):
        contest.build("digit")


def test_census_names_are_their_keys() -> None:
    assert all(name == census.name for name, census in contest.CENSUSES.items())
    assert graphprune.tabular is tabular


def test_a_census_without_candidates(made) -> None:
    survey, rankers, _, _ = made
    drawn = contest.draw_uniform(survey)
    assert contest.join_candidates(survey, drawn, {}).equals(drawn)
    table = contest.assemble(survey, drawn, {}, contest.score_all(survey, tabular.rates(drawn), rankers))
    assert set(table["stratum"]) == {"U"}
    assert "none here" in contest.card(survey, table)
