"""Half-spaces in the plane: one group of two rates, t along the first axis."""

import math

import numpy as np
import pytest

from graphprune.exact.halfspaces import bound, join, project, separate
from graphprune.exact.problem import Limit, Terms

HALF = math.sqrt(0.5)


def problem(*z: tuple[float, float], limit: list[int] | None = None):
    """z(r) of one group's rates; `limit`: s(r) >= 0."""
    rows, units = np.array(z), [[0] * len(z)]
    limits = () if limit is None else (Limit(0, [((0,), np.array(limit))], 1.0),)
    return Terms(np.zeros(2), [((0,), rows)], np.array([2.0, 0.0]), units, 0, limits).problem()


def test_the_projection_on_a_cone_is_on_its_nearest_ray() -> None:
    direction, length, used = project(problem((1, 1), (1, 2)), np.array([[1.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(direction.u, [HALF, HALF])
    assert length == pytest.approx(HALF)
    assert used.tolist() == [[1.0, 1.0]]


def test_a_target_inside_the_cone_is_its_own_projection() -> None:
    direction, length, used = project(problem((1, 1), (1, -1)), np.array([[1.0, 1.0], [1.0, -1.0]]))
    np.testing.assert_allclose(direction.u, [1, 0], atol=1e-12)
    assert length == pytest.approx(1)
    assert len(used) == 2


def test_a_solver_that_fails_gives_no_projection(monkeypatch) -> None:
    def fails(*_args, **_options):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("graphprune.exact.halfspaces.nnls", fails)
    one = problem((1, 1), (1, 2))
    assert project(one, np.array([[1.0, 1.0]])) is None
    assert bound(one, one.sums.root())[0] == 1.0
    assert separate(one, one.sums.root(), 0.8, np.array([[1.0, 1.0]])) == (None, [])


def test_the_bound_is_the_highest_cosine_where_the_cone_is_one_sided() -> None:
    one = problem((1, 1), (1, 2))
    highest, direction, met = bound(one, one.sums.root())
    assert highest == pytest.approx(HALF)
    np.testing.assert_allclose(direction.u, [HALF, HALF])
    assert one.cosines(met.z).max() == pytest.approx(HALF)


def test_a_limit_takes_its_configurations_out_of_the_bound() -> None:
    """Only z = (1, 2) is allowed, of cosine 1 / sqrt(5); the bound of all is 0.71."""
    limited = problem((1, 1), (1, 2), limit=[-1, 1])
    highest = bound(limited, limited.sums.root())[0]
    assert 1 / math.sqrt(5) <= highest + 1e-9
    assert highest < HALF - 0.1


def test_a_bound_out_of_time_is_1() -> None:
    one = problem((1, 1), (1, 2))
    assert bound(one, one.sums.root(), deadline=-math.inf)[0] == 1.0


def test_a_direction_separates_above_the_highest_cosine_and_not_below() -> None:
    one = problem((1, 1), (1, 2))
    togo, _ = separate(one, one.sums.root(), 0.8, np.array([[1.0, 1.0]]))
    assert one.sums.now(one.sums.root(), togo)[0] <= 0
    assert separate(one, one.sums.root(), 0.7, np.array([[1.0, 1.0]]))[0] is None
    assert separate(one, one.sums.root(), 0.8, np.array([[1.0, 1.0]]), deadline=-math.inf)[0] is None


def test_prefixes_are_joined_in_order() -> None:
    root = problem((1, 1), (1, 2)).sums.root()
    assert len(join([root, root, root])) == 3
