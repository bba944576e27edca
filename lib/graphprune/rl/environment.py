"""Pruning as a game: walk over the network, decide which channels stay, and be told what the network left is worth.

A `Game` holds the rules and plays any number of episodes side by side; `PruningEnv` is one episode at a time in the
words of gymnasium, so that any agent can play.

An episode walks over the groups of coupled channels in the network's order, `passes` times. At each step the channels of one
group are kept or dropped, given what has gone before; a later pass may take a decision back. After the last step two
numbers say what was decided:

    excess V: the share of the cost that the decisions keep, less the share that may stay; above 0 the budget is missed.
    performance P: accuracy on validation, BN statistics re-estimated, no training, of the network *settled* on the
        budget [our reading]: what is too much is dropped, and what room is left is filled, in the order of the L1 norms,
        so that all networks are compared at one cost, and a larger one is not taken for a better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.rl.game import Game, game
from graphprune.rl.rewards import Memory, Reward, SelfCompetition
from graphprune.training.data import Dataset

__all__ = ["Game", "PruningEnv", "game"]


def __dir__() -> list[str]:
    return __all__


class PruningEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One episode at a time, as gymnasium has it.

    Observation (a Dict of Boxes, named as in PyG; N = channels + 2 nodes):
        x: (N, F + 6) float32, the features of `observation.observe` (see there for each one's unit), then `CHANGING`.
        edge_index: (2, E) int64 and edge_attr: (E, D) float32, the same at every step.

    Action, one of two spaces; only what belongs to the group to be decided now is looked at:
        "channels": MultiBinary(num_atoms), 1 = keep (the paper's).
        "ratios": Box(0, 1, (groups,)), the share of a group's channels to drop, smallest L1 norms first (as AMC, He et
            al. 2018, and GNN-RL, Yu et al. 2022).

    Reward: 0 until the last step, then `reward` of performance and excess. What it remembers (its own past, the
    multiplier) lives on from episode to episode; `reset(seed=...)`, after which everything is as if it were new, and
    `reset(options={"forget": True})` start it anew. `reset(options={"kept": mask})` begins the episode at a mask, say the best
    so far, in place of the whole network.

    Info: "macs" or "params" (the share kept now); after the last step "performance", "excess", "loss" and "kept", the
    settled mask over all channels; `env.game.prune(torch.from_numpy(info["kept"]))` is that network.

    Args:
        model, graph, data, share, setting: as `game` takes them.
        actions: which action space.
        reward: a rule of `graphprune.rl.rewards`.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> env = PruningEnv(model, graph, graphprune.data.load("digits"), 0.5)
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> terminated, truncated  # the other group is still to be decided
    (False, False)
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        data: Dataset,
        share: float = 0.5,
        *,
        actions: Literal["channels", "ratios"] = "channels",
        reward: Reward | None = None,
        **setting: Any,
    ) -> None:
        if actions not in ("channels", "ratios"):
            raise ValueError(f"actions={actions!r}: must be 'channels' (a bit each) or 'ratios' (one a group)")
        self.game = game(model, graph, data, share, **setting)
        self.reward: Reward = SelfCompetition() if reward is None else reward
        self.memory: Memory = self.reward.memory
        self.position = self.game.start(1)
        self.action_space: spaces.Space[Any] = spaces.MultiBinary(graph.num_atoms)
        if actions == "ratios":
            self.action_space = spaces.Box(0.0, 1.0, (len(graph.groups),), np.float32)
        seen = self._observed()
        nodes = len(seen["x"])
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            {
                "x": spaces.Box(-np.inf, np.inf, seen["x"].shape, np.float32),
                "edge_index": spaces.Box(0, nodes - 1, seen["edge_index"].shape, np.int64),
                "edge_attr": spaces.Box(-np.inf, np.inf, seen["edge_attr"].shape, np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        wishes = dict(options or {})
        if wishes.pop("forget", False) or seed is not None:
            self.memory = self.reward.memory
        kept = wishes.pop("kept", None)
        if wishes:
            raise ValueError(f"options: {sorted(wishes)} mean nothing here; there are 'forget' and 'kept'")
        self.position = self.game.start(1, None if kept is None else self._mask(kept))
        return self._observed(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Decide the channels of the next group.

        Raises:
            ValueError: an action outside the action space. RuntimeError: the episode is over; call `reset`.
        """
        if self.position.step == self.game.steps:
            raise RuntimeError("the episode is over: call reset() before the next step()")
        if not self.action_space.contains(action):
            raise ValueError(f"action={action!r}: not in {self.action_space}")
        self.position = self.game.play(self.position, read_actions(self.game, self.action_space, np.asarray(action)[None]))
        done, reward, info = self.position.step == self.game.steps, 0.0, self._info()
        if done:
            settled, excess, found = self.game.judge(self.position)
            rewards, self.memory = self.reward(self.memory, found.accuracy, excess)
            reward = float(rewards)
            info |= {"performance": float(found.accuracy), "loss": float(found.loss), "excess": float(excess)}
            info["kept"] = settled[0].numpy()
        return self._observed(), reward, done, False, info

    def _mask(self, kept: np.ndarray) -> Tensor:
        mask = torch.as_tensor(kept)
        if mask.shape != (self.game.graph.num_atoms,) or mask.dtype != torch.bool:
            raise ValueError(f"options['kept']: must be bool of shape ({self.game.graph.num_atoms},), as info['kept'] is")
        return self.game.never_empty(mask[None])[0]

    def _observed(self) -> dict[str, np.ndarray]:
        fixed = self.game.observation
        x = self.game.features(self.position)[0]
        parts = {"x": x, "edge_index": fixed.edge_index, "edge_attr": fixed.edge_attr}
        return {name: part.numpy().copy() for name, part in parts.items()}

    def _info(self) -> dict[str, Any]:
        return {self.game.budget.of: float(self.game.budget.shares(self.position.kept))}


def read_actions(game: Game, space: spaces.Space[Any], actions: np.ndarray) -> Tensor:
    """The channels that actions keep, (n, num_atoms) bool; space: a single episode's, bits or ratios; actions (n, ...)."""
    chosen = torch.from_numpy(np.asarray(actions))
    return chosen.bool() if isinstance(space, spaces.MultiBinary) else game.by_ratios(chosen)
