"""The environment: a network of two groups played by hand, gymnasium's own checks, pruning as the oracle of performance."""

import copy
import warnings

import gymnasium
import numpy as np
import pytest
import torch
import torchvision
from gymnasium.utils.env_checker import check_env
from tiny_game import QUICK, macs, weighted
from torch import nn

from graphprune import cost, data, prune, trace, train
from graphprune.rl.environment import PruningEnv
from graphprune.rl.game import CHANGING
from graphprune.rl.rewards import Lagrangian, PlainAccuracy


@pytest.fixture(scope="module")
def net():
    return weighted()


@pytest.fixture
def build(net, tiny, digits):
    return lambda share=0.4, **setting: PruningEnv(net, tiny, digits, share, **{**QUICK, **setting})


def bits(*kept):
    return np.array(kept, dtype=np.int8)


def finish(env, action):
    """Play one action until the end: rewards and the last info."""
    rewards, done, info = [], False, {}
    while not done:
        _, reward, done, truncated, info = env.step(action)
        assert not truncated
        rewards.append(reward)
    return rewards, info


# --- gymnasium --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{}, {"of": "params"}, {"passes": 2}, {"decisions": 1}, {"reward": PlainAccuracy()}])
@pytest.mark.parametrize("actions", ["channels", "ratios"])
def test_gymnasium_has_nothing_against_it(build, actions, setting):
    env = build(actions=actions, **setting)
    env.action_space.seed(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    left = [str(one.message) for one in said if "value is infinity" not in str(one.message)]
    assert [text for text in left if "value is -infinity" not in text] == []  # features have no natural bounds


def test_it_works_under_wrappers(build):
    env = build(passes=2)
    plain, _ = env.reset()
    wrapped = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.FlattenObservation(env))
    seen, _ = wrapped.reset(seed=0)
    assert seen.shape == (sum(part.size for part in plain.values()),)
    for _ in range(2):  # self-competition: the second time it is as good as itself
        wrapped.reset()
        rewards, info = finish(wrapped, bits(1, 0, 0, 1, 0, 1, 0))
        assert len(rewards) == 4
        assert info["episode"]["l"] == 4
        assert info["episode"]["r"] == sum(rewards) == 0
    limited = gymnasium.wrappers.TimeLimit(build(), 1)
    limited.reset()
    assert limited.step(bits(*[1] * 7))[2:4] == (False, True)


def test_it_works_in_a_vector(build):
    vector = gymnasium.vector.SyncVectorEnv([lambda: build(reward=PlainAccuracy()), lambda: build(reward=PlainAccuracy())])
    observed, _ = vector.reset(seed=0)
    assert observed["x"].shape == (2, 12, 15 + len(CHANGING))
    plans = np.stack([bits(1, 1, 0, 0, 0, 1, 0), bits(1, 0, 0, 1, 0, 0, 1)])
    for _ in range(2):
        _, rewards, done, _, info = vector.step(plans)
    assert done.all()
    for plan, reward, performance in zip(plans, rewards, info["performance"], strict=True):
        alone = build(reward=PlainAccuracy())
        alone.reset()
        assert finish(alone, plan)[0][-1] == reward == performance
    assert not vector.step(plans)[2].any()  # the next episodes have begun


# --- what is seen -----------------------------------------------------------------------------------------------------


def changing(observed):
    """The changing features by name: by channel (nodes), or the one value that all nodes share."""
    assert observed["x"].shape[1] == 15 + len(CHANGING)
    columns = dict(zip(CHANGING, observed["x"][:, 15:].T, strict=True))
    for name in CHANGING[3:]:
        assert len(set(columns[name].tolist())) == 1
    of_channels = {name: columns[name][:9].tolist() for name in CHANGING[:3]}
    assert all(columns[name][9:].tolist() == [0, 0, 0] for name in CHANGING[:3])  # the three layers
    return of_channels | {name: columns[name].item(0) for name in CHANGING[3:]}


