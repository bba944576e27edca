import pandas as pd
import pytest
import torch
from digits_task import setting, task

from graphprune import contrast
from graphprune.contrast import fit, loss_repel_own
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.pruning.rates import RATES
from graphprune.ranking.distilled import Distilled
from graphprune.ranking.rankers import LogWidths, RandomOrder
from graphprune.runs import runtime
from graphprune.search import trial
from graphprune.search.algorithm1 import SearchResult, sacp, trained_encoder
from graphprune.search.funnel import Funnel

SIZES = {"n_train": 64, "n_candidates": 2000, "epochs": 2}


def search(folder, **changes):
    return sacp(*task(), **({"min_ratio": 0.3} | SIZES | setting(folder) | changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sacp")
    return folder, search(folder)


def test_algorithm_1_step_by_step(done):
    """The same by hand, from the parts: draws, encoder, cosines, top m."""
    _, result = done
    model, graph, data = task()
    asked = Funnel(model, graph, data, **setting("unused", min_ratio=0.3))
    training = asked.window.space.sample(64, 0, runtime.seed_generator(0, "training configurations"))
    start = runtime.seed_generator(0, "encoder").initial_seed()
    encoder = GraphEncoder.seeded(start, graph.feature_index.shape[1])
    fit(encoder, graph, model, indices=training, epochs=2, seed=0)
    candidates = asked.window.draw(2000, runtime.seed_generator(0, "candidates"))
    scores = Scorer(encoder, graph, asked.scores)(candidates)
    light = result.trials[result.trials["stage"] == "light"]
    assert light["score"].tolist() == scores.unique().flip(0)[:4].tolist()
    assert light["indices"].tolist() == [candidates[int((scores == s).nonzero()[0])].tolist() for s in light["score"]]


def test_the_result_says_all_a_table_needs(done):
    _, result = done
    assert isinstance(result, SearchResult)
    assert len(result.trials) == 6
    assert (result.trials["ratio"] >= 0.3).all()
    assert result.trials["accuracy_test"].notna().sum() == 1
    assert result.epochs == pytest.approx(4 * 0.3 + 2 * 0.6)
    assert result.best["accuracy_test"] == result.trials["accuracy_test"].max()
    assert result.trials.notna().drop(columns="accuracy_test").all().all()


def test_a_second_call_trains_and_ranks_nothing(done, monkeypatch):
    folder, result = done
    monkeypatch.setattr(trial, "_fit", None)
    monkeypatch.setattr(contrast, "fit", None)
    monkeypatch.setattr(Scorer, "__call__", None)
    pd.testing.assert_frame_equal(search(folder).trials, result.trials)


def test_the_encoder_is_trained_once_for_many_searches(done, monkeypatch):
    folder, result = done
    monkeypatch.setattr(contrast, "fit", None)
    wider = search(folder, m=5)
    first = wider.trials[wider.trials["stage"] == "light"].head(4)
    pd.testing.assert_frame_equal(first, result.trials[result.trials["stage"] == "light"])


def test_training_configurations_are_unconstrained_unless_asked(done, monkeypatch, tmp_path):
    seen = []

    def spy(encoder, graph, scores, *, indices, **options):
        seen.append((indices, {name: value for name, value in options.items() if name != "checkpoint"}))

    monkeypatch.setattr(contrast, "fit", spy)
    for constrained in (False, True):
        search(tmp_path, min_ratio=0.6, macs_window=(0, 1), constrained=constrained, contrast_options={"loss": loss_repel_own})
    space = Funnel(*task(), **setting(tmp_path)).window.space
    free, bound = (space.ratio(indices) for indices, _ in seen)
    assert free.min() < 0.5
    assert bound.min() >= 0.6 - 1e-6
    assert seen[0][1] == {"epochs": 2, "seed": 0, "rates": RATES, "loss": loss_repel_own}


def test_options_reach_the_encoder(tmp_path):
    asked = Funnel(*task(), **setting(tmp_path))
    parameters = {"n_train": 32, "min_ratio": 0, "epochs": 1, "contrast_options": {}}
    gat = trained_encoder(asked, encoder_options={"kind": "gat", "hidden": 8}, **parameters)
    assert (gat.kind, gat.hidden) == ("gat", 8)
    again = trained_encoder(asked, encoder_options={"kind": "gat", "hidden": 8}, **parameters)
    assert all(torch.equal(a, b) for a, b in zip(gat.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_train": 0}, ValueError, "n_train=0, epochs=2: the encoder needs at least 1"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"n_candidates": 2}, ValueError, "n_candidates=2: must be at least m=4"),
        ({"min_ratio": 0.91}, ValueError, r"min_ratio=0.91: must lie in \[0, 0.9\]"),
        ({"contrast_options": {"loss": torch.Generator()}}, TypeError, "it cannot be known whether it changed"),
        ({"encoder_options": {"kinds": "gat"}}, ValueError, "encoder_options: 'kinds' is unknown; choose from kind, hidden"),
        ({"contrast_options": {"tau": 1}}, ValueError, "contrast_options: 'tau' is unknown; choose from triads, loss"),
        ({"encoder_options": {"kind": "mlp"}}, ValueError, "kind='mlp'"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        search(tmp_path / "new", **changes)
    assert not list((tmp_path / "new").rglob("[!.]*"))


def test_another_ranker_stands_in_for_similarity(tmp_path):
    """The first of its list is the draw it likes best, and what is stored is known by its settings."""
    model, graph, _ = task()
    result = search(tmp_path, ranker=LogWidths())
    light = result.trials[result.trials["stage"] == "light"]
    scores = LogWidths()(graph, model, torch.tensor(light["indices"].tolist()))
    assert light["score"].tolist() == pytest.approx(scores.tolist())
    assert light["score"].is_monotonic_decreasing
    assert search(tmp_path, ranker=RandomOrder()).trials["indices"].tolist() != result.trials["indices"].tolist()


def test_the_pruning_granularity_is_a_parameter(tmp_path):
    """Quarters in place of tenths, in the draws, the encoder's training, the networks and the key of what is stored."""
    model, graph, data = task()
    rates = (0, 0.25, 0.5)
    found = search(tmp_path, rates=rates, min_ratio=0.2)
    light = found.trials[found.trials["stage"] == "light"]
    for row in light.itertuples():
        assert row.counts == [(group.channels * (4 - i)) // 4 for group, i in zip(graph.groups, row.indices, strict=True)]
    funnel = Funnel(model, graph, data, **setting(tmp_path, min_ratio=0.2), rates=rates)
    assert bool(funnel.window.allows(torch.tensor(light["indices"].tolist())).all())
    finer = search(tmp_path, rates=(0, 0.2, 0.4, 0.6), min_ratio=0.2)
    assert finer.trials["counts"].tolist() != found.trials["counts"].tolist()


def test_other_rankers_know_the_papers_rates_only(tmp_path):
    with pytest.raises(ValueError, match=r"rates=\(0, 0\.5\): a ranker reads indices as 0, 0\.1, \.\.\., 0\.9"):
        search(tmp_path, ranker=LogWidths(), rates=(0, 0.5), min_ratio=0.2)


def by_first_group(graph, model, indices):
    """A function is a ranker: the first group is pruned as little as can be."""
    return -indices[:, 0].double()


def test_a_function_is_a_ranker(tmp_path):
    light = search(tmp_path, ranker=by_first_group).trials.query("stage == 'light'")
    assert light["score"].tolist() == [-row[0] for row in light["indices"]]
    assert light["score"].is_monotonic_decreasing


@pytest.mark.parametrize("ranker", [3, "LogWidths", LogWidths])
def test_what_is_no_ranker_is_refused_before_any_work(tmp_path, ranker):
    with pytest.raises(TypeError, match=r"ranker=.*: must be a rankers\.Ranker"):
        search(tmp_path / "new", ranker=ranker)
    assert not (tmp_path / "new").exists()


def test_a_killed_search_repeats_none_of_its_rankers_looks(tmp_path, monkeypatch):
    """120 looks in pieces of 50; the first search is killed after two of them."""
    looked = []

    def prepare(self, graph, model):
        def score(indices):
            looked.append(len(indices))
            if len(looked) == 3:
                raise KeyboardInterrupt
            return -indices.sum(1).double()

        return score

    monkeypatch.setattr(LogWidths, "prepare", prepare)
    ranker = Distilled(LogWidths(), n=120, members=1, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, ranker=ranker)
    result = search(tmp_path, ranker=ranker)
    assert looked == [50, 50, 20, 20]
    assert len(result.trials) == 6
