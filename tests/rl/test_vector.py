"""Episodes side by side are episodes one by one, and an agent from outside learns in them."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from tiny_game import QUICK, weighted

from graphprune.rl.environment import PruningEnv
from graphprune.rl.rewards import PlainAccuracy
from graphprune.rl.vector import VectorPruningEnv


@pytest.fixture
def build(tiny, digits):
    setting = {"reward": PlainAccuracy(), **QUICK}
    return lambda kind, *first, **more: kind(*first, weighted(), tiny, digits, 0.4, **{**setting, **more})


@pytest.mark.parametrize("actions", ["channels", "ratios"])
def test_episodes_side_by_side_are_episodes_one_by_one(build, actions):
    many, one = build(VectorPruningEnv, 3, actions=actions), build(PruningEnv, actions=actions)
    many.action_space.seed(0)
    seen, _ = many.reset(seed=0)
    plans = [many.action_space.sample() for _ in range(many.game.steps)]
    assert many.observation_space.contains(seen)
    for plan in plans:
        seen, rewards, done, truncated, infos = many.step(plan)
    assert done.all()
    assert not truncated.any()
    for episode in range(3):
        one.reset()
        for plan in plans:
            alone, reward, _, _, info = one.step(plan[episode])
        assert rewards[episode] == reward
        assert infos["performance"][episode] == info["performance"]
        assert np.array_equal(infos["kept"][episode], info["kept"])
        assert all(np.array_equal(seen[name][episode], alone[name]) for name in alone)


def test_the_step_after_the_end_begins_new_episodes(build):
    envs = build(VectorPruningEnv, 2, decisions=1)
    first, _ = envs.reset(seed=0)
    actions = np.ones((2, 7), dtype=np.int8)
    assert envs.step(actions)[2].tolist() == [True, True]
    seen, rewards, done, _, infos = envs.step(actions)
    assert np.array_equal(seen["x"], first["x"])
    assert (rewards.tolist(), done.tolist(), infos) == ([0, 0], [False, False], {})
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_what_is_out_of_range_is_named(build):
    with pytest.raises(ValueError, match="num_envs"):
        build(VectorPruningEnv, 0)
    envs = build(VectorPruningEnv, 2)
    with pytest.raises(ValueError, match=r"options: \['kept'\] mean nothing here"):
        envs.reset(options={"kept": None})
    with pytest.raises(ValueError, match=r"(?s)actions=.*: not in Box"):
        envs.step(np.full((2, 7), 2, dtype=np.int8))


def test_an_agent_from_outside_learns_in_it(build):
    """The cross-entropy method over the bits of one decision, which knows nothing of graphs: it gets better."""
    envs, chance = build(VectorPruningEnv, 32, decisions=1), torch.full((7,), 0.5)
    generator, means = torch.Generator().manual_seed(0), []
    for _ in range(12):
        envs.reset()
        actions = torch.rand(32, 7, generator=generator) < chance
        _, _, _, _, infos = envs.step(actions.to(torch.int8).numpy())
        worth = torch.from_numpy(infos["performance"] - 2 * np.maximum(infos["excess"], 0))
        means.append(worth.mean().item())
        best = actions[worth.topk(8).indices].float().mean(0)
        chance = (0.5 * chance + 0.5 * best).clamp(0.05, 0.95)
    assert np.mean(means[-2:]) > np.mean(means[:2]) + 0.05
