"""Orders of settling groups, and what is open in between: by hand, and the least width against all orders."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.pruning.settling_order import frontiers, narrow, shared_with

STAR = [(0, 1), (0, 2), (0, 3)]
CHAIN = [(0, 1), (1, 2), (2, 3)]


def width(scopes: list[tuple[int, ...]], order: list[int]) -> int:
    return max(map(len, frontiers(scopes, order)))


def test_who_shares_a_table_with_whom() -> None:
    assert shared_with([(0, 1), (1, 2)], 4) == [0b0011, 0b0111, 0b0110, 0]  # group 3 is in no table


def test_open_are_the_settled_groups_that_share_with_one_that_is_not() -> None:
    assert frontiers(CHAIN, [0, 1, 2, 3]) == [(), (0,), (1,), (2,), ()]
    assert frontiers(STAR, [0, 1, 2, 3]) == [(), (0,), (0,), (0,), ()]
    assert frontiers(STAR, [1, 2, 3, 0]) == [(), (1,), (1, 2), (1, 2, 3), ()]
    assert frontiers([], [1, 0]) == [(), (), ()]


def test_the_next_group_leaves_the_fewest_open_and_of_equals_the_heaviest_goes_first() -> None:
    assert narrow(CHAIN, [1, 1, 1, 1], start=0) == [0, 1, 2, 3]
    assert narrow(CHAIN, [1, 1, 1, 1], start=2) == [2, 3, 1, 0]
    assert narrow(STAR, [1, 1, 5, 2], start=0) == [0, 2, 3, 1]
    assert narrow(STAR, [1, 3, 3, 3], start=0) == [0, 1, 2, 3]  # of equals of equal weight the first


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 4), min_size=1, max_size=3), max_size=5), st.permutations(range(5)))
def test_frontiers_and_orders_of_any_tables(tables: list[set[int]], order: list[int]) -> None:
    scopes = [tuple(sorted(table)) for table in tables]
    for t, frontier in enumerate(frontiers(scopes, order)):
        settled = set(order[:t])
        assert frontier == tuple(sorted(g for g in settled if any(g in table and table - settled for table in tables)))
    found = narrow(scopes, [1] * 5, start=order[0])
    assert found[0] == order[0]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_the_order_of_a_tree_is_as_narrow_as_can_be() -> None:
    tree = [(0, 1), (1, 2), (1, 3), (3, 4)]
    rest = itertools.permutations([1, 2, 3, 4])
    assert width(tree, narrow(tree, [1] * 5, 0)) == min(width(tree, [0, *tail]) for tail in rest) == 1
