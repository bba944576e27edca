"""The k best, none twice: by hand, and against a sorted list."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprune.pruning.best import Best


def rows(*values: int) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_the_best_stay_and_ties_go_to_the_first_seen() -> None:
    best = Best(3)
    best.add(rows(4, 2, 9), torch.tensor([1.0, 5.0, 1.0]))
    best.add(rows(7, 1), torch.tensor([1.0, 2.0]))
    assert (best.rows[:, 0].tolist(), best.scores.tolist()) == ([2, 1, 4], [5.0, 2.0, 1.0])


def test_sorted_ties_go_to_the_lower_row() -> None:
    best = Best(3, sorted_ties=True)
    best.add(rows(9, 2), torch.tensor([1.0, 5.0]))
    best.add(rows(4), torch.tensor([1.0]))
    assert best.rows[:, 0].tolist() == [2, 4, 9]
    best.add(rows(3), torch.tensor([1.0]))  # full: ties go to what was seen before
    assert best.rows[:, 0].tolist() == [2, 4, 9]


def test_no_row_stands_twice() -> None:
    for best in (Best(4), Best(4, sorted_ties=True)):
        for _ in range(2):
            best.add(rows(5, 6, 5), torch.tensor([1.0, 2.0, 1.0]))
        assert (best.rows[:, 0].tolist(), len(best)) == ([6, 5], 2)


def test_of_rows_with_one_key_the_best_stays() -> None:
    best = Best(2, key=lambda found: found // 10)
    best.add(rows(11, 12, 31, 25), torch.tensor([1.0, 3.0, 2.0, 0.0]))
    assert best.rows[:, 0].tolist() == [12, 31]


def test_nothing_added_is_nothing() -> None:
    best = Best(2)
    best.add(torch.zeros(0, 3, dtype=torch.long), torch.zeros(0))
    assert len(best) == len(best.rows) == 0


@pytest.mark.parametrize("options", [{}, {"sorted_ties": True}])
@given(
    values=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60),
    k=st.integers(1, 9),
    size=st.integers(1, 20),
)
def test_blocks_give_what_one_sorted_list_gives(options, values, k, size) -> None:
    """A row's score is a function of it, as everywhere; 49 rows of 4 scores, so that there are many ties."""
    every = torch.tensor(values)
    scores = (every.sum(1) % 4).double()
    best = Best(k, **options)
    for part, own in zip(every.split(size), scores.split(size), strict=True):
        best.add(part, own)
    assert best.scores.tolist() == sorted(((a + b) % 4 for a, b in set(values)), reverse=True)[:k]
    assert len({tuple(row) for row in best.rows.tolist()}) == len(best)
    assert best.scores.tolist() == [float(sum(row) % 4) for row in best.rows.tolist()]
    if not options:
        seen = list(dict.fromkeys(values))
        assert [tuple(row) for row in best.rows.tolist()] == sorted(seen, key=lambda row: -(sum(row) % 4))[:k]


def test_scores_keep_their_kind() -> None:
    best = Best(2)
    best.add(rows(1), torch.tensor([0.1], dtype=torch.float64))
    assert best.scores.dtype == torch.float64
    assert best.scores.numpy() == np.array([0.1])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k=0: must be at least 1"):
        Best(0)
    with pytest.raises(ValueError, match="give one of them"):
        Best(1, key=lambda found: found, sorted_ties=True)
