"""The agent: its formulas against loops, a problem whose answer is known, and trainings that are broken off."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

import pandas as pd
import pytest
import torch
from torch import nn

from graphprune import agent, cost, data, models, trace
from graphprune.agent import Policy, Settings, advantages, decide, decisions, learn, play, shift, train
from graphprune.pruning.evaluator import Performance
from graphprune.rl.game import Position, game
from graphprune.rl.rewards import Lagrangian, PlainAccuracy
from graphprune.runs import runtime
from graphprune.training.recipe import Recipe
from graphprune.training.train import evaluate, fit

QUICK = {"images": 20, "calibration": 8}
SMALL = Settings(evaluations=24, episodes=4, epochs=2, minibatches=2, hidden=4, heads=2, layers=1)
SEED = runtime.seed_generator


def build(share=0.5, name="tiny_cnn", **setting):
    digits = data.load("digits", device="cpu")
    model = models.seeded(name, 0, in_channels=1)
    return game(model, trace(model, digits.example()), digits, share, **{**QUICK, **setting})


@pytest.fixture(scope="module")
def rules():
    return build()


def untrained(rules, seed=0, scale=1.0, **changes):
    """A policy with first weights, its opinions `scale` times as strong."""
    settings = replace(SMALL, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        policy = Policy(rules.features(rules.start(1)).shape[2], 1, settings)
    with torch.no_grad():
        policy.decide.weight.mul_(scale)
    return policy


def rollout_of(rules, policy, episodes=6, seed=0, kept=None):
    whole = torch.ones(rules.graph.num_atoms, dtype=torch.bool)
    return play(rules, policy, whole if kept is None else kept, episodes, SEED(seed))


class Counted:
    """An evaluator by known good channels: the share of all channels that are good and kept, or neither."""

    def __init__(self, good):
        self.good, self.digest = good, "counted"

    def __call__(self, kept):
        accuracy = (kept == self.good).double().mean(1)
        return Performance(accuracy, 1 - accuracy)


@dataclass
class Watched:
    """Remembers what it is asked; from the call `broken` on its answers are not numbers."""

    inner: object
    broken: int = 10**9
    asked: list = field(default_factory=list)

    @property
    def digest(self):
        return self.inner.digest

    def __call__(self, kept):
        found = self.inner(kept)
        self.asked.append((kept.clone(), found))
        if len(self.asked) >= self.broken:
            found.accuracy[-1] = float("nan")
        return found


def watched(rules, broken=10**9):
    evaluator = Watched(rules.evaluator, broken)
    return replace(rules, evaluator=evaluator), evaluator.asked


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_advantages_are_the_sum_of_the_steps_to_come(gae_lambda):
    values, rewards = torch.randn(5, 3, generator=SEED(0)), torch.randn(3, generator=SEED(1))
    found = advantages(values, rewards, gae_lambda)
    for episode, step in itertools.product(range(3), range(5)):
        expected = 0.0
        for later in range(step, 5):
            following = float(values[later + 1, episode]) if later < 4 else float(rewards[episode])
            expected += gae_lambda ** (later - step) * (following - float(values[later, episode]))
        assert float(found[step, episode]) == pytest.approx(expected, abs=1e-5)
    if gae_lambda == 1:
        torch.testing.assert_close(found, rewards - values)


@pytest.mark.parametrize("of", ["macs", "params"])
@pytest.mark.parametrize("actions", ["channels", "ratios"])
def test_the_shift_puts_the_expected_cost_a_little_below_the_budget(actions, of):
    rules = build(0.5, of=of)
    for seed in range(3):
        policy = untrained(rules, seed, 3.0, actions=actions)
        kind, starts = decisions(rules, policy), torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 1, 0]]).bool()
        for position in (Position(starts), Position(torch.tensor([[1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0]]).bool(), 1)):
            with torch.no_grad():
                logits = policy(rules, rules.features(position))[0]
            moved = shift(rules, kind, logits, position, 0.07)
            for kept, start in zip((logits + moved).sigmoid(), position.kept, strict=True):
                a, b = (kept[:4].sum(), kept[4:].sum()) if actions == "channels" else (4 * kept[0], 3 * kept[1])
                a = start[:4].sum() if position.step else a  # what is decided stands
                if of == "macs":
                    cost, whole = 576 * (a + a * a + a * b) + 10 * b, 576 * (4 + 16 + 12) + 30
                else:  # 9 weights a filter and channel, 2 of a normalisation's, and the classes' biases
                    cost, whole = 9 * (a + a * a + a * b) + 2 * (2 * a + b) + 10 * b + 10, 9 * 32 + 22 + 40
                assert float(cost / whole) == pytest.approx(0.43, abs=1 / whole)  # costs are whole numbers


def test_a_draw_has_the_bernoullis_probability(rules):
    policy, logits = untrained(rules), torch.tensor([-6.0, -2.0, -0.5, 0.0, 0.5, 2.0, 6.0])
    n = 20_000
    action, keep, by = decisions(rules, policy).draw(logits.expand(n, -1), policy.log_std.exp(), SEED(0))
    assert torch.equal(action.bool(), keep)
    assert torch.equal(keep, by > 0)
    p = logits.sigmoid()
    assert bool(((keep.double().mean(0) - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all())
    both = (keep[:, 3] & keep[:, 4]).double().mean()
    assert abs(float(both - p[3] * p[4])) < 0.015  # and they are independent


def test_a_draw_of_ratios_is_normal_around_the_share_to_drop(rules):
    policy, logits = untrained(rules, actions="ratios"), torch.tensor([-1.0, 1.0])
    ratios, keep, by = decisions(rules, policy).draw(logits.expand(20_000, -1), torch.tensor(0.2), SEED(0))
    torch.testing.assert_close(ratios.mean(0), (-logits).sigmoid(), atol=0.006, rtol=0)
    torch.testing.assert_close(ratios.std(0), torch.full((2,), 0.2), atol=0.005, rtol=0)
    assert torch.equal(keep, rules.by_ratios(ratios))
    torch.testing.assert_close(by[:, :4] + ratios[:, :1], rules.places[:4].expand(20_000, 4))


@pytest.mark.parametrize("setting", [{}, {"passes": 2}, {"decisions": 1}])
@pytest.mark.parametrize("actions", ["channels", "ratios"])
def test_what_is_told_of_an_episode_is_what_happened(actions, setting):
    rules = build(**setting)
    policy = untrained(rules, actions=actions)
    start = torch.tensor([1, 0, 1, 1, 0, 1, 1]).bool()
    told = rollout_of(rules, policy, kept=start)
    position, std, entropies = rules.start(6, start), float(policy.log_std.detach().exp()), []
    for step in range(rules.steps):
        assert torch.equal(told.x[step], rules.features(position))
        with torch.no_grad():
            logits, values = policy(rules, told.x[step])
        moved, action = told.shift[step], told.actions[step]
        assert torch.equal(moved, shift(rules, decisions(rules, policy), logits, position, policy.settings.slack))
        torch.testing.assert_close(values, told.values[step])
        keeping = (logits + moved).sigmoid()
        if actions == "channels":
            by_hand = torch.where(action > 0, keeping, 1 - keeping).log()
            entropy = torch.special.entr(keeping) + torch.special.entr(1 - keeping)
            keep, decided = action.bool(), rules.stages[step]
        else:
            by_hand = -((action - (1 - keeping)) ** 2) / (2 * std**2) - torch.tensor(std * (2 * torch.pi) ** 0.5).log()
            entropy = torch.full_like(keeping, 0.5 + 0.5 * float(torch.tensor(2 * torch.pi * std**2).log()))
            keep, decided = rules.by_ratios(action), rules.stages[step, [0, 4]]
        torch.testing.assert_close(told.log_probs[step], by_hand)
        entropies.append(float(entropy[:, decided].mean()))
        position = rules.play(position, keep)
    assert told.entropy == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    torch.testing.assert_close(told.excess, rules.excess(position.kept))
    more, less = (told.settled & ~position.kept).any(1), (position.kept & ~told.settled).any(1)
    assert not bool((more & less).any())  # either filled up or cut back
    assert len(told.actions.flatten(1).unique(dim=1).T) > 1


def naive_loss(rules, policy, told, rewards):
    """PPO's loss, term by term."""
    settings, kind = policy.settings, decisions(rules, policy)
    gains = advantages(told.values, rewards, settings.gae_lambda)
    steps, episodes = told.values.shape
    loss, clipped = torch.zeros(()), 0
    for t in range(steps):
        logits, values = policy(rules, told.x[t])
        log_probs = kind.choice(logits + told.shift[t], policy.log_std.exp()).log_prob(told.actions[t])
        for e in range(episodes):
            loss = loss + settings.value * (values[e] - (gains[t, e] + told.values[t, e])) ** 2
            for d in range(log_probs.shape[1]):
                if kind.stages[t, d]:
                    ratio, gain = (log_probs[e, d] - told.log_probs[t, e, d]).exp(), gains[t, e]
                    bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                    clipped += bool(gain * bounded < gain * ratio)
                    loss = loss - torch.minimum(gain * ratio, gain * bounded)
    return loss / (steps * episodes), clipped


