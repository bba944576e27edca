"""Rankers that learn from labels recover a truth they are told enough of."""

import numpy as np
import pytest
import torch
from digits_task import task
from scipy import stats
from sklearn.linear_model import Ridge as PlainRidge

from graphprune import importance
from graphprune.pruning.rates import kept_counts
from graphprune.ranking import regression
from graphprune.ranking.learners import ALPHAS, Regression, Ridge, Trees, log_widths, rates

LABELS = 96


def told():
    """Labelled rows, unlabelled rows and the truth of those: the first group matters twice as much as any other."""
    model, graph, _ = task()
    indices = torch.randint(10, (160, len(graph.groups)), generator=torch.Generator().manual_seed(0))
    weight = torch.ones(len(graph.groups), dtype=torch.float64)
    weight[0] = 2
    truth = (log_widths(graph, indices) * weight).sum(1)
    return model, graph, indices, truth


def test_features_are_literal() -> None:
    _, graph, _ = task()
    row = torch.arange(len(graph.groups))[None] % 10
    counts = [int(kept_counts(group.channels)[g % 10]) for g, group in enumerate(graph.groups)]
    np.testing.assert_allclose(log_widths(graph, row)[0], np.log(counts))
    np.testing.assert_allclose(rates(graph, row)[0], np.arange(len(counts)) % 10 / 10)


@pytest.mark.parametrize(("ranker", "least"), [(Ridge, 0.999), (Trees, 0.8)])
def test_what_was_not_labelled_is_ordered_as_the_truth(ranker: type, least: float) -> None:
    model, graph, indices, truth = told()
    found = ranker(indices[:LABELS], truth[:LABELS])(graph, model, indices[LABELS:])
    assert stats.spearmanr(found, truth[LABELS:]).statistic > least


def test_ridge_is_plain_ridge_with_one_of_the_penalties() -> None:
    model, graph, indices, truth = told()
    noisy = truth + torch.randn(len(truth), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = Ridge(indices[:20], noisy[:20], rates)(graph, model, indices[20:])
    x = rates(graph, indices).numpy()
    x = (x - x[:20].mean(0)) / x[:20].std(0)
    fits = [PlainRidge(alpha).fit(x[:20], noisy[:20].numpy()).predict(x[20:]) for alpha in ALPHAS]
    assert min(np.abs(fit - found.numpy()).max() for fit in fits) < 1e-9


def test_regression_is_sacp_1() -> None:
    model, graph, indices, truth = told()
    found = Regression(indices[:16], truth[:16], epochs=2, seed=4)(graph, model, indices[16:])
    scorer, direction = regression.predictor(graph, importance.l1(model, graph), indices[:16], truth[:16], epochs=2, seed=4)
    assert torch.equal(found, scorer.embed(indices[16:]) @ direction)


def test_the_same_seed_gives_the_same_bits() -> None:
    model, graph, indices, truth = told()
    for ranker in (Regression(indices[:16], truth[:16], epochs=2), Trees(indices[:16], truth[:16], trees=5)):
        assert torch.equal(ranker(graph, model, indices), ranker(graph, model, indices))
    other = Trees(indices[:16], truth[:16], trees=5, seed=1)
    assert not torch.equal(other(graph, model, indices), ranker(graph, model, indices))


def test_labels_that_do_not_fit_are_refused() -> None:
    model, graph, indices, truth = told()
    with pytest.raises(ValueError, match=r"accuracies: got \(3,\) for 4 configurations"):
        Ridge(indices[:4], truth[:3])
    with pytest.raises(ValueError, match="not finite"):
        Trees(indices[:2], torch.tensor([0.5, torch.nan]))
    with pytest.raises(ValueError, match="indices must be int64"):
        Ridge(indices[:4, :-1], truth[:4])(graph, model, indices)
