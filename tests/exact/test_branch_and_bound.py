"""Branch and bound on two groups of two rates in the plane, t along the first axis."""

import math

import numpy as np
import pytest

from graphprune.exact.branch_and_bound import Incumbents, find_incumbents, improve, open_bound, prove
from graphprune.exact.halfspaces import Direction
from graphprune.exact.problem import Limit, Terms

NOTHING = Direction(np.zeros(2), np.zeros(0))


def problem(need: int = 0, limits: tuple[Limit, ...] = (), sign: float = 1.0):
    """z = (1, 0) + (0, 1 or 3) + (0, 0 or 1): the less is pruned, the more alike; units are rates."""
    first, second = np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    return Terms(
        np.array([sign, 0.0]), [((0,), first), ((1,), second)], np.array([1.0, 0.0]), [[0, 1], [0, 1]], need, limits
    ).problem()


def cosine(height: float) -> float:
    return 1 / math.hypot(1, height)


ALL = [([0, 0], cosine(1)), ([0, 1], cosine(2)), ([1, 0], cosine(3)), ([1, 1], cosine(4))]


def test_incumbents_are_the_best_once_each() -> None:
    one = problem()
    found = Incumbents(one, 2)
    assert (len(found), found.threshold, found.rows.shape) == (0, -1.0, (0, 2))
    for rows in ([[1, 1], [0, 1]], [[0, 1], [1, 0]]):
        found.add(np.array(rows), one.sums.embed(np.array(rows)))
    assert found.rows.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert found.threshold == pytest.approx(cosine(3))


def test_what_a_limit_forbids_is_no_incumbent() -> None:
    limited = problem(limits=(Limit(0, [((0,), np.array([-1, 0]))], 1.0),))
    found = Incumbents(limited, 1)
    rows = np.array([[0, 0], [1, 0]])
    found.add(rows, limited.sums.embed(rows))
    assert found.rows.tolist() == [[1, 0]]


def test_local_search_climbs_to_the_best_within_the_budget() -> None:
    one = problem(need=1)
    found = Incumbents(one, 1)
    found.add(np.array([[1, 1]]), one.sums.embed(np.array([[1, 1]])))
    improve(one, found, math.inf)
    assert found.rows[0].tolist() == [0, 1]


def test_local_search_out_of_time_leaves_what_there_is() -> None:
    one = problem()
    found = Incumbents(one, 1)
    found.add(np.array([[1, 1]]), one.sums.embed(np.array([[1, 1]])))
    improve(one, found, -math.inf)
    assert found.rows.tolist() == [[1, 1]]


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("need", [0, 1, 2])
def test_a_proof_alone_finds_the_k_best(k, need) -> None:
    one = problem(need)
    found = Incumbents(one, k)
    least = prove(one, found, 1.0, NOTHING, math.inf)
    expected = [(row, cos) for row, cos in ALL if sum(row) >= need][:k]
    assert found.rows[: len(expected)].tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(found.scores[: len(expected)], [cos for _, cos in expected])
    assert least == pytest.approx(expected[-1][1] if len(expected) == k else -1)


def test_a_proof_works_below_zero_too() -> None:
    """z = (-1, ...): the more is added, the higher the cosine, all of them negative."""
    one = problem(sign=-1.0)
    found = Incumbents(one, 1)
    assert prove(one, found, 0.0, NOTHING, math.inf) == pytest.approx(-cosine(4))
    assert found.rows[0].tolist() == [1, 1]


def test_the_first_search_says_what_it_found_and_a_bound() -> None:
    one = problem()
    found = Incumbents(one, 1)
    highest, _ = find_incumbents(one, found, math.inf)
    assert found.rows[0].tolist() == [0, 0]
    assert highest == pytest.approx(cosine(1))


def test_the_first_search_out_of_time_still_finds_something() -> None:
    one = problem()
    found = Incumbents(one, 1)
    highest, _ = find_incumbents(one, found, -math.inf)
    assert len(found) >= 1
    assert highest == 1.0


def test_open_blocks_have_their_own_bound_as_far_as_time_goes() -> None:
    one = problem()
    root = one.sums.root()
    below = one.sums.extend(root, one.sums.children(root))
    assert one.sums.order == [0, 1]
    worse = below[below.rates[:, 0] == 1]  # the first group at rate 1: at best (1, 3)
    assert open_bound(one, [worse], 0.9, math.inf) == pytest.approx(cosine(3))
    assert open_bound(one, [worse, root], 0.9, math.inf) == pytest.approx(cosine(1))
    assert open_bound(one, [root], 0.5, math.inf) == 0.5  # the bound of all is lower
    assert open_bound(one, [worse], 0.9, -math.inf) == 0.9
