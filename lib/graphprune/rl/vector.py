"""Many episodes of one network side by side, as gymnasium has it: their masks are judged in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.rl.environment import PruningEnv, read_actions
from graphprune.runs.checks import at_least
from graphprune.training.data import Dataset


class VectorPruningEnv(VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """`PruningEnv`, several episodes at a time.

    All episodes have the same length, so that they end together; the step after that begins new ones (gymnasium's
    `AutoresetMode.NEXT_STEP`). The reward's memory is one: the episodes compete with one past.

    Args:
        num_envs: episodes side by side.
        model, graph, data, share, setting: as `PruningEnv` takes them, `actions` and `reward` among the settings.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> envs = VectorPruningEnv(4, model, graph, graphprune.data.load("digits"), 0.5)
    >>> observation, infos = envs.reset(seed=0)
    >>> observation["x"].shape, envs.action_space.shape
    ((4, 12, 21), (4, 7))
    """

    def __init__(
        self,
        num_envs: int,
        model: nn.Module,
        graph: ChannelGraph,
        data: Dataset,
        share: float = 0.5,
        **setting: Any,
    ) -> None:
        at_least(1, num_envs=num_envs)
        self.alone = PruningEnv(model, graph, data, share, **setting)
        self.num_envs, self.game, self.reward = num_envs, self.alone.game, self.alone.reward
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = self.alone.observation_space
        self.single_action_space = self.alone.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.memory, self.position = self.reward.memory, self.game.start(num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        if unknown := sorted(set(options or {}) - {"forget"}):
            raise ValueError(f"options: {unknown} mean nothing here; there is 'forget'")
        if seed is not None or (options or {}).get("forget", False):
            self.memory = self.reward.memory
        self.position = self.game.start(self.num_envs)
        return self._observed(), {}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Decide the channels of the next group in every episode; after the last one, begin new episodes.

        Raises:
            ValueError: actions outside the action space.
        """
        nothing = np.zeros(self.num_envs)
        if self.position.step == self.game.steps:
            self.position = self.game.start(self.num_envs)
            return self._observed(), nothing, nothing.astype(bool), nothing.astype(bool), {}
        if not self.action_space.contains(actions):
            raise ValueError(f"actions={actions!r}: not in {self.action_space}")
        self.position = self.game.play(self.position, read_actions(self.game, self.single_action_space, actions))
        done, rewards, infos = self.position.step == self.game.steps, nothing, dict[str, Any]()
        if done:
            settled, excess, found = self.game.judge(self.position)
            told, self.memory = self.reward(self.memory, found.accuracy, excess)
            rewards = told.double().numpy()
            infos = {"performance": found.accuracy.numpy(), "excess": excess.numpy(), "kept": settled.numpy()}
        return self._observed(), rewards, np.full(self.num_envs, done), np.zeros(self.num_envs, dtype=bool), infos

    def _observed(self) -> dict[str, np.ndarray]:
        fixed = self.game.observation
        x = self.game.features(self.position)
        edges = {"edge_index": fixed.edge_index, "edge_attr": fixed.edge_attr}
        many = {name: part.expand(self.num_envs, *part.shape) for name, part in edges.items()}
        return {name: part.numpy().copy() for name, part in {"x": x, **many}.items()}
