"""Rankers that learn from cheap looks at pruned networks, and from the few accuracies there are: the suite's defaults.

    Distilled   no labels: a surrogate taught by `ClassMeans` on configurations of all sizes
    Taught      the same, tuned on measured accuracies

Both follow SACP's idea (network -> graph -> encoder -> score of a configuration); teacher, features, head and tuning are
ours, designed on the design part of the table of digits alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphprune.encoders.ranker import Ranker, RankFunction, Stage, prepare
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.window import Score
from graphprune.ranking.learners import Learner
from graphprune.ranking.surrogate import Surrogate, adapt, ensemble, learn, tilted
from graphprune.runs.description import described, modules
from graphprune.runs.runtime import progress, seed_generator

PIECE = 50  # configurations that a teacher looks at between two stores, some seconds


class Lessons(NamedTuple):
    """What a teacher said: of the configurations (N, groups) the numbers (N,), more is better."""

    indices: Tensor
    taught: Tensor


@dataclass(frozen=True, eq=False)
class Distilled(Ranker):
    """A surrogate of a teacher that has to look at every network: no labels, no fine-tuning.

    Attributes:
        teacher: any ranker or function, such as `class_means.ClassMeans(data)`; asked once, `n` times.
        n: configurations it is asked of, of all sizes.
        members: surrogates, which differ in their seed; their scores are averaged.
        epochs, lr: of their training.
        seed: of the configurations, the initial weights and the order.
        lessons: what the teacher said before; it is asked if None.

    >>> import torch, graphprune
    >>> from graphprune.ranking.class_means import ClassMeans
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> teacher = ClassMeans(graphprune.data.load("digits"))
    >>> score = Distilled(teacher, n=8, members=1, epochs=1).prepare(graph, model)
    >>> score(torch.zeros(1, len(graph.groups), dtype=torch.int64)).shape
    torch.Size([1])
    """

    teacher: Ranker | RankFunction
    n: int = 1000
    members: int = 3
    epochs: int = 60
    lr: float = 3e-3
    seed: int = 0
    lessons: Lessons | None = None

    def ask(self, graph: ChannelGraph, model: nn.Module, stage: Stage | None = None) -> Lessons:
        """The teacher's word, as it was stored or asked for now.

        Args:
            graph, model: the network.
            stage: where to store it, `PIECE` configurations at a time, so that a killed run goes on where it stopped.
        """
        if self.lessons is not None:
            return self.lessons
        indices = tilted(len(graph.groups), self.n, seed_generator(self.seed, "lessons"))
        if stage is None:
            return Lessons(indices, self.teacher(graph, model, indices))

        @cache
        def score() -> Score:
            return prepare(self.teacher, graph, model)

        taught, teacher = [], described(self.teacher)
        for piece in progress(indices.split(PIECE), "looks of the teacher"):

            def look(piece: Tensor = piece) -> dict[str, Tensor]:
                return {"taught": score()(piece)}

            stored = stage("lessons.safetensors", look, modules(self.teacher), teacher=teacher, indices=piece)
            taught.append(stored["taught"])
        return Lessons(indices, torch.cat(taught))

    def fit(self, graph: ChannelGraph, model: nn.Module, stage: Stage | None = None) -> list[Surrogate]:
        """The trained members; `surrogate.ensemble(members, other_graph)` scores another network's configurations."""
        return self._trained(graph, self.ask(graph, model, stage))

    def _trained(self, graph: ChannelGraph, lessons: Lessons) -> list[Surrogate]:
        found = []
        for seed in range(self.members * self.seed, self.members * (self.seed + 1)):
            found.append(Surrogate(seed=seed))
            learn(found[-1], graph, *lessons, epochs=self.epochs, lr=self.lr, seed=seed)
        return found

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return ensemble(self.fit(graph, model), graph)

    def prepare_stored(self, graph: ChannelGraph, model: nn.Module, stage: Stage) -> Score:
        return ensemble(self.fit(graph, model, stage), graph)


@dataclass(frozen=True, eq=False)
class Taught(Learner):
    """The surrogates of `Distilled`, tuned on labels; half of each score is still the teacher's.

    Where the teacher is good, 64 to 128 labels moved it by less than two draws of labels differ (design part, digits).

    Attributes:
        indices, accuracies: (N, groups) and (N,), the labels.
        distilled: what the surrogates know before.
        steps: of the tuning.
    """

    distilled: Distilled
    steps: int = 300

    def fit(self, graph: ChannelGraph, model: nn.Module, stage: Stage | None = None) -> list[Surrogate]:
        """The tuned members; `surrogate.ensemble(members, other_graph)` scores another network's configurations."""
        lessons, labels, base = self.distilled.ask(graph, model, stage), (self.indices, self.accuracies), self.distilled
        members = base._trained(graph, lessons)
        for seed, member in enumerate(members, base.members * base.seed):
            adapt(member, graph, lessons, labels, steps=self.steps, lr=base.lr, seed=seed)
        return members

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return ensemble(self.fit(graph, model), graph)

    def prepare_stored(self, graph: ChannelGraph, model: nn.Module, stage: Stage) -> Score:
        return ensemble(self.fit(graph, model, stage), graph)