@pytest.mark.parametrize("actions", ["channels", "ratios"])
@pytest.mark.parametrize("moved", [False, True])
def test_the_update_follows_the_gradient_of_ppos_loss(rules, actions, moved):
    policy = untrained(rules, actions=actions, epochs=1, minibatches=1, max_norm=1e9)
    told, rewards = rollout_of(rules, policy), torch.tensor([1.0, -1, 1, 0, -1, 1])
    if moved:  # as if other weights had drawn: some ratios leave the clip's range
        told = replace(told, log_probs=told.log_probs + torch.randn(told.log_probs.shape, generator=SEED(0)))
    loss, clipped = naive_loss(rules, policy, told, rewards)
    assert (clipped > 0) == moved  # before the first step every ratio is 1
    expected = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    learn(rules, policy, torch.optim.SGD(policy.parameters(), lr=1.0), told, rewards, SEED(0))
    assert any(bool(gradient.abs().max() > 1e-3) for gradient in expected)
    for parameter, old, gradient in zip(policy.parameters(), before, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), old - gradient, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_no_longer_than_max_norm(rules):
    policy = untrained(rules, epochs=1, minibatches=1, max_norm=0.01)
    before = nn.utils.parameters_to_vector(policy.parameters()).detach()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    learn(rules, policy, optimizer, rollout_of(rules, policy), torch.tensor([1.0, -1, 1, 0, -1, 1]), SEED(0))
    moved = (nn.utils.parameters_to_vector(policy.parameters()).detach() - before).norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_episodes_side_by_side_do_not_see_each_other(rules, layers):
    policy, x = untrained(rules, layers=layers), torch.randn(5, 9, 18, generator=SEED(0))
    logits, values = policy(rules, x)
    alone = [policy(rules, x[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(logits, torch.cat([logit for logit, _ in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values, torch.cat([value for _, value in alone]), atol=1e-5, rtol=1e-4)


def test_with_no_layer_a_channel_sees_itself_alone_and_with_one_its_neighbours(rules):
    other = replace(rules, observation=replace(rules.observation, edge_index=rules.observation.edge_index.flip(0)))
    x = torch.randn(1, 9, 18, generator=SEED(0))
    changed = x.clone()
    changed[0, 0] += 1
    for layers in (0, 1):
        policy = untrained(rules, layers=layers)
        here, there, beside = (policy(one, y)[0][0].detach() for one, y in ((rules, x), (other, x), (rules, changed)))
        assert torch.allclose(here, there, atol=1e-6) == (layers == 0)
        assert float((here[0] - beside[0]).abs()) > 1e-4
        assert torch.allclose(here[4:], beside[4:], atol=1e-6) == (layers == 0)  # conv3 reads channel 0


def test_a_channel_that_is_gone_is_likelier_to_stay_so(rules):
    policy = untrained(rules, hold=3.0)
    with torch.no_grad():
        policy.encoder.first[0].weight.zero_()  # no opinion but what holds
        policy.decide.weight.zero_()
        logits, _ = policy(rules, rules.features(rules.start(1, torch.tensor([1, 0, 0, 1, 1, 0, 1]).bool())))
    assert logits.tolist() == [[3, -3, -3, 3, 3, -3, 3]]


# --- the mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{}, {"passes": 2}, {"decisions": 1}])
@pytest.mark.parametrize("of", ["macs", "params"])
def test_every_mask_is_within_the_budget_and_empties_no_group(of, setting):
    for share, actions in itertools.product((0.16, 0.5, 0.95), ("channels", "ratios")):
        rules = build(share, of=of, **setting)
        for seed, scale in enumerate((1.0, 1.0, 100.0)):
            policy = untrained(rules, seed, scale, actions=actions)
            own, probabilities = decide(rules, policy)
            masks = torch.cat([own[None], rollout_of(rules, policy, kept=own).settled])
            assert bool((rules.excess(masks) <= 0).all())
            assert bool((rules.budget.counts(masks) > 0).all())
            assert probabilities.shape == (7,)
            assert bool(((probabilities >= 0) & (probabilities <= 1)).all())


def test_in_each_group_the_likeliest_channels_stay():
    rules = build(name="resnet8", decisions=1)
    policy = untrained(rules, scale=3.0)
    kept, probabilities = decide(rules, policy)
    sizes = []
    for span in rules.graph.slices.values():
        inside, p = kept[span], probabilities[span]
        assert not bool(inside.all())
        assert p[inside].min() >= p[~inside].max()
        sizes.append(int(inside.sum()) / len(p) - float(p.mean()))
    assert max(sizes) - min(sizes) < 0.15  # and of each group about the share that is expected
    assert torch.equal(decide(rules, policy)[0], kept)


def test_a_policy_of_one_network_decides_on_a_deeper_one():
    shallow, deep = build(name="resnet8"), build(name="resnet14")
    learned = train(shallow, replace(SMALL, evaluations=4, epochs=1, minibatches=1)).policy
    kept, probabilities = decide(deep, learned)
    assert kept.shape == probabilities.shape == (deep.graph.num_atoms,)
    assert float(deep.excess(kept[None])) <= 0
    assert bool((deep.budget.counts(kept[None]) > 0).all())
    assert len(probabilities.unique()) > 20


# --- it learns --------------------------------------------------------------------------------------------------------


def known(share, good):
    """A game on 3 x 10 channels, `good` or not by their group and their place in it by L1 norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 10), (10, 10), (10, 10))]
        model = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2], nn.Flatten(), nn.Linear(640, 10))
    digits = data.load("digits", device="cpu")
    rules = game(model, trace(model, digits.example()), digits, share, decisions=1, **QUICK)
    worth = good(rules.budget.group, rules.places)
    return replace(rules, evaluator=Counted(worth)), worth


LEARNING = Settings(evaluations=960, anneal=960, episodes=32, epochs=4, minibatches=2, lr=0.03, hidden=8, layers=0, hold=0.0)
SEEDS = 3


def gap(probabilities, good):
    """How much likelier the good channels are to stay."""
    return float(probabilities[good].mean() - probabilities[~good].mean())


@pytest.mark.parametrize("layers", [0, 1])
def test_it_learns_which_channels_are_worth_keeping(layers):
    """Of each group those of the *smallest* L1 norms; means over three seeds, against policies that learn nothing."""
    rules, good = known(0.28, lambda group, place: place < 0.5)
    settings = replace(LEARNING, layers=layers)
    learned = [train(rules, settings, seed=seed) for seed in range(SEEDS)]
    idle = [train(rules, replace(settings, epochs=0), seed=seed) for seed in range(SEEDS)]
    gaps = [mean(gap(run.probabilities, good) for run in runs) for runs in (idle, learned)]
    own = [mean(run.history["own"].iloc[-1] for run in runs) for runs in (idle, learned)]
    chance = float(rules.evaluator(rules.budget.fit(torch.rand(500, 30, generator=SEED(0)))).accuracy.mean())
    assert abs(gaps[0]) < 0.05
    assert gaps[1] > 0.12
    assert own[1] > max(own[0], chance) + 0.06


def test_it_learns_which_groups_are_worth_keeping():
    rules, good = known(0.5, lambda group, place: group == 0)
    settings = replace(LEARNING, actions="ratios", lr=0.01)
    assert mean(gap(train(rules, settings, seed=seed).probabilities, good) for seed in range(SEEDS)) > 0.1
    assert abs(gap(train(rules, replace(settings, epochs=0)).probabilities, good)) < 0.1


def test_without_epochs_nothing_is_learned(rules):
    idle = train(rules, replace(SMALL, epochs=0))
    assert idle.history["own"].nunique() == 1
    first = train(rules, replace(SMALL, epochs=0, evaluations=4)).policy.state_dict()
    assert all(torch.equal(part, first[name]) for name, part in idle.policy.state_dict().items())


# --- a training -------------------------------------------------------------------------------------------------------


def test_the_history_is_what_happened(rules):
    watching, asked = watched(rules)
    trained = train(watching, SMALL)
    history = trained.history
    assert list(history["evaluations"]) == [4, 8, 12, 16, 20, 24]
    assert list(history["update"]) == [1, 2, 3, 4, 5, 6]
    assert [len(masks) for masks, _ in asked] == [4] * 6
    best, kept = (-1.0, 0.0), None
    for row, (masks, found) in zip(history.to_dict("records"), asked, strict=True):
        accuracies = found.accuracy.tolist()
        for mask, score in zip(masks, zip(accuracies, (-found.loss).tolist(), strict=True), strict=True):
            best, kept = (score, mask) if score > best else (best, kept)
        assert row["own"] == accuracies[0]
        assert row["performance"] == pytest.approx(sum(accuracies[1:]) / 3)
        assert row["best"] == best[0]
        assert row["feasible"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
        assert 0 <= row["entropy"] <= 0.6932
        assert -1 <= row["reward"] <= 1
    assert torch.equal(trained.kept, kept)
    assert trained.performance == best[0]
    assert torch.equal(trained.probabilities, decide(rules, trained.policy)[1])


def test_a_seed_gives_the_same_bits_whatever_else_is_drawn(rules):
    first = train(rules, SMALL, seed=1)
    torch.rand(5)
    before = torch.get_rng_state()
    again = train(rules, SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(first, again)
    other = train(rules, SMALL, seed=2)
    assert not torch.equal(other.probabilities, first.probabilities)


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)
    assert torch.equal(one.kept, other.kept)
    assert torch.equal(one.probabilities, other.probabilities)
    assert one.performance == other.performance
    for name, part in one.policy.state_dict().items():
        assert torch.equal(part, other.policy.state_dict()[name])


@pytest.fixture(scope="module")
def whole(rules):
    return train(rules, SMALL)


KILLED = """
    import os, signal, sys
    sys.path[:0] = {tests!r}
    from dataclasses import replace
    from test_agent import SMALL, build, train, watched
    class Deadly:
        def __init__(self, inner): self.inner, self.digest, self.calls = inner, inner.digest, 0
        def __call__(self, kept):
            self.calls += 1
            if self.calls == 6: os.kill(os.getpid(), signal.SIGKILL)
            return self.inner(kept)
    rules = build()
    train(replace(rules, evaluator=Deadly(rules.evaluator)), SMALL, checkpoint={path!r}, every=2)
"""


def test_a_killed_training_goes_on_as_if_it_had_not_been(rules, whole, tmp_path):
    path = tmp_path / "agent"
    code = textwrap.dedent(KILLED.format(tests=[str(folder) for folder in Path(__file__).parents[:2]], path=str(path)))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    watching, asked = watched(rules)
    assert_same(train(watching, SMALL, checkpoint=path, every=2), whole)
    assert len(asked) == 2  # of six updates four were stored
    watching, asked = watched(rules)
    assert_same(train(watching, SMALL, checkpoint=path, every=2), whole)
    assert asked == []


@pytest.mark.parametrize("reward", [None, Lagrangian()])
def test_a_training_broken_off_anywhere_goes_on_as_if_it_had_not_been(rules, tmp_path, reward):
    expected = train(rules, SMALL, reward=reward)
    for number in (2, 4, 5):
        path = tmp_path / str(number)
        with pytest.raises(FloatingPointError):
            train(watched(rules, broken=number)[0], SMALL, reward=reward, checkpoint=path, every=1)
        watching, asked = watched(rules)
        assert_same(train(watching, SMALL, reward=reward, checkpoint=path, every=1), expected)
        assert len(asked) == 7 - number


@pytest.mark.parametrize("first", [4, 5, 11, 12, 23])
@pytest.mark.parametrize("reward", [None, Lagrangian()])
def test_a_training_that_is_extended_ends_as_one_that_was_not(rules, tmp_path, reward, first):
    """Whether or not its last update had fewer networks; what was judged before is not judged again."""
    path, options = tmp_path / "agent", {"reward": reward, "every": 2}
    short = train(rules, replace(SMALL, evaluations=first), checkpoint=path, **options)
    assert_same(short, train(rules, replace(SMALL, evaluations=first), **options))
    watching, asked = watched(rules)
    assert_same(train(watching, replace(SMALL, evaluations=first), checkpoint=path, **options), short)
    assert asked == []
    assert_same(train(watching, SMALL, checkpoint=path, **options), train(rules, SMALL, **options))
    assert sum(len(masks) for masks, _ in asked) == 24 - first // 4 * 4


def test_extended_twice_and_by_a_part_of_an_update(rules, tmp_path):
    for number in (9, 10, 12, 15):
        found = train(rules, replace(SMALL, evaluations=number), checkpoint=tmp_path / "agent")
        assert_same(found, train(rules, replace(SMALL, evaluations=number)))


def test_a_shorter_training_does_not_come_from_the_checkpoint_of_a_longer_one(rules, tmp_path):
    path = tmp_path / "agent"
    train(rules, SMALL, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint='.*agent' holds 24 evaluations, more than evaluations=20: ask for at"):
        train(rules, replace(SMALL, evaluations=20), checkpoint=path)


@pytest.mark.parametrize("number", [4, 5, 6, 7, 8, 9])
def test_as_many_networks_are_judged_as_asked(rules, number):
    watching, asked = watched(rules)
    history = train(watching, replace(SMALL, evaluations=number)).history
    assert [len(masks) for masks, _ in asked] == {4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 3], 8: [4, 4], 9: [4, 4, 1]}[number]
    assert history["evaluations"].iloc[-1] == number
    assert history["best"].iloc[-1] == max(float(found.accuracy.max()) for _, found in asked)
    assert history["reward"].isna().tolist() == [len(masks) == 1 for masks, _ in asked]


def test_the_learning_rate_falls_over_the_evaluations_it_is_annealed_over():
    settings = Settings(evaluations=100, episodes=8, lr=0.1, anneal=32)
    assert [settings.rate(judged) for judged in (0, 8, 16, 24, 32, 40, 96)] == pytest.approx(
        [0.1, 0.075, 0.05, 0.025, 0.025, 0.025, 0.025]
    )
    assert [replace(settings, anneal=4).rate(judged) for judged in (0, 8)] == [0.1, 0.1]
    assert settings.updates == 13


def test_the_learning_rate_is_the_one_asked_for(rules, monkeypatch):
    seen = []
    monkeypatch.setattr(agent, "learn", lambda _game, _policy, optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    train(rules, replace(SMALL, lr=0.1, anneal=16))
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.025, 0.025])


def test_a_damaged_checkpoint_is_made_again(rules, whole, tmp_path):
    path = tmp_path / "agent"
    train(rules, SMALL, checkpoint=path, every=2)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="corrupted, so it is made again"):
        again = train(rules, SMALL, checkpoint=path, every=2)
    assert_same(again, whole)
    watching, asked = watched(rules)
    assert_same(train(watching, SMALL, checkpoint=path, every=2), whole)
    assert asked == []


def test_the_checkpoint_of_another_training_is_refused(rules, tmp_path):
    path = tmp_path / "agent"
    train(rules, SMALL, checkpoint=path, every=2)
    others = [
        (rules, SMALL, {"seed": 1}),
        (rules, SMALL, {"reward": PlainAccuracy()}),
        (rules, replace(SMALL, lr=0.1), {}),
        (build(0.4), SMALL, {}),
    ]
    for other, settings, changes in others:
        with pytest.raises(ValueError, match=r"checkpoint='.*agent' holds another training .* name another"):
            train(other, settings, checkpoint=path, **changes)


# --- the network found -----------------------------------------------------------------------------------------------


def test_the_network_found_is_as_good_as_promised():
    """Its BN statistics are re-estimated; with those of the whole network it would be at chance."""
    digits = data.load("digits", device="cpu")
    model = models.seeded("resnet8", 0, in_channels=1)
    fit(model, digits, Recipe(epochs=3, lr=0.1, batch_size=64), seed=0, device="cpu")
    rules = game(model, trace(model, digits.example()), digits, 0.5, decisions=1)
    trained = train(rules, replace(SMALL, evaluations=8))
    small = rules.prune(trained.kept)
    assert evaluate(small, digits.val).accuracy == pytest.approx(trained.performance, abs=1e-9)
    assert trained.performance > 0.5
    assert cost(small, digits.example()).macs <= 0.5 * cost(model, digits.example()).macs
    assert not small.training


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [None, Lagrangian(), PlainAccuracy()])
def test_a_performance_that_is_not_a_number_stops_with_the_episodes_named(rules, reward):
    with pytest.raises(FloatingPointError, match=r"episodes 9 to 12: a performance is not a finite number: \[.*nan\]"):
        train(watched(rules, broken=3)[0], SMALL, reward=reward)


@dataclass(frozen=True)
class Constant:
    value: float
    memory = PlainAccuracy.memory

    def __call__(self, memory, performance, excess):
        return performance * 0 + self.value, memory


def test_a_reward_that_is_not_a_number_stops_with_the_episodes_named(rules):
    with pytest.raises(FloatingPointError, match=r"episodes 1 to 4: a reward is not a finite number: \[inf, inf, inf\]"):
        train(rules, SMALL, reward=Constant(float("inf")))


def test_a_gradient_that_is_not_a_number_stops_with_the_episodes_named(rules):
    with pytest.raises(FloatingPointError, match=r"episodes 1 to 4: loss inf, norm of the gradient .*; lower settings\.lr="):
        train(rules, SMALL, reward=Constant(1e30))  # whose square is not finite


def test_a_policy_that_blew_up_stops_with_the_episodes_named(rules):
    settings = replace(SMALL, lr=1e37, epochs=1, minibatches=1)
    with pytest.raises(FloatingPointError, match=r"episodes 5 to 8: the policy's logits are not finite .* lower settings\.lr"):
        train(rules, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 2}, "episodes=2: must be at least 3"),
        ({"epochs": -1}, "epochs=-1: must be at least 0"),
        ({"minibatches": 0}, "minibatches=0: must be at least 1"),
        ({"anneal": 0}, "anneal=0: must be at least 1"),
        ({"hidden": 0}, "hidden=0: must be at least 1"),
        ({"heads": 0}, "heads=0: must be at least 1"),
        ({"layers": -1}, "layers=-1: must be at least 0"),
        ({"lr": 0.0}, r"lr=0\.0: must be above 0"),
        ({"lr": float("nan")}, "lr=nan: must be above 0"),
        ({"clip": 0}, "clip=0: must be above 0"),
        ({"max_norm": -1}, "max_norm=-1: must be above 0"),
        ({"gae_lambda": 1.5}, r"gae_lambda=1\.5: must be 0 \.\. 1"),
        ({"value": -0.5}, r"value=-0\.5: must be at least 0"),
        ({"evaluations": 7, "episodes": 8}, "evaluations=7: must be at least episodes=8, for one update"),
        ({"hidden": 5, "heads": 2}, "hidden=5: must be a multiple of heads=2"),
        ({"slack": 1.0}, r"slack=1\.0: must be at least 0 and below 1"),
        ({"slack": -0.1}, r"slack=-0\.1: must be at least 0"),
        ({"hold": float("nan")}, "hold=nan: must be a finite number"),
        ({"actions": "bits"}, "actions='bits': must be 'channels' or 'ratios'"),
    ],
)
def test_a_setting_out_of_its_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_a_training_that_is_never_stored_is_refused(rules):
    with pytest.raises(ValueError, match="every=0: must be at least 1"):
        train(rules, SMALL, every=0)
