"""The rules that turn performance and excess into rewards: figures by hand, and what must hold whatever comes in."""

from types import MappingProxyType

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from graphprune.rl.rewards import Lagrangian, PlainAccuracy, SelfCompetition

NAN = float("nan")


def told(rule, memory, performance, excess):
    """Rewards as a list and the new memory; a rule that wrote into its memory, or into a result, would be found out."""
    p, v = torch.tensor(performance, dtype=torch.float64), torch.tensor(excess, dtype=torch.float64)
    rewards, after = rule(MappingProxyType(memory), p, v)
    assert str((p.tolist(), v.tolist())) == str((performance, excess))
    assert rewards.dtype == torch.float64
    return rewards.tolist(), after


def test_while_the_budget_is_missed_on_average_only_the_excess_counts():
    rewards, after = told(
        SelfCompetition(0.5), {"excess": 0.2, "performance": 0.6}, [0.5, 0.9, 0.7, 0.1], [0.1, 0.3, -0.1, 0.2]
    )
    assert rewards == [1, -1, 1, 0]
    assert after == pytest.approx({"excess": 0.2 + 0.5 * (0.125 - 0.2), "performance": 0.6 + 0.5 * (0.7 - 0.6)})


def test_after_that_an_episode_within_it_is_judged_by_its_performance():
    memory = {"excess": -0.1, "performance": 0.6}
    rewards, after = told(SelfCompetition(0.25), memory, [0.5, 0.7, 0.9, 0.6], [-0.2, -0.05, 0.05, 0.0])
    assert rewards == [-1, 1, -1, 0]  # the third is the best, and over the budget
    assert after == pytest.approx({"excess": -0.1 + 0.25 * (-0.05 + 0.1), "performance": 0.6})


def test_the_first_episodes_compete_with_their_own_mean():
    rewards, after = told(SelfCompetition(), SelfCompetition().memory, [0.5, 0.7], [-0.1, -0.3])
    assert rewards == [-1, 1]
    assert after == pytest.approx({"excess": -0.2, "performance": 0.6})
    assert told(SelfCompetition(), {}, [0.5], [-0.1])[0] == [0]


def test_performance_is_remembered_from_the_first_episode_within_the_budget_on():
    rule = SelfCompetition(0.5)
    rewards, after = told(rule, {}, [0.9, 0.8], [0.1, 0.3])
    assert rewards == [1, -1]
    assert after == pytest.approx({"excess": 0.2})  # 0.9 and 0.8 were reached with too large a network
    rewards, after = told(rule, {"excess": -0.1}, [0.5, 0.7, 0.95], [-0.1, -0.1, 0.1])
    assert rewards == [-1, 1, -1]
    assert after["performance"] == pytest.approx(0.6)
    assert told(rule, {"excess": 0.1, "performance": 0.6}, [0.9], [0.2])[1]["performance"] == 0.6


def test_the_averages_are_exponential():
    rule, memory = SelfCompetition(0.3), {}
    for performance in (0.5, 0.6, 0.9):
        _, memory = told(rule, memory, [performance], [-0.1])
    assert memory["performance"] == pytest.approx(0.7 * (0.7 * 0.5 + 0.3 * 0.6) + 0.3 * 0.9)
    assert told(SelfCompetition(1.0), {"excess": 0.5, "performance": 0.1}, [0.8], [-0.2])[1] == {
        "excess": pytest.approx(-0.2),
        "performance": pytest.approx(0.8),
    }


def test_the_price_of_the_excess_rises_while_the_budget_is_missed():
    rule = Lagrangian(multiplier=2.0, step=0.5)
    rewards, after = told(rule, rule.memory, [0.5, 0.9], [-0.1, 0.3])
    assert rewards == pytest.approx([0.5 + 2 * 0.1, 0.9 - 2 * 0.3])
    assert after == pytest.approx({"multiplier": 2 + 0.5 * 0.1})
    rewards, after = told(rule, after, [0.5], [0.2])
    assert rewards == pytest.approx([0.5 - 2.05 * 0.2])
    assert after == pytest.approx({"multiplier": 2.05 + 0.5 * 0.2})
    assert told(rule, {"multiplier": 0.1}, [0.5], [-0.4])[1] == {"multiplier": 0.0}  # never pays for an excess


