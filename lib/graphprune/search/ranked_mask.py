"""The mask that a ranker of rates likes best within a budget: what SACP would hand over if nothing may be fine-tuned."""

from __future__ import annotations

import torch
from torch import Tensor

from graphprune.pruning.budget import Budget
from graphprune.pruning.masks import Scores, kept_masks
from graphprune.pruning.rates import RateSpace, kept_table
from graphprune.pruning.window import Score
from graphprune.runs.checks import at_least


def best_ranked(
    score: Score, budget: Budget, scores: Scores, n: int, generator: torch.Generator, slack: float = 0.02
) -> Tensor:
    """The best by `score` of n uniform draws from the rate space, of those that cost between share - slack and share.

    Source: SACP's Algorithm 1, lines 8 to 13 (Liu et al.), with a budget in place of R(r) [our reading]. Nothing is trained
    and no network is judged.

    Args:
        score: (B, groups) rate indices -> (B,), higher is better; what `ranker.prepare` returns.
        budget: what may stay.
        scores: importance of each channel, group name -> (C,); the highest of each group stay. L1 norms in the paper.
        n: draws.
        generator: of the draws.
        slack: of the share.

    Returns:
        (num_atoms,) bool.

    Raises:
        ValueError: none of the draws is within the budget and its slack.

    >>> import torch, graphprune
    >>> from graphprune.pruning.budget import Budget
    >>> from graphprune.ranking.rankers import LogWidths
    >>> example, model = torch.zeros(1, 1, 8, 8), graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, example)
    >>> budget, l1 = Budget(graphprune.CostModel(graph, example), 0.5), graphprune.importance.l1(model, graph)
    >>> score = LogWidths().prepare(graph, model)
    >>> kept = best_ranked(score, budget, l1, 100, torch.Generator().manual_seed(0), slack=0.2)
    >>> 0.3 < budget.shares(kept[None]).item() <= 0.5
    True
    """
    at_least(1, n=n)
    graph = budget.costs.graph
    rates = RateSpace(graph).sample(n, 0, generator)
    table = kept_table(graph)
    shares = budget.shares_of_counts(table[torch.arange(len(table)), rates])
    near = rates[(shares <= budget.share) & (shares > budget.share - slack)]
    if not len(near):
        raise ValueError(f"n={n}: no draw costs {budget.share - slack:g} .. {budget.share:g} of the {budget.of}; draw more")
    return kept_masks(graph, near[score(near).argmax()][None], scores)[0]
