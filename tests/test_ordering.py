"""Orders of groups on a chain and on a star, by hand."""

from graphprune.ordering import frontiers, narrow, shared_with

CHAIN = [(0, 1), (1, 2), (2, 3)]
STAR = [(0, 1), (0, 2), (0, 3)]


def test_groups_of_one_table_are_joined() -> None:
    assert shared_with([(0, 2)], 3) == [0b101, 0, 0b101]


def test_frontiers_of_a_chain_hold_one_group() -> None:
    assert frontiers(CHAIN, [0, 1, 2, 3]) == [(), (0,), (1,), (2,), ()]
    assert frontiers(CHAIN, [0, 3, 1, 2]) == [(), (0,), (0, 3), (1, 3), ()]


def test_the_centre_of_a_star_stays_open_to_the_end() -> None:
    assert frontiers(STAR, [0, 1, 2, 3]) == [(), (0,), (0,), (0,), ()]
    assert frontiers(STAR, [1, 2, 3, 0]) == [(), (1,), (1, 2), (1, 2, 3), ()]


def test_the_narrow_order_of_a_chain_follows_it() -> None:
    assert narrow(CHAIN, [1, 1, 1, 1], 0) == [0, 1, 2, 3]
    assert narrow(CHAIN, [1, 1, 1, 1], 3) == [3, 2, 1, 0]


def test_among_equals_the_heaviest_comes_first() -> None:
    assert narrow(STAR, [1, 1, 5, 2], 0) == [0, 2, 3, 1]


def test_a_group_of_no_table_is_settled_at_once() -> None:
    assert narrow([(0, 1)], [1, 1, 9], 0) == [0, 1, 2]
    assert frontiers([(0, 1)], [2, 0, 1]) == [(), (), (0,), ()]