def test_what_is_seen_of_an_episode_by_hand(build):
    env = build()
    observed, info = env.reset()
    assert changing(observed) == {
        "kept": [1] * 7 + [0, 0],
        "decided in this pass": [0] * 9,
        "decided now": [1] * 4 + [0] * 5,
        "cost kept": 1,
        "cost that may stay": np.float32(0.4),
        "steps done": 0,
    }
    assert info == {"macs": 1}
    observed, reward, done, truncated, info = env.step(bits(1, 0, 0, 1, 0, 0, 0))  # the last three are not looked at
    assert (reward, done, truncated) == (0, False, False)
    assert changing(observed) == {
        "kept": [1, 0, 0, 1, 1, 1, 1, 0, 0],
        "decided in this pass": [1] * 4 + [0] * 5,
        "decided now": [0] * 4 + [1] * 3 + [0] * 2,
        "cost kept": pytest.approx(macs(2, 3)),
        "cost that may stay": np.float32(0.4),
        "steps done": 0.5,
    }
    assert info == {"macs": pytest.approx(macs(2, 3))}
    observed, _, done, _, info = env.step(bits(0, 0, 0, 0, 0, 0, 0))  # the emptied group keeps its largest L1 norm
    assert done
    assert changing(observed) == {
        "kept": [1, 0, 0, 1, 0, 1, 0, 0, 0],
        "decided in this pass": [1] * 7 + [0, 0],
        "decided now": [0] * 9,
        "cost kept": pytest.approx(macs(2, 1)),
        "cost that may stay": np.float32(0.4),
        "steps done": 1,
    }
    assert info["excess"] == pytest.approx(macs(2, 1) - 0.4)


def test_the_rest_of_what_is_seen_is_the_observation(build):
    env = build()
    first, _ = env.reset()
    second, *_ = env.step(bits(1, 0, 0, 1, 1, 1, 1))
    fixed = env.game.observation
    for observed in (first, second):
        assert np.array_equal(observed["x"][:, :15], fixed.x)
        assert np.array_equal(observed["edge_index"], fixed.edge_index)
        assert np.array_equal(observed["edge_attr"], fixed.edge_attr)
        assert env.observation_space.contains(observed)
    second["x"][:] = 7  # a copy
    assert not (env.game.observation.x == 7).any()