def test_plain_accuracy_is_nothing_over_the_budget():
    assert told(PlainAccuracy(), {}, [0.5, 0.9, 0.7], [0.0, 0.001, -1.0]) == ([0.5, 0, 0.7], {})


@pytest.mark.parametrize("rule", [SelfCompetition(), Lagrangian(), PlainAccuracy()])
def test_a_result_that_is_not_a_number_is_no_reward(rule):
    memory = {"excess": -0.1, "performance": 0.5, "multiplier": 1.0}
    rewards, _ = told(rule, memory, [NAN, 0.6], [-0.1, -0.1])
    assert [value != value for value in rewards] == [True, False]


@pytest.mark.parametrize("rule", [SelfCompetition(), Lagrangian(1.0), PlainAccuracy()])
def test_the_same_episodes_told_again_are_worth_the_same(rule):
    memory = {"excess": -0.1, "performance": 0.6, "multiplier": 1.0}
    assert told(rule, memory, [0.4, 0.8], [-0.1, 0.1]) == told(rule, memory, [0.4, 0.8], [-0.1, 0.1])
    assert rule.memory == type(rule)().memory


shares = st.floats(0, 1)
batches = st.lists(st.tuples(shares, st.floats(-1, 1)), min_size=1, max_size=6)


@given(st.lists(batches, min_size=1, max_size=4), st.floats(0.01, 1))
def test_self_competition_says_better_equal_or_worse(history, rate):
    rule, memory = SelfCompetition(rate), {}
    for batch in history:
        rewards, after = told(rule, memory, *map(list, zip(*batch, strict=True)))
        assert set(rewards) <= {-1, 0, 1}
        missed = [reward for reward, (_, excess) in zip(rewards, batch, strict=True) if excess > 0]
        met = [reward for reward, (_, excess) in zip(rewards, batch, strict=True) if excess <= 0]
        if missed and met and memory.get("excess", sum(excess for _, excess in batch)) <= 0:
            assert max(missed) <= min(met)
        memory = after
    seen = [part for batch in history for part in batch]
    for name, values in {"excess": [v for _, v in seen], "performance": [p for p, v in seen if v <= 0]}.items():
        assert (name in memory) == bool(values)
        assert not values or min(values) - 1e-9 <= memory[name] <= max(values) + 1e-9


@given(batches, st.floats(-1, 1), shares, shares)
def test_more_performance_at_the_same_cost_is_never_worth_less(batch, excess, lower, higher):
    assume(lower <= higher)
    performance, costs = [lower, higher, *(p for p, _ in batch)], [excess, excess, *(v for _, v in batch)]
    for rule in (SelfCompetition(), Lagrangian(), PlainAccuracy()):
        rewards, _ = told(rule, {"excess": -0.2, "performance": 0.5, "multiplier": 1.0}, performance, costs)
        assert rewards[0] <= rewards[1]


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, NAN])
def test_a_rate_out_of_its_range_is_named(rate):
    with pytest.raises(ValueError, match=rf"rate={rate}: must be above 0 and at most 1, e\.g\. 0\.5"):
        SelfCompetition(rate)


def test_a_price_out_of_its_range_is_named():
    for multiplier in (-0.5, NAN):
        with pytest.raises(ValueError, match=rf"multiplier={multiplier}: must be at least 0"):
            Lagrangian(multiplier=multiplier)
    for step in (0.0, NAN):
        with pytest.raises(ValueError, match=rf"step={step}: must be above 0"):
            Lagrangian(step=step)
