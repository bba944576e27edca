"""Pruning as a game: positions, decisions, costs and observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.allocation import rank_in_group
from graphprune.pruning.budget import Budget
from graphprune.pruning.cost import CostModel
from graphprune.pruning.criterion import Criterion, score_channels
from graphprune.pruning.evaluator import MaskEvaluator, Performance
from graphprune.rl.observation import Observation, observe
from graphprune.runs import store
from graphprune.runs.checks import at_least, demand_number
from graphprune.runs.description import network
from graphprune.training.data import Dataset
from graphprune.training.dataset import check_dataset

CHANGING = ("kept", "decided in this pass", "decided now", "cost kept", "cost that may stay", "steps done")
"""The node features that change from step to step; the first three 0 or 1 by channel, the others shares, on every node."""


@dataclass(frozen=True, eq=False)
class Position:
    """Where B episodes, played side by side, have come to.

    Attributes:
        kept: (B, num_atoms) bool; what is not decided yet is as it was at the start.
        step: decisions taken.
    """

    kept: Tensor
    step: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Game:
    """The rules.

    Attributes:
        model: the trained network; never changed.
        graph: its channel graph.
        observation: the network as a graph over its channels (see `graphprune.rl.observation`).
        evaluator: what the networks left are judged by.
        budget: what they may cost.
        passes: walks over the network in one episode.
        scores: group -> (C,), what a group about to be emptied keeps and ratios drop by; L1 norms unless given.
        decisions: steps in a walk; one for each group unless given, 1 decides all channels at once (one shot).
    """

    model: nn.Module
    graph: ChannelGraph
    observation: Observation
    evaluator: MaskEvaluator
    budget: Budget
    passes: int = 1
    decisions: int | None = None
    scores: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        at_least(1, passes=self.passes)
        if self.decisions is not None and not 1 <= self.decisions <= len(self.graph.groups):
            raise ValueError(
                f"decisions={self.decisions}: must be 1 .. {len(self.graph.groups)}, the groups, or None: one each"
            )

    def __repr__(self) -> str:
        walk = f"{self.steps} decisions" + (f" in {self.passes} walks" if self.passes > 1 else "")
        name, channels = type(self.model).__name__, self.graph.num_atoms
        return f"Game({name}: {channels} channels in {len(self.graph.groups)} groups, {walk}, {self.budget!r})"

    @cached_property
    def stages(self) -> Tensor:
        """(steps, num_atoms) bool: the channels decided at each step, neighbouring groups as evenly split as they go."""
        groups = torch.arange(len(self.graph.groups))
        parts = groups.tensor_split(self.decisions or len(groups))
        return torch.stack([torch.isin(self.graph.owner, part) for part in parts]).repeat(self.passes, 1)

    @cached_property
    def digest(self) -> str:
        """What a result of the game depends on: weights, graph, budget, walk and what it is judged by."""
        fixed = self.observation
        seen = [fixed.x, fixed.edge_index, fixed.edge_attr]
        rules = [self.budget.share, self.budget.of, self.stages]
        own = [] if self.scores is None else [self.l1]
        return store.digest([network(self.model), self.graph.fingerprint(), *seen, *rules, self.evaluator.digest, *own])

    @property
    def steps(self) -> int:
        """Decisions in an episode."""
        return len(self.stages)

    @cached_property
    def l1(self) -> Tensor:
        """(num_atoms,): L1 norms, or `scores`; a group about to be emptied keeps its highest, and ratios drop the lowest."""
        scores = score_channels(self.scores, self.model, self.graph)
        return torch.cat([scores[name] for name in self.graph.slices]).cpu()

    def start(self, episodes: int, kept: Tensor | None = None) -> Position:
        """Where episodes begin: at the whole network, or at a mask, (num_atoms,) bool."""
        whole = torch.ones(self.graph.num_atoms, dtype=torch.bool)
        return Position((whole if kept is None else kept).expand(episodes, -1))

    def decided(self, position: Position) -> Tensor:
        """(num_atoms,) bool: the channels decided so far in the walk that is under way."""
        walk = self.steps // self.passes
        begun = min(position.step // walk, self.passes - 1) * walk  # at the end: of the last walk
        return self.stages[begun : position.step].any(0)

    def features(self, position: Position) -> Tensor:
        """Node features now, (B, nodes, F + 6) float32: the observation's and `CHANGING`."""
        kept, step, decided = position.kept, position.step, self.decided(position)
        now = self.stages[step] if step < self.steps else torch.zeros_like(decided)
        bits = torch.stack([kept, decided.expand_as(kept), now.expand_as(kept)], 2).float()
        others = len(self.observation.x) - bits.shape[1]  # input, class and layer nodes are nobody's choice
        bits = nn.functional.pad(bits, (0, 0, 0, others))
        nodes = self.observation.x.expand(len(kept), -1, -1)
        context = torch.tensor([0.0, self.budget.share, step / self.steps]).repeat(len(kept), 1)
        context[:, 0] = self.budget.shares(kept)
        return torch.cat([nodes, bits, context[:, None].expand(-1, nodes.shape[1], -1)], 2)

    def play(self, position: Position, keep: Tensor) -> Position:
        """Decide this step's channels by `keep`, (B, num_atoms) bool; the others' bits are not looked at."""
        kept = torch.where(self.stages[position.step], keep, position.kept)
        return Position(self.never_empty(kept), position.step + 1)

    def never_empty(self, kept: Tensor) -> Tensor:
        """(B, num_atoms) bool, where a group that keeps nothing keeps the channel of the largest L1 norm."""
        empty = self.budget.counts(kept) == 0
        for group, span in enumerate(self.graph.slices.values()):
            if bool(empty[:, group].any()):
                kept = kept.clone()
                kept[empty[:, group], span.start + int(self.l1[span].argmax())] = True
        return kept

    @cached_property
    def places(self) -> Tensor:
        """(num_atoms,) float64: each channel's place in its group by L1 norm, as a share, 0 .. (C - 1) / C."""
        return torch.cat([*rank_in_group({name: self.l1[span] for name, span in self.graph.slices.items()}).values()])

    def by_ratios(self, ratios: Tensor) -> Tensor:
        """The share of each group's channels to drop, rounded up, smallest L1 norms first. (B, groups) -> (B, num_atoms)."""
        kept = self.places >= ratios.double()[:, self.graph.owner] - 1e-6  # 1 / 3 in single precision drops one of three
        return self.never_empty(kept)

    def settle(self, kept: Tensor) -> Tensor:
        """Networks at the budget, of what was decided: (B, num_atoms) bool -> (B, num_atoms) bool.

        What was decided to go goes first, then what was decided to stay, each in the order of `places`, until the budget is
        met: a result either keeps all that was decided to stay, and perhaps more, or nothing else.
        """
        wish = self.places.argsort(stable=True).argsort()
        return self.budget.fit(wish + len(wish) * kept)

    def judge(self, position: Position) -> tuple[Tensor, Tensor, Performance]:
        """The networks of episodes that are over, at the budget; by how much the decisions missed it; and how good they are."""
        settled = self.settle(position.kept)
        return settled, self.excess(position.kept), self.evaluator(settled)

    def prune(self, kept: Tensor) -> nn.Module:
        """The network that a mask leaves, as it is judged: BN statistics re-estimated on the calibration images, no training.

        `graphprune.prune` alone keeps the statistics of the whole network, with which a pruned one is often at chance.

        Args:
            kept: (num_atoms,) bool, as `agent.Trained.kept`, `mask_search.Found.kept` and `settle`'s rows are.

        Raises:
            ValueError: another shape or dtype, or a group without a channel.

        >>> import graphprune
        >>> model = graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
        >>> digits = graphprune.data.load("digits")
        >>> rules = game(model, graphprune.trace(model, digits.example()), digits, 0.5)
        >>> small = rules.prune(rules.settle(rules.start(1).kept)[0])
        >>> graphprune.cost(small, digits.example()).macs / graphprune.cost(model, digits.example()).macs <= 0.5
        True
        """
        return self.evaluator.network(kept)

    def excess(self, kept: Tensor) -> Tensor:
        """The share of the cost that (B, num_atoms) bool keep, less the share that may stay: (B,) float64."""
        return self.budget.shares(kept) - self.budget.share


