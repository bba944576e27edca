"""The committed tables: whole, of the columns that are promised, and honest about what was labelled."""

import os
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch

from graphprune import tabular
from graphprune.ranking.correlation import spearman
from graphprune.runs import store

FIXED = ["indices", "stratum", "part", "ratio", "macs", "params", "accuracy_val", "accuracy_test", "seed", "seconds"]
each = pytest.mark.parametrize("name", tabular.names())


def test_the_tables_are_there() -> None:
    assert set(tabular.names()) >= {"digits", "digits_resnet8", "cifar10"}


@each
def test_columns_strata_and_parts(name: str) -> None:
    table = tabular.load(name)
    assert set(table.columns) >= {*FIXED, "loss_val", "loss_test", "score_default"}
    assert set(table["stratum"]) <= {"U", "T"}
    assert set(table["part"]) == {"design", "report"}
    assert isinstance(table["indices"].iloc[0], list)
    assert isinstance(table["indices"].iloc[0][0], int)
    assert table[["accuracy_val", "accuracy_test", "loss_val", "loss_test", "macs", "ratio"]].notna().all(axis=None)
    assert table["accuracy_test"].between(0, 1).all()
    assert table["ratio"].between(0, 0.9).all()


@each
def test_every_configuration_stands_once_under_every_seed(name: str) -> None:
    table = tabular.load(name)
    keys = table["indices"].map(tuple)
    assert (table.groupby(keys)["seed"].agg(list).map(sorted).map(tuple) == (0, 1)).all()
    first, second = (part.reset_index(drop=True) for _, part in table.groupby("seed"))
    about = [
        "indices",
        "stratum",
        "band",
        "part",
        "macs",
        *(column for column in table if column.startswith(("score_", "rank_"))),
    ]
    pd.testing.assert_frame_equal(first[about], second[about])


@each
def test_a_third_is_for_design_in_every_band(name: str) -> None:
    rows = tabular.once(tabular.load(name))
    for _, band in rows.groupby(["stratum", "band"]):
        assert abs((band["part"] == "design").mean() - 1 / 3) <= 1 / len(band)


def test_sizes_that_the_issue_asks_for() -> None:
    assert len(tabular.once(tabular.load("digits"))) >= 1500
    assert len(tabular.once(tabular.load("cifar10"))) >= 150


def test_two_seeds_agree_so_that_there_is_something_to_rank() -> None:
    table = tabular.load("digits")
    uniform = (tabular.once(table)["stratum"] == "U").to_numpy()
    assert spearman(*tabular.truths(table, "accuracy_test")[:, uniform]) > 0.9


def test_macs_and_ratio_are_those_of_the_network() -> None:
    """Against the network itself: trace, cost model and space, not the code that wrote the table."""
    import graphprune

    table = tabular.once(tabular.load("digits_resnet8"))
    model, example = graphprune.models.build("resnet8", in_channels=1).eval(), torch.zeros(1, 1, 8, 8)
    graph = graphprune.trace(model, example)
    scores, rows = graphprune.importance.l1(model, graph), tabular.rates(table)
    for place in (0, len(table) // 2, len(table) - 1):
        keep = graphprune.keep_from_rates(graph, rows[place], scores)
        small = graphprune.cost(graphprune.prune(model, graph, keep), example)
        assert (small.macs, small.params) == (table["macs"][place], table["params"][place])


@each
def test_every_ranker_says_what_it_costs(name: str) -> None:
    took, table = tabular.seconds(name), tabular.load(name)
    assert (took >= 0).all(axis=None)
    for ranker in took.index:
        assert np.isfinite(tabular.scores(table, ranker)).all()


def frame() -> pd.DataFrame:
    rows = [{"indices": [i], "seed": seed, "accuracy_test": i + 10 * seed} for seed in (0, 1) for i in range(3)]
    truths = {name: 0.5 for name in ("accuracy_val", "loss_val", "loss_test", "seconds")}
    full = {f"full_{name}": [1.0, np.nan, 3.0, 5.0, np.nan, np.nan] for name in tabular.TRUTHS}
    said = {"score_a_0": 1.0, "score_a_1": 2.0, "score_ab_0": 3.0, "score_b": 4.0, "score_a_b_0": 5.0}
    return pd.DataFrame(rows).assign(**truths, **full, **said)


def test_once_is_the_mean_over_seeds_that_have_it() -> None:
    rows = tabular.once(frame())
    assert rows["accuracy_test"].tolist() == [5, 6, 7]
    np.testing.assert_array_equal(rows["full_accuracy_test"], [3, np.nan, 3])


def test_truths_are_by_seed() -> None:
    assert tabular.truths(frame(), "accuracy_test").tolist() == [[0, 1, 2], [10, 11, 12]]


def test_scores_of_a_ranker_are_not_those_of_one_whose_name_begins_alike() -> None:
    rows = tabular.once(frame())
    assert tabular.scores(rows, "a")[:, 0].tolist() == [1, 2]
    assert tabular.scores(rows, "b").shape == (1, 3)
    with pytest.raises(ValueError, match="name='c': no ranker of that name"):
        tabular.scores(rows, "c")


def test_a_table_that_is_not_there_or_was_changed(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="name='digit': there is no such table; choose from cifar10, digits"):
        tabular.load("digit")
    path = tmp_path / "mine.parquet"
    store.save(path, frame(), {})
    path.with_suffix(".md").write_text("made by hand")
    monkeypatch.setattr(tabular, "folder", lambda: tmp_path)
    assert tabular.load("mine").attrs["card"] == "made by hand"
    path.write_bytes(path.read_bytes()[:-9] + b"otherwise")
    with pytest.raises(store.CorruptedError):
        tabular.load("mine")


def test_a_table_whose_writing_is_killed_is_the_old_one(tmp_path, monkeypatch) -> None:
    """However many files are put in place when a table is saved: killed before any of them, it is the old table or the new."""
    monkeypatch.setattr(tabular, "folder", lambda: tmp_path)
    path, replace = tmp_path / "mine.parquet", os.replace
    path.with_suffix(".md").write_text("made by hand")
    for step in (0, 1, 2):
        tabular.save(frame(), path, {})
        left = iter([replace] * step)

        def killed(source, target, left=left) -> None:
            if (done := next(left, None)) is None:
                raise SystemExit
            done(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with suppress(SystemExit):
                tabular.save(frame().assign(seconds=99.0), path, {})
        assert set(tabular.load("mine")["seconds"]) == {0.5 if step == 0 else 99.0}


@each
def test_a_committed_table_is_read_by_plain_pandas(name: str) -> None:
    plain = pd.read_parquet(tabular.folder() / f"{name}.parquet")
    pd.testing.assert_frame_equal(plain.drop(columns="indices"), tabular.load(name).drop(columns="indices"))


def test_a_committed_table_is_one_file_and_its_card() -> None:
    assert not list(tabular.folder().glob("*.provenance.json"))


def test_tables_are_found_from_anywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(tabular.load("digits_resnet8"))
