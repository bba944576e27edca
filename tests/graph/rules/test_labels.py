"""Ties, freezes and views of label tensors, on hand-sized ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.graph.rules.labels import (
    Disagreement,
    Ledger,
    along,
    compact,
    components,
    tidy,
    unlabelled,
    varies,
    varying_dims,
)


def test_labels_of_a_map_vary_along_channels_only() -> None:
    labels = along(torch.tensor([3, 4]), 1, (1, 2, 5, 5))
    assert varying_dims(labels) == [1]
    assert compact(labels).shape == (1, 2, 1, 1)
    assert not varies(labels, 2)


def test_tidy_finds_that_a_written_out_tensor_does_not_vary() -> None:
    labels = torch.tensor([7, 7, 7]).view(1, 3, 1).repeat(2, 1, 4)
    assert tidy(labels).stride() == (0, 0, 0)
    assert torch.equal(tidy(labels), labels)


def test_ties_are_transitive() -> None:
    ledger = Ledger()
    labels = ledger.fresh(6)
    ledger.tie(labels[0:2], labels[2:4], "")
    ledger.tie(labels[2:4], labels[4:6], "")
    first, second = ledger.classes()[:2]
    assert ledger.classes().tolist() == [first, second] * 3
    assert first != second


def test_a_label_that_meets_an_unlabelled_place_is_frozen() -> None:
    ledger = Ledger()
    labels = ledger.fresh(3)
    ledger.tie(labels, torch.tensor([-1, 1, -1]), "it meets padding")
    assert [(found.tolist(), reason) for found, reason in ledger.reasons] == [([0, 2], "it meets padding")]


def test_collapse_ties_what_other_dimensions_tell_apart() -> None:
    ledger = Ledger()
    labels = ledger.fresh(4).view(1, 2, 2)  # (batch, channel, place)
    assert ledger.collapse(labels, [2], "").flatten().tolist() == [0, 2]
    assert ledger.classes()[0] == ledger.classes()[1] != ledger.classes()[2]
    assert ledger.reasons == []


def test_collapse_freezes_what_is_told_apart_by_the_collapsed_dimension_alone() -> None:
    ledger = Ledger()
    ledger.collapse(ledger.fresh(4).view(1, 4), [1], "mean over channels")
    assert ledger.reasons[0][0].tolist() == [0, 1, 2, 3]
    assert len(set(ledger.classes().tolist())) == 4


def test_a_strict_ledger_raises_on_two_different_classes() -> None:
    ledger = Ledger(atoms=4)
    ledger.tie(torch.tensor([1, 2]), torch.tensor([1, 2]), "")
    with pytest.raises(Disagreement, match="conv reads it"):
        ledger.tie(torch.tensor([1, 2]), torch.tensor([1, 3]), "conv reads it")


def test_of_a_class_that_is_frozen_twice_the_first_reason_counts() -> None:
    ledger = Ledger()
    labels = ledger.fresh(4)
    ledger.tie(labels[:1], labels[1:2], "")
    ledger.freeze(labels[1:3], "one")
    ledger.freeze(labels[:1], "two")
    assert ledger.first_reasons(np.append(ledger.classes(), -1)).tolist() == [0, 0, -1, -1]


def test_unlabelled_takes_no_memory() -> None:
    assert unlabelled((2, 3, 4)).untyped_storage().nbytes() == 8
    assert bool((unlabelled((2, 3, 4)) == -1).all())


@given(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), min_size=1)))
)
def test_components_are_scipys_in_the_same_order(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = case
    links = np.array(pairs).T
    graph = coo_array((np.ones(len(pairs)), (links[0], links[1])), shape=(count, count))
    assert components(count, links).tolist() == connected_components(graph, directed=False)[1].tolist()
