"""The mask that a ranker likes best within a budget: all rates of a tiny network are the oracle."""

import itertools

import pytest
import torch

from graphprune import CostModel, importance, models
from graphprune.pruning.budget import Budget
from graphprune.pruning.masks import kept_masks
from graphprune.search.ranked_mask import best_ranked


@pytest.fixture(scope="module")
def model():
    return models.seeded("tiny_cnn", 0, in_channels=1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("of", ["macs", "params"])
def test_it_is_the_best_of_all_rates_within_the_budget(model, tiny, generator, of):
    budget, norms = Budget(CostModel(tiny, torch.zeros(1, 1, 8, 8)), 0.5, of), importance.l1(model, tiny)

    def score(rates):  # no two configurations alike
        return (rates * torch.tensor([1, 10])).sum(1).double()

    every = torch.tensor(list(itertools.product(range(10), repeat=2)))
    shares = budget.shares(kept_masks(tiny, every, norms))
    within = every[(shares <= 0.5) & (shares > 0.3)]
    best = kept_masks(tiny, within[score(within).argmax()][None], norms)[0]
    assert torch.equal(best_ranked(score, budget, norms, 3000, generator, slack=0.2), best)


def test_draws_that_all_miss_the_budget_are_named(model, tiny, generator):
    budget = Budget(CostModel(tiny, torch.zeros(1, 1, 8, 8)), 0.5)
    with pytest.raises(ValueError, match=r"n=3: no draw costs 0\.499999 \.\. 0\.5 of the macs; draw more"):
        best_ranked(lambda rates: rates.sum(1), budget, importance.l1(model, tiny), 3, generator, slack=1e-6)
