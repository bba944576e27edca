"""Surrogates learn what they are taught, mind labels, and go from one network to another."""

from dataclasses import dataclass, replace

import pytest
import torch
from digits_task import setting, task
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from graphprune import models
from graphprune.encoders.width_features import shares
from graphprune.graph import groups
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import first_scores, kept_masks
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled, Lessons, Taught
from graphprune.ranking.learners import log_widths
from graphprune.ranking.rankers import LogWidths, Ranker
from graphprune.ranking.surrogate import Surrogate, ensemble, tilted
from graphprune.search.funnel import Funnel


def drawn(traced, n, seed=1):
    return tilted(len(traced.groups), n, torch.Generator().manual_seed(seed))


def rho(found, truth) -> float:
    return float(stats.spearmanr(found, truth).statistic)


def quick(teacher: Ranker, **options) -> Distilled:
    return Distilled(teacher, **({"n": 300, "members": 1, "epochs": 30} | options))


@given(seed=st.integers(0, 2**32))
def test_tilted_draws_hold_all_sizes(seed: int) -> None:
    rates = tilted(12, 400, torch.Generator().manual_seed(seed)).double().mean(1)
    assert rates.min() < 2.5
    assert rates.max() > 6.5
    assert 0.15 < (rates < 3).double().mean() < 0.45


def test_a_surrogate_takes_over_what_its_teacher_says_of_networks_it_was_not_asked_about() -> None:
    model, traced, _ = task()
    indices = drawn(traced, 200)
    assert rho(quick(LogWidths())(traced, model, indices), LogWidths()(traced, model, indices)) > 0.97


def test_the_score_is_the_heads_on_pyg_embeddings() -> None:
    from torch_geometric.data import Batch, Data

    _, traced, _ = task()
    indices, surrogate = drawn(traced, 9), Surrogate(hidden=8, seed=3)
    x = shares(traced)(kept_masks(traced, indices, first_scores(traced)))
    z = surrogate.encoder(Batch.from_data_list([Data(x=row, edge_index=traced.edge_index) for row in x]))
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (surrogate.inner, surrogate.heads))
    expected = ((z @ w1.T + b1).clamp_min(0) @ w2.T + b2).mean(1)
    torch.testing.assert_close(surrogate.on(traced)(indices), expected.detach(), atol=1e-4, rtol=1e-4)


def test_labels_turn_a_score_from_its_teacher_towards_the_truth() -> None:
    model, traced, _ = task()
    weight = torch.ones(len(traced.groups), dtype=torch.float64)
    weight[::2] = 4
    indices = drawn(traced, 264)
    truth = (log_widths(traced, indices) * weight).sum(1)
    untold = quick(LogWidths("groups"))
    told = Taught(indices[:64], truth[:64], untold, steps=150)
    before, after = (rho(ranker(traced, model, indices[64:]), truth[64:]) for ranker in (untold, told))
    assert after > before + 0.01


def test_a_surrogate_trained_on_one_network_orders_the_next_ones() -> None:
    model, traced, _ = task()
    other = models.seeded("resnet14", 0, in_channels=1)
    wider = groups.trace(other, torch.zeros(1, 1, 8, 8))
    indices = drawn(wider, 200)
    assert len(wider.groups) != len(traced.groups)
    score = ensemble(quick(LogWidths()).fit(traced, model), wider)
    assert rho(score(indices), LogWidths()(wider, other, indices)) > 0.8


@dataclass(frozen=True)
class Silent(Ranker):
    """A teacher that must not be asked."""

    def prepare(self, graph: ChannelGraph, model: nn.Module):
        raise AssertionError("asked")


def test_stored_lessons_save_asking_and_change_nothing() -> None:
    model, traced, _ = task()
    ranker, indices = quick(LogWidths(), n=64, epochs=2), drawn(traced, 5)
    lessons = ranker.ask(traced, model)
    assert torch.equal(
        replace(ranker, teacher=Silent(), lessons=lessons)(traced, model, indices), ranker(traced, model, indices)
    )


def test_looks_are_stored_in_pieces_and_none_is_repeated(tmp_path, monkeypatch) -> None:
    """Killed at the third piece of 120 looks; the second run looks at the last 20 only, and its lessons are the same."""
    model, traced, data = task()
    store, ask, looked = Funnel(model, traced, data, **setting(tmp_path)).stage, LogWidths.prepare, []
    ranker = quick(LogWidths(), n=120, epochs=2)
    expected = ranker.ask(traced, model)

    def prepare(self, graph, model):
        def score(indices):
            looked.append(len(indices))
            if len(looked) == 3:
                raise KeyboardInterrupt
            return ask(self, graph, model)(indices)

        return score

    monkeypatch.setattr(LogWidths, "prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        ranker.ask(traced, model, store)
    lessons = ranker.ask(traced, model, store)
    assert looked == [50, 50, 20, 20]
    assert torch.equal(lessons.indices, expected.indices)
    assert torch.equal(lessons.taught, expected.taught)
    Taught(lessons.indices[:4], torch.rand(4), ranker, steps=1).prepare_stored(traced, model, store)
    replace(ranker, teacher=LogWidths("groups")).ask(traced, model, store)  # another teacher, other lessons
    assert looked == [50, 50, 20, 20, 50, 50, 20]


def test_a_function_teaches() -> None:
    model, traced, _ = task()
    lessons = quick(lambda graph, model, indices: -indices.sum(1).double(), n=4).ask(traced, model)
    assert lessons.taught.tolist() == [-sum(row) for row in lessons.indices.tolist()]


def test_class_means_teach_and_the_same_seed_gives_the_same_bits() -> None:
    model, traced, digits = task()
    indices = drawn(traced, 24)
    first, again, other = (
        quick(ClassMeans(digits, images=128), n=48, epochs=20, seed=seed)(traced, model, indices) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert rho(first, ClassMeans(digits, images=128)(traced, model, indices)) > 0.7


def test_a_teacher_that_tells_nothing_apart_is_no_error() -> None:
    model, traced, _ = task()
    lessons = Lessons(drawn(traced, 16), torch.full((16,), 0.5))
    assert quick(Silent(), epochs=1, lessons=lessons)(traced, model, drawn(traced, 3)).isfinite().all()


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match="needs one each of 2 or more"):
        Taught(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2), quick(LogWidths()))
