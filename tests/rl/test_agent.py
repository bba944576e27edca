"""The agent: its parts against literal answers and independent oracles, and that it learns where the best is known."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny_world import by_hand

from graphprune.pruning.evaluator import Performance
from graphprune.rl import agent
from graphprune.rl.agent import Reinforce, Settings, advantages, remember, surrogate
from graphprune.rl.policy import log_chances
from graphprune.rl.world_search import top

SMALL = Settings(evaluations=13, episodes=4, hidden=8)


def generator():
    return torch.Generator().manual_seed(0)


# --- reward and update ------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    performance = torch.tensor([[0.9, 0.7, 0.5, 0.5]])
    against_past = advantages(performance, torch.tensor([0.7]), "self")  # signs 1, 0, -1, -1, whose mean is -1/4
    assert against_past.tolist() == [[1.25, 0.25, -0.75, -0.75]]
    assert advantages(performance, torch.tensor([torch.nan]), "self")[0].sign().tolist() == [1, 1, -1, -1]
    standard = advantages(performance, torch.tensor([0.0]), "standard")
    assert standard[0].tolist() == pytest.approx([0.25 / 0.19249, 0.05 / 0.19249, -0.15 / 0.19249, -0.15 / 0.19249], abs=1e-3)


def test_the_past_is_a_moving_average_that_begins_with_the_first():
    past = remember(torch.tensor([torch.nan, 1.0]), torch.tensor([[0.2, 0.4], [0.0, 0.0]]), 0.25)
    assert past.tolist() == pytest.approx([0.3, 0.75])


def test_the_update_is_the_gradient_of_the_log_chance():
    here, scores = by_hand([0.0] * 16), torch.tensor([[0.5, -1.0, 2.0, 0.3]], requires_grad=True)
    drawn, gain = torch.tensor([[0b0101, 0b0110, 0b1010]]), torch.tensor([[1.0, 0.5, -1.5]])
    chances = log_chances(scores, here.masks, here.allowed(2))
    [right] = torch.autograd.grad(-(gain * chances.gather(1, drawn)).mean(), scores)
    [found] = torch.autograd.grad(surrogate(scores, here.masks[drawn], gain), scores)
    torch.testing.assert_close(found, right)


def test_on_average_the_update_is_the_gradient_of_the_expected_performance():
    values = torch.rand(16, generator=generator())
    here, settings = by_hand(values.tolist()), Settings(evaluations=200_000, episodes=200_000, entropy=0.0, reward="standard")
    scores, row = torch.tensor([[0.5, -1.0, 2.0, 0.3]], requires_grad=True), torch.tensor([0])
    allowed = here.allowed(2)
    chances = log_chances(scores, here.masks, allowed).exp()
    expected = (chances * here.performance).sum()
    [right] = torch.autograd.grad(-expected, scores)
    spread = (chances * (here.performance - expected).square()).sum().sqrt().detach()
    loss = Reinforce(settings, 1, 1)(here, row, row, allowed, scores, generator())
    [found] = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(found * (spread + 1e-3), right, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("reward", ["self", "standard"])
def test_it_learns_the_best_masks_of_a_world(few, reward):
    settings = Settings(evaluations=150 * 8 * 16, pairs=8, hidden=16, reward=reward, lr=5e-3)
    regrets = {}
    for name, evaluations in (("none", 8 * 16), ("all", settings.evaluations)):
        policy = agent.learn(few, replace(settings, evaluations=evaluations), [2, 3, 4])
        found = [few.regret(top(agent.scores(policy, few, k), few.allowed(k), few.masks), few.allowed(k)) for k in (2, 3, 4)]
        regrets[name] = torch.cat(found).mean().item()
    assert regrets["all"] < 0.5 * regrets["none"]


def test_learning_is_repeated_bit_for_bit(few):
    settings = Settings(evaluations=64, pairs=4, episodes=8, hidden=8)
    one, same, other = (agent.learn(few, settings, [2, 3], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(agent.scores(one, few, 3), agent.scores(same, few, 3))
    assert not torch.equal(agent.scores(one, few, 3), agent.scores(other, few, 3))


def test_fewer_evaluations_than_an_update_takes_are_refused(few):
    with pytest.raises(ValueError, match="evaluations=100: one update takes 48 x 16"):
        agent.learn(few, Settings(evaluations=100), [3])


# --- one network ------------------------------------------------------------------------------------------------------


class Counting:
    """An evaluator that likes one channel and counts what it is asked."""

    digest = "counting"

    def __init__(self):
        self.asked = 0

    def __call__(self, masks):
        self.asked += len(masks)
        accuracy = 0.5 + 0.4 * masks[:, 2].double()
        return Performance(accuracy, 1 - accuracy)


@pytest.mark.parametrize("evaluations", [4, 5, 12, 13, 14])
def test_it_judges_as_many_networks_as_it_may(rules, evaluations):
    watched = replace(rules, evaluator=Counting())
    found = agent.train(watched, replace(SMALL, evaluations=evaluations))
    assert watched.evaluator.asked == evaluations
    assert int(found.history["evaluations"].iloc[-1]) == evaluations - 1  # the last is the policy's own mask


def test_it_finds_the_channel_that_matters(rules):
    found = agent.train(replace(rules, evaluator=Counting()), Settings(evaluations=481, episodes=16, hidden=16, lr=1e-2))
    assert found.scores[:4].argmax() == 2
    assert bool(found.kept[2])
    assert found.performance == 0.9
    assert float(rules.excess(found.kept[None])) <= 0
    late, early = found.history["performance"].iloc[-5:].mean(), found.history["performance"].iloc[:3].mean()
    assert late > early


def test_what_is_kept_is_the_best_judged(rules):
    found = agent.train(rules, SMALL)
    assert rules.evaluator(found.kept[None]).accuracy.item() == found.performance
    assert found.performance >= found.history["best"].max()
    assert isinstance(found.history, pd.DataFrame)
    assert list(found.history) == ["evaluations", "performance", "reward", "best"]


def test_what_was_learned_prints_on_a_line(rules):
    found = agent.train(replace(rules, evaluator=Counting()), replace(SMALL, evaluations=5))
    kept = int(found.kept.sum())
    assert repr(found) == f"Trained({kept} of 7 channels kept, validation 0.9000, 5 networks judged)"


def test_stopped_and_gone_on_is_the_same_bit_for_bit(rules, tmp_path):
    whole = agent.train(rules, SMALL)
    agent.train(rules, replace(SMALL, evaluations=9), checkpoint=tmp_path / "agent", every=1)
    gone_on = agent.train(rules, SMALL, checkpoint=tmp_path / "agent")
    again = agent.train(rules, SMALL, checkpoint=tmp_path / "agent")
    for one in (gone_on, again):
        assert torch.equal(one.scores, whole.scores)
        pd.testing.assert_frame_equal(one.history, whole.history)


def test_another_training_s_checkpoint_is_refused(rules, tmp_path):
    agent.train(rules, SMALL, checkpoint=tmp_path / "agent")
    with pytest.raises(ValueError, match="holds another training"):
        agent.train(rules, SMALL, seed=1, checkpoint=tmp_path / "agent")
    with pytest.raises(ValueError, match="holds 12 evaluations, more than evaluations=5"):
        agent.train(rules, replace(SMALL, evaluations=5), checkpoint=tmp_path / "agent")
    with pytest.raises(ValueError, match="every=0: must be at least 1"):
        agent.train(rules, SMALL, every=0)


def test_a_policy_that_is_carried_over_is_where_training_begins(rules, few):
    policy = agent.learn(few, Settings(evaluations=64, pairs=4, episodes=16, hidden=8), [2, 3])
    before = agent.scores_of(policy, rules)
    found = agent.train(rules, replace(SMALL, lr=1e-9), policy=policy)
    torch.testing.assert_close(found.scores, before, atol=1e-3, rtol=1e-3)
    assert torch.equal(agent.scores_of(policy, rules), before), "the policy handed over is left alone"


def test_a_performance_that_is_no_number_is_named(rules):
    broken = replace(rules, evaluator=lambda masks: Performance(torch.full((len(masks),), torch.nan), torch.zeros(len(masks))))
    object.__setattr__(broken.evaluator, "digest", "broken")
    with pytest.raises(FloatingPointError, match="a performance is not a finite number"):
        agent.train(broken, SMALL)
