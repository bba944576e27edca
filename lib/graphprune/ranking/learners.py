"""Rankers that learn from the measured accuracies of a few configurations.

    SACP-1    a graph encoder trained to predict accuracy, the paper's ablation     `Regression`
    a linear model and a forest of what the rates come to, without any graph        `Ridge`, `Trees`

Whoever compares them scores no configuration whose label they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from graphprune.encoders.ranker import Ranker
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning import importance
from graphprune.pruning.rates import RATES, check_indices, kept_table
from graphprune.pruning.window import Score
from graphprune.ranking import regression

Features = Callable[[ChannelGraph, Tensor], Tensor]
"""A graph and (B, groups) rate indices -> (B, features), what a model without a graph sees."""

CHUNK = 65_536  # configurations predicted at a time
ALPHAS = tuple(10.0**power for power in range(-3, 5))


def log_widths(graph: ChannelGraph, indices: Tensor) -> Tensor:
    """The log of the channels kept in each group, (B, groups) -> (B, groups) float64."""
    return kept_table(graph).double().log()[torch.arange(len(graph.groups)), indices]


def rates(graph: ChannelGraph, indices: Tensor) -> Tensor:
    """The rate of each group, (B, groups) -> (B, groups) float64."""
    return indices.double() / len(RATES)


@dataclass(frozen=True, eq=False)
class Learner(Ranker):
    """What learners have in common: the labels.

    Attributes:
        indices: (N, groups) int64 rate indices.
        accuracies: (N,), what was measured of them; any truth of which more is better.
    """

    indices: Tensor
    accuracies: Tensor

    def __post_init__(self) -> None:
        if len(self.indices) < 2 or self.accuracies.shape != (len(self.indices),):
            got = f"{tuple(self.accuracies.shape)} for {len(self.indices)} configurations"
            raise ValueError(f"accuracies: got {got}; needs one each of 2 or more")
        if not self.accuracies.isfinite().all():
            raise ValueError("accuracies holds numbers that are not finite: leave those configurations out")


@dataclass(frozen=True, eq=False)
class Regression(Learner):
    """SACP-1: a graph encoder and a linear layer trained on accuracies (`regression.predictor`, SACP section 4.4).

    Attributes:
        epochs, lr: of Adam.
        seed: of the initial weights and the order.
    """

    epochs: int = 100
    lr: float = 1e-3
    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        options = {"epochs": self.epochs, "lr": self.lr, "seed": self.seed}
        scores = importance.l1(model, graph)
        scorer, direction = regression.predictor(graph, scores, self.indices, self.accuracies, **options)  # type: ignore[arg-type]
        return lambda indices: scorer.embed(indices) @ direction


@dataclass(frozen=True, eq=False)
class Ridge(Learner):
    """Ridge regression on standardised features, its penalty chosen among `ALPHAS` by leave-one-out on the labels."""

    features: Features = log_widths

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        return _predicting(make_pipeline(StandardScaler(), RidgeCV(ALPHAS)), self, self.features, graph)


@dataclass(frozen=True, eq=False)
class Trees(Learner):
    """Extremely randomised trees (Geurts et al. 2006).

    Attributes:
        features: what they see.
        trees: how many.
        seed: of their splits.
    """

    features: Features = log_widths
    trees: int = 200
    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        forest = ExtraTreesRegressor(self.trees, random_state=self.seed)
        return _predicting(forest, self, self.features, graph)


def _predicting(estimator: object, labels: Learner, features: Features, graph: ChannelGraph) -> Score:
    """Fit a scikit-learn estimator to the labels; its predictions are the scores."""
    groups = len(graph.groups)
    check_indices(labels.indices, groups, len(RATES))
    fitted = estimator.fit(features(graph, labels.indices).numpy(), labels.accuracies.double().numpy())  # type: ignore[attr-defined]

    def predicted(indices: Tensor) -> Tensor:
        check_indices(indices, groups, len(RATES))
        parts = [fitted.predict(features(graph, part).numpy()) for part in indices.split(CHUNK)]
        return torch.cat([torch.from_numpy(part) for part in parts]).double()

    return predicted