def game(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    share: float,
    *,
    of: Literal["macs", "params"] = "macs",
    passes: int = 1,
    decisions: int | None = None,
    strongest: int = 8,
    images: int | None = None,
    calibration: int | None = None,
    seed: int = 0,
    importance: Criterion = None,
) -> Game:
    """The game over one network.

    Args:
        model: the trained network.
        graph: its `trace`.
        data: `.train` calibrates (activations, BN statistics), `.val` judges; test is never read.
        share: of the cost, `of` "macs" or "params", that may stay.
        passes, decisions: see `Game`.
        strongest: incoming edges kept for each channel, see `observation.observe`.
        images: validation images an episode is judged by; all unless given.
        calibration: training images that BN statistics are re-estimated on; 128 unless given, or all where there are fewer.
        seed: which images.
        importance: what stands in place of L1 norms in the rules: scores, or a function (model, graph) -> scores, such as
            one of `graphprune.importance`. What an agent sees of the channels stays as it is.

    Raises:
        TypeError: `share` is no number. ValueError: an argument out of its range, by name.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> rules = game(model, graph, graphprune.data.load("digits"), 0.5)
    >>> kept = rules.settle(rules.start(4).kept)
    >>> rules.evaluator(kept).accuracy.shape
    torch.Size([4])
    """
    check_dataset(data)
    demand_number("e.g. 0.5 for half of the cost", share=share)
    observation = observe(model, graph, data, strongest=strongest, seed=seed)
    evaluator = MaskEvaluator(model, graph, data, images=images, calibration=calibration, seed=seed)
    budget = Budget(CostModel(graph, data.example()), share, of)
    scores = None if importance is None else score_channels(importance, model, graph, data, "importance")
    return Game(model, graph, observation, evaluator, budget, passes, decisions, scores)
