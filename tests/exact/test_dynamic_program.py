"""Dynamic programming on sums of two and three tables, by hand."""

import numpy as np
import pytest

from graphprune.exact.dynamic_program import Elimination

ALONE = [((0,), np.array([[3.0], [1.0]])), ((1,), np.array([[2.0], [1.0]]))]
"""z = 3 or 1, plus 2 or 1."""


def best(sums: Elimination, k: int, weight: float = 1.0) -> tuple[list[list[int]], list[float]]:
    found, values, _ = sums.beam(sums.root(), [sums.togo(np.array([weight]))], k)
    return sums.configurations(found).tolist(), values.tolist()


def test_the_best_are_in_order_of_their_value() -> None:
    sums = Elimination(np.zeros(1), ALONE, units=[[0, 1], [0, 1]], need=0)
    assert best(sums, 4) == ([[0, 0], [0, 1], [1, 0], [1, 1]], [5.0, 4.0, 3.0, 2.0])
    assert best(sums, 2, weight=-1.0) == ([[1, 1], [1, 0]], [-2.0, -3.0])


def test_the_budget_is_met() -> None:
    assert best(Elimination(np.zeros(1), ALONE, [[0, 1], [0, 1]], need=1), 4)[0] == [[0, 1], [1, 0], [1, 1]]
    assert best(Elimination(np.zeros(1), ALONE, [[0, 1], [0, 3]], need=2), 4)[0] == [[0, 1], [1, 1]]


def test_a_constant_and_a_table_of_two_groups_count() -> None:
    """z = 10 + [[0, 5], [6, 0]][r0, r1]: together they turn round what each alone would say."""
    sums = Elimination(np.array([10.0]), [((0, 1), np.array([[0.0], [5.0], [6.0], [0.0]]))], [[0, 0], [0, 0]], 0)
    assert best(sums, 2) == ([[1, 0], [0, 1]], [16.0, 15.0])
    assert sums.embed(np.array([[0, 0], [0, 1], [1, 0]])).tolist() == [[10.0], [15.0], [16.0]]


def test_a_limit_drops_what_cannot_meet_it() -> None:
    """A second coordinate, s = 0 or -1 by the first group: only r0 = 0 keeps it from falling below 0."""
    tables = [((0,), np.array([[1.0, 0.0], [9.0, -1.0]])), ((1,), np.array([[2.0, 0.0], [1.0, 0.0]]))]
    sums = Elimination(np.zeros(2), tables, [[0, 0], [0, 0]], 0)
    togo, limit = sums.togo(np.array([1.0, 0.0])), sums.togo(np.array([0.0, 1.0]))
    found, _, _ = sums.beam(sums.root(), [togo], 9, [limit])
    assert sums.configurations(found).tolist() == [[0, 0], [0, 1]]


def test_what_a_narrow_beam_drops_is_bounded() -> None:
    sums = Elimination(np.zeros(1), ALONE, [[0, 0], [0, 0]], 0)
    _, values, dropped = sums.beam(sums.root(), [sums.togo(np.ones(1))], 1)
    assert (values.tolist(), dropped) == ([5.0], 4.0)
    assert sums.beam(sums.root(), [sums.togo(np.ones(1))], 4)[2] == -np.inf


def test_the_value_to_go_of_a_prefix() -> None:
    sums = Elimination(np.zeros(1), ALONE, [[0, 1], [0, 1]], need=1)
    togo, root = sums.togo(np.ones(1)), sums.root()
    children = sums.children(root)
    assert sums.now(root, togo).tolist() == [4.0]
    assert sorted(sums.values(root, children, togo).tolist()) == [3.0, 4.0]
    assert sums.extend(root, children).level == 1


def test_too_many_states_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("graphprune.exact.dynamic_program.STATES", 3)
    with pytest.raises(ValueError, match=r"up to 0 groups are open at once and the budget has 1 units: .* at most 3 are tab"):
        Elimination(np.zeros(1), ALONE, [[0, 1], [0, 1]], need=1)
