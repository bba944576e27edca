"""Chances that add up, draws that honour them, and numbers that are exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.spectral.sampling import cap_chances, draw, inclusion_chances, node_chances


def test_capped_chances_by_hand():
    """10 / 16 of 4 each would give 2.5, 0.75, 0.5, 0.25: the first is certain, the rest share 3 in 6 : 3 : 1."""
    assert cap_chances(torch.tensor([10.0, 3.0, 2.0, 1.0]), 2).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 6])
    assert cap_chances(torch.tensor([1.0, 1.0]), 2).tolist() == [1, 1]
    assert cap_chances(torch.tensor([5.0, 0.0, 0.0]), 2).tolist() == [1, 0.5, 0.5]


@given(st.lists(st.floats(0, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=30), st.data())
@settings(deadline=None)
def test_capped_chances_add_up_and_follow_the_scores(row, data):
    kept = data.draw(st.integers(1, len(row)))
    scores = torch.tensor(row, dtype=torch.float64)
    chances = cap_chances(scores, kept)
    assert float(chances.sum()) == pytest.approx(kept, rel=1e-9)
    assert bool(((chances >= 0) & (chances <= 1)).all())
    order = scores.argsort(stable=True)
    assert bool((chances[order].diff() >= -1e-12).all())
    open_ones = (chances < 1) & (scores > 0)
    ratio = chances[open_ones] / scores[open_ones]
    assert not len(ratio) or float(ratio.max()) == pytest.approx(float(ratio.min()), rel=1e-6)


@given(st.lists(st.floats(0.001, 1e3), min_size=2, max_size=40), st.integers(0, 1000), st.data())
@settings(deadline=None)
def test_a_draw_keeps_exactly_as_many_as_the_chances_say(row, seed, data):
    kept = data.draw(st.integers(1, len(row)))
    chances = {"w": cap_chances(torch.tensor(row), kept)}
    mask = draw(chances, torch.Generator().manual_seed(seed))["w"]
    assert int(mask.sum()) == kept
    assert bool(mask[chances["w"] == 1].all())


def test_each_weight_is_drawn_as_often_as_its_chance_says():
    chances = {"a": torch.tensor([[1.0, 0.5], [0.25, 0.05]]), "b": torch.tensor([0.2, 1.0])}
    generator = torch.Generator().manual_seed(0)
    seen = sum(torch.cat([mask.flatten() for mask in draw(chances, generator).values()]).double() for _ in range(4000)) / 4000
    expected = torch.cat([p.flatten() for p in chances.values()]).double()
    assert float((seen - expected).abs().max()) < 4 * (0.25 / 4000) ** 0.5


def test_budgets_say_who_shares():
    scores = {"a": torch.tensor([[3.0, 1.0]]), "b": torch.tensor([[0.1, 0.1]])}
    apart = inclusion_chances(scores, 0.5, "layer")
    assert [round(float(p.sum()), 9) for p in apart.values()] == [1, 1]
    assert apart["a"].tolist() == [[0.75, 0.25]]
    together = inclusion_chances(scores, 0.5, "global")
    assert together["a"][0].tolist() == pytest.approx([1, 1 / 1.2])
    assert sum(float(p.sum()) for p in together.values()) == pytest.approx(2)


def test_node_rule_by_hand():
    """Equal edges of a 2 x 2 layer: p_u = p_v = c / 2, and p = c - c^2 / 4 must be 3/4, so that c = 1."""
    found = node_chances({"w": torch.ones(2, 2, dtype=torch.float64)}, 0.25)
    assert found["w"].flatten().tolist() == pytest.approx([0.75] * 4)


def test_node_rule_adds_up_and_spares_the_last_edge_of_a_node():
    a = torch.tensor([[100.0, 100.0, 100.0, 0.01], [100.0, 100.0, 100.0, 0.0]], dtype=torch.float64)
    found = node_chances({"w": a}, 0.5)["w"]
    assert float(found.sum()) == pytest.approx(4)
    assert float(found[0, 3]) == float(found.max())
    assert float(found[1, 3]) == 0


@pytest.mark.parametrize(
    ("chances", "message"),
    [
        (torch.tensor([0.5, 0.2]), "add up to 0.7, which is no whole number"),
        (torch.tensor([1.5, 0.5]), "between 0 and 1"),
        (torch.tensor([torch.nan, 1.0]), "between 0 and 1"),
    ],
)
def test_what_are_no_chances_is_refused(chances, message):
    with pytest.raises(ValueError, match=message):
        draw({"w": chances}, torch.Generator())


def test_too_few_edges_for_the_node_rule():
    with pytest.raises(ValueError, match="w: 1 weights are not zero, but 2 are to be kept"):
        node_chances({"w": torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)}, 0.5)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="'w' has scores that are not a number"):
        inclusion_chances({"w": torch.tensor([[torch.nan, 1.0]])}, 0.5)