def test_a_later_pass_takes_a_decision_back(build):
    env = build(passes=2)
    env.reset()
    env.step(bits(0, 1, 0, 0, 0, 0, 0))
    observed, *_ = env.step(bits(0, 0, 0, 0, 1, 0, 0))
    assert changing(observed)["kept"] == [0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert changing(observed)["decided in this pass"] == [0] * 9
    assert changing(observed)["steps done"] == 0.5
    observed, _, done, _, info = env.step(bits(1, 0, 1, 0, 0, 0, 0))
    assert not done
    assert changing(observed)["kept"] == [1, 0, 1, 0, 1, 0, 0, 0, 0]
    assert changing(observed)["decided in this pass"] == [1] * 4 + [0] * 5
    assert info["macs"] == pytest.approx(macs(2, 1))


def test_one_decision_is_about_all_channels(build):
    env = build(decisions=1)
    observed, _ = env.reset()
    assert changing(observed)["decided now"] == [1] * 7 + [0, 0]
    _, _, done, _, info = env.step(bits(1, 0, 0, 1, 0, 1, 0))
    assert done
    assert info["macs"] == pytest.approx(macs(2, 1))


# --- ratios -----------------------------------------------------------------------------------------------------------


def test_an_episode_of_ratios(build):
    env = build(actions="ratios")
    env.reset()
    observed, *_ = env.step(np.array([0.5, 0.9], dtype=np.float32))
    assert changing(observed)["kept"] == [0, 1, 0, 1, 1, 1, 1, 0, 0]
    observed, *_ = env.step(np.array([0.9, 1 / 3], dtype=np.float32))
    assert changing(observed)["kept"] == [0, 1, 0, 1, 0, 1, 1, 0, 0]


# --- what it is worth -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["macs", "params"])
def test_performance_is_the_pruned_networks(net, tiny, digits, build, of):
    env = build(0.5, of=of, seed=3)
    for plan in (bits(1, 1, 1, 1, 1, 1, 1), bits(1, 0, 0, 0, 0, 0, 1), bits(0, 1, 1, 0, 1, 1, 0)):
        env.reset()
        _, info = finish(env, plan)
        kept = torch.from_numpy(info["kept"])
        small = prune(net, tiny, tiny.unflatten(kept))
        left = getattr(cost(small, digits.example()), of) / getattr(cost(net, digits.example()), of)
        assert left <= 0.5
        assert left == pytest.approx(float(env.game.budget.shares(kept[None])))
        train.reestimate_bn(small, digits, batches=1, batch_size=24, seed=3)
        expected = train.evaluate(small, digits.val.take(torch.arange(40)))
        assert info["performance"] == expected.accuracy
        assert info["loss"] == pytest.approx(expected.loss, rel=1e-5)
        decided = torch.from_numpy(plan).bool()
        assert info["excess"] == pytest.approx(float(env.game.budget.shares(decided[None])) - 0.5)
        assert info[of] == pytest.approx(info["excess"] + 0.5)


def test_the_reward_comes_with_the_last_step(build):
    env = build(0.5, reward=Lagrangian(2.0, step=1.0))
    env.reset()
    rewards, info = finish(env, bits(1, 1, 1, 1, 1, 1, 1))
    assert rewards == [0, pytest.approx(info["performance"] - 2 * 0.5)]
    env.reset()
    rewards, info = finish(env, bits(1, 1, 1, 1, 1, 1, 1))
    assert rewards[1] == pytest.approx(info["performance"] - 2.5 * 0.5)  # the price has risen by the excess


def test_what_the_reward_remembers_outlives_an_episode_until_it_is_to_forget(build):
    env = build(0.5, reward=Lagrangian(2.0))
    env.reset()
    finish(env, bits(1, 1, 1, 1, 1, 1, 1))
    env.reset()
    assert env.memory == {"multiplier": 2.5}
    env.reset(options={"forget": False})
    assert env.memory == {"multiplier": 2.5}
    env.reset(options={"forget": True})
    assert env.memory == {"multiplier": 2.0}


def test_an_episode_may_begin_at_a_mask(build):
    env = build(0.5)
    kept = np.array([1, 0, 1, 0, 0, 1, 1], dtype=bool)
    observed, info = env.reset(options={"kept": kept})
    assert changing(observed)["kept"] == [1, 0, 1, 0, 0, 1, 1, 0, 0]
    assert changing(observed)["decided in this pass"] == [0] * 9
    assert info["macs"] == pytest.approx(macs(2, 2))
    observed, *_ = env.step(bits(0, 1, 0, 0, 0, 0, 0))
    assert changing(observed)["kept"] == [0, 1, 0, 0, 0, 1, 1, 0, 0]  # the second group is still as it was
    observed, _ = env.reset(options={"kept": kept & False})
    assert changing(observed)["kept"] == [0, 1, 0, 0, 0, 1, 0, 0, 0]  # never empty
    assert changing(env.reset()[0])["kept"] == [1] * 7 + [0, 0]


@pytest.mark.parametrize("kept", [np.ones(7), np.ones(6, dtype=bool), np.ones((1, 7), dtype=bool)])
def test_a_beginning_that_is_no_mask_is_named(build, kept):
    with pytest.raises(ValueError, match=r"options\['kept'\]: must be bool of shape \(7,\), as info\['kept'\] is"):
        build().reset(options={"kept": kept})
    with pytest.raises(ValueError, match=r"options: \['keep'\] mean nothing here; there are 'forget' and 'kept'"):
        build().reset(options={"keep": kept})


def test_after_a_reset_with_a_seed_all_is_as_if_new(build):
    env, plans = build(decisions=1), (bits(1, 0, 0, 0, 0, 0, 1), bits(1, 1, 1, 1, 1, 1, 1), bits(0, 1, 0, 0, 0, 1, 0))

    def told(**reset):
        rewards = []
        for number, plan in enumerate(plans):
            env.reset(**(reset if not number else {}))
            rewards.append(env.step(plan)[1])
        return rewards

    first = told(seed=0)
    assert told() != first  # it competes with its past
    assert told(seed=0) == told(options={"forget": True}) == first


def test_the_model_is_left_alone(net, build):
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    env = build()
    env.reset()
    finish(env, bits(1, 0, 1, 0, 1, 0, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# --- what it does not take --------------------------------------------------------------------------------------------


def test_a_step_after_the_end_says_what_to_do(build):
    env = build(decisions=1)
    env.reset()
    env.step(bits(*[1] * 7))
    with pytest.raises(RuntimeError, match=r"the episode is over: call reset\(\) before the next step\(\)"):
        env.step(bits(*[1] * 7))


@pytest.mark.parametrize(
    ("actions", "action"),
    [
        ("channels", bits(1, 1, 1, 1, 1, 1)),
        ("channels", bits(1, 1, 1, 1, 1, 1, 2)),
        ("channels", 1),
        ("ratios", np.array([0.5, 1.5], dtype=np.float32)),
        ("ratios", np.array([0.5, np.nan], dtype=np.float32)),
        ("ratios", np.array([0.5], dtype=np.float32)),
    ],
)
def test_an_action_outside_the_space_changes_nothing(build, actions, action):
    env = build(actions=actions)
    env.reset()
    with pytest.raises(ValueError, match=r"action=.*: not in (MultiBinary\(7\)|Box\(0\.0, 1\.0, \(2,\), float32\))"):
        env.step(action)
    assert env.position.step == 0
    assert env.step(env.action_space.sample())[2] is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"actions": "bits"}, r"actions='bits': must be 'channels' \(a bit each\) or 'ratios'"),
        ({"share": 0.01}, r"share=0\.01: one channel a group costs 0\.0941 of the macs"),
        ({"of": "flops"}, r"of='flops': must be 'macs'"),
        ({"passes": 0}, r"passes=0: must be at least 1"),
        ({"decisions": 0}, r"decisions=0: must be 1 \.\. 2, the groups, or None: one each"),
        ({"decisions": 3}, r"decisions=3: must be 1 \.\. 2"),
        ({"strongest": 0}, r"strongest=0: must be at least 1 edge"),
        ({"images": 301}, r"images=301: must be a whole number, 1 to 300"),
        ({"calibration": 1}, r"calibration=1: .* 2 to 1137"),
        ({"seed": -1}, r"seed=-1"),
    ],
)
def test_an_argument_out_of_its_range_is_named(build, setting, message):
    with pytest.raises(ValueError, match=message):
        build(**setting)


def test_a_vision_transformer_is_played():
    """Its attention puts out a tuple; the hidden channels of its MLPs are what may go."""
    digits = data.load("digits", device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = torchvision.models.VisionTransformer(8, 4, 2, 2, 8, 16, num_classes=10)
    net = nn.Sequential(nn.Conv2d(1, 3, 1), model).eval()
    env = PruningEnv(net, trace(net, digits.example()), digits, 0.9, images=20, calibration=8)
    env.reset()
    _, info = finish(env, np.ones(env.game.graph.num_atoms, dtype=np.int8))
    kept = torch.from_numpy(info["kept"])
    small = env.game.prune(kept)
    assert not bool(kept.all())
    assert info["performance"] == train.evaluate(small, digits.val.take(torch.arange(20))).accuracy
    assert cost(small, digits.example()).macs <= 0.9 * cost(net, digits.example()).macs
