import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.encoders.lookup import Lookup, fold, merge, total, union

RATES = 3
scopes = st.lists(st.sets(st.integers(0, 4), max_size=3).map(lambda s: tuple(sorted(s))), min_size=1, max_size=6)


def tables_of(drawn, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [(scope, torch.randn(RATES ** len(scope), 2, generator=source, dtype=torch.float64)) for scope in drawn]


def by_hand(tables, row):
    """The sum of the rows that a configuration names."""
    result = torch.zeros(2, dtype=torch.float64)
    for scope, rows in tables:
        place = 0
        for group in scope:
            place = place * RATES + row[group]
        result += rows[place]
    return result


@given(drawn=scopes)
@settings(max_examples=40, deadline=None)
def test_a_sum_of_tables_is_a_table_over_their_union(drawn):
    tables, whole = tables_of(drawn), union(drawn)
    rows = total(tables, whole, RATES)
    for row in torch.cartesian_prod(*[torch.arange(RATES)] * 5)[::7].tolist():
        torch.testing.assert_close(by_hand([(whole, rows)], row), by_hand(tables, row))


@given(sums=st.lists(scopes, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_lookup_reads_every_sum(sums):
    tables = [tables_of(drawn, seed) for seed, drawn in enumerate(sums)]
    indices = torch.randint(RATES, (20, 5), generator=torch.Generator().manual_seed(0))
    found = Lookup.stack(tables, 5, RATES)(indices)
    assert found.shape == (20, len(sums), 2)
    for row, z in zip(indices.tolist(), found, strict=True):
        torch.testing.assert_close(z, torch.stack([by_hand(own, row) for own in tables]))


@given(drawn=scopes, limit=st.integers(1, 5))
def test_every_item_goes_to_one_table_that_holds_its_scope(drawn, limit):
    for homes in (merge(drawn), fold(drawn, limit)):
        assert sorted(v for members in homes.values() for v in members) == list(range(len(drawn)))
        assert all(set(drawn[v]) <= set(scope) for scope, members in homes.items() for v in members)
    assert all(len(scope) <= max(limit, *map(len, drawn)) for scope in fold(drawn, limit))
    assert set(merge(drawn)) <= set(drawn)
