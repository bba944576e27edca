"""MACs, windows and distances as sums of tables: a network of two groups whose MACs are 10 + 3 k0 + 2 k0 k1."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from graphprune.exact.problem import Limit, Terms, distance_limit, macs_limits, macs_tables

KEPT = torch.tensor([[2, 1], [4, 2]])  # channels of each group at both rates


def of_counts(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    k0, k1 = counts.T
    return 10 + 3 * k0 + 2 * k0 * k1, k0


COSTS = SimpleNamespace(of_counts=of_counts, full=SimpleNamespace(macs=32))


def plain(tables):
    return [(scope, rows.tolist()) for scope, rows in tables]


def test_macs_are_a_constant_and_tables_of_one_and_two_groups() -> None:
    """Whole: 10 + 6 + 16 = 32. One less in k0: -3 - 8; two less in k1: -8; both: 17 = 32 - 11 - 8 + 4."""
    constant, tables = macs_tables(COSTS, KEPT)
    assert constant == 32
    assert plain(tables) == [((0,), [0, -11]), ((1,), [0, -8]), ((0, 1), [0, 0, 0, 4])]


def test_a_window_is_two_limits_in_whole_macs() -> None:
    """0.5 to 0.76 of 32: at least 16 and at most 24.32, so 24."""
    above, below = macs_limits(COSTS, KEPT, (0.5, 0.76))
    assert (above.constant, below.constant, above.size, below.size) == (24 - 32, 32 - 16, 32, 32)
    assert plain(above.tables) == [((0,), [0, 11]), ((1,), [0, 8]), ((0, 1), [0, 0, 0, -4])]
    assert plain(below.tables) == [((0,), [0, -11]), ((1,), [0, -8]), ((0, 1), [0, 0, 0, 4])]


@pytest.mark.parametrize(("macs", "count"), [((0.0, 1.0), 0), ((0.0, 0.5), 1), ((0.5, 1.0), 1), ((0.2, 0.5), 2)])
def test_bounds_that_cannot_fail_are_no_limits(macs, count) -> None:
    assert len(macs_limits(COSTS, KEPT, macs)) == count


def test_a_distance_counts_groups_that_differ() -> None:
    """From (1, 0): s = 1 - groups that agree, which is at least 0 where one or two differ."""
    limit = distance_limit(np.array([1, 0]), rates=2, apart=1)
    assert (limit.constant, limit.size) == (1, 2)
    assert plain(limit.tables) == [((0,), [0, -1]), ((1,), [-1, 0])]


def test_a_problem_has_a_coordinate_for_each_limit() -> None:
    """z = 1 + 2 or 1 + 5, s = 3 - 3 or 3 - 4."""
    limit = Limit(3, [((0,), np.array([-3, -4]))], 3.0)
    problem = Terms(np.array([1.0]), [((0,), np.array([[2.0], [5.0]]))], np.array([4.0]), [[0, 1]], 0, (limit,)).problem()
    z = problem.sums.embed(np.array([[0], [1]]))
    assert z.tolist() == [[3.0, 0.0], [6.0, -1.0]]
    assert problem.target.tolist() == [1.0]
    assert problem.allowed(z).tolist() == [True, False]
    assert problem.cosines(z).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("costs", "macs", "message"), [(COSTS, (0.5, 0.2), "0 <= low < high <= 1"), (None, (0, 0.5), "give costs=")]
)
def test_bad_windows_are_named(costs, macs, message) -> None:
    with pytest.raises(ValueError, match=message):
        macs_limits(costs, KEPT, macs)
