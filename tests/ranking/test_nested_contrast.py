"""Nested triads: pruned further means nested, farther, and lower."""

import torch
from digits_task import task
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graphprune import importance
from graphprune.encoders.width_features import shares
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.rates import kept_table
from graphprune.ranking.nested_contrast import TEMPERATURE, Nested, distance, draw_further
from graphprune.ranking.surrogate import tilted


@given(seed=st.integers(0, 2**32), groups=st.integers(1, 12))
def test_negatives_are_nested_in_positives(seed: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    positive = tilted(groups, 5, generator)
    negative = draw_further(positive, generator)
    assert bool((negative >= positive).all())
    assert int(negative.max()) <= 9
    more, room = (negative > positive).any(1), (positive < 9).all(1)
    assert bool(more[room].all())  # where every group could be pruned further, one was


def test_masks_of_nested_triads_are_nested() -> None:
    model, traced, _ = task()
    generator = torch.Generator().manual_seed(0)
    positive = tilted(len(traced.groups), 50, generator)
    scores = importance.l1(model, traced)
    kept, less = (kept_masks(traced, rows, scores) for rows in (positive, draw_further(positive, generator)))
    assert bool((kept | ~less).all())
    assert int(less.sum()) < int(kept.sum())


def test_scores_are_distances_by_pyg() -> None:
    from torch_geometric.data import Batch, Data

    model, traced, _ = task()
    ranker, indices = Nested(steps=3, members=2, hidden=8), torch.arange(10)[:, None].expand(-1, len(traced.groups)).clone()
    expected = torch.zeros(10)
    x = shares(traced)(kept_masks(traced, indices, importance.l1(model, traced)))
    for seed in (0, 1):
        batch = Batch.from_data_list([Data(x=row, edge_index=traced.edge_index) for row in x])
        z = ranker.encoder(traced, seed)(batch).detach()
        expected -= distance(z, z[0]) / 2
    torch.testing.assert_close(ranker(traced, model, indices), expected, atol=1e-4, rtol=1e-4)


def test_training_puts_the_further_pruned_farther_away() -> None:
    _, traced, _ = task()
    generator, counts = torch.Generator().manual_seed(5), kept_table(traced)
    positive = tilted(len(traced.groups), 400, generator)
    negative = draw_further(positive, generator)
    kept, less = (counts[torch.arange(len(counts)), rows] for rows in (positive, negative))
    differs = (kept != less).any(1)  # some rates keep equal numbers of channels

    def loss(steps: int) -> float:
        score = Nested(steps=steps, members=1).prepare(traced, nn.Module())
        return float(F.softplus((score(negative) - score(positive))[differs] / TEMPERATURE).mean())

    assert loss(100) < 0.5 * loss(0)


def test_the_same_seed_gives_the_same_bits() -> None:
    model, traced, _ = task()
    indices = torch.randint(10, (7, len(traced.groups)), generator=torch.Generator().manual_seed(0))
    first, again, other = (Nested(steps=2, members=1, seed=seed)(traced, model, indices) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
