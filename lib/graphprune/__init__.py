"""graphprune: a network as a graph, its channels pruned for real, the cost shown with honest numbers.

>>> import graphprune
>>> model = graphprune.models.build("resnet20", num_classes=10, in_channels=3)
>>> graph = graphprune.trace(model, torch.zeros(1, 3, 32, 32))
>>> small = graphprune.prune(model, graph, keep)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from graphprune import (
        agent,
        arms,
        artifacts,
        ascent,
        base,
        bees,
        budget,
        census,
        contest,
        contrast,
        costs,
        data,
        distilled,
        encoder,
        environment,
        evaluator,
        exact,
        figures,
        funnel,
        graph,
        importance,
        learners,
        means,
        models,
        observation,
        proxies,
        pruning,
        rankers,
        ranking,
        replay,
        rewards,
        rivals,
        runtime,
        scorer,
        search,
        slider,
        space,
        tabular,
        train,
        trial,
        window,
    )
    from graphprune.costs import Cost, CostModel, cost, latency
    from graphprune.coupling import trace
    from graphprune.encoder import GraphEncoder
    from graphprune.environment import PruningEnv
    from graphprune.graph import ChannelGraph
    from graphprune.pruning import load_pruned, masked, prune, round_keep, save_pruned
    from graphprune.scorer import Scorer
    from graphprune.space import RateSpace, keep_from_rates

# Loaded on first use, so that `import graphprune` does not import PyTorch Geometric, pandas and the like.
_HOME = {
    "trace": "coupling",
    "ChannelGraph": "graph",
    "prune": "pruning",
    "round_keep": "pruning",
    "masked": "pruning",
    "save_pruned": "pruning",
    "load_pruned": "pruning",
    "Cost": "costs",
    "CostModel": "costs",
    "cost": "costs",
    "latency": "costs",
    "RateSpace": "space",
    "keep_from_rates": "space",
    "GraphEncoder": "encoder",
    "PruningEnv": "environment",
    "Scorer": "scorer",
}
_MODULES = {
    "agent",
    "arms",
    "artifacts",
    "ascent",
    "base",
    "bees",
    "budget",
    "census",
    "contest",
    "contrast",
    "costs",
    "data",
    "distilled",
    "encoder",
    "environment",
    "evaluator",
    "exact",
    "figures",
    "funnel",
    "graph",
    "importance",
    "learners",
    "means",
    "models",
    "observation",
    "proxies",
    "pruning",
    "rankers",
    "ranking",
    "replay",
    "rewards",
    "rivals",
    "runtime",
    "scorer",
    "search",
    "slider",
    "space",
    "tabular",
    "train",
    "trial",
    "window",
}

__all__ = [
    "ChannelGraph",
    "Cost",
    "CostModel",
    "GraphEncoder",
    "PruningEnv",
    "RateSpace",
    "Scorer",
    "agent",
    "arms",
    "artifacts",
    "ascent",
    "base",
    "bees",
    "budget",
    "census",
    "contest",
    "contrast",
    "cost",
    "costs",
    "data",
    "distilled",
    "encoder",
    "environment",
    "evaluator",
    "exact",
    "figures",
    "funnel",
    "graph",
    "importance",
    "keep_from_rates",
    "latency",
    "learners",
    "load_pruned",
    "masked",
    "means",
    "models",
    "observation",
    "proxies",
    "prune",
    "pruning",
    "rankers",
    "ranking",
    "replay",
    "rewards",
    "rivals",
    "round_keep",
    "runtime",
    "save_pruned",
    "scorer",
    "search",
    "slider",
    "space",
    "tabular",
    "trace",
    "train",
    "trial",
    "window",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"graphprune.{name}")
    if name in _HOME:
        return getattr(import_module(f"graphprune.{_HOME[name]}"), name)
    raise AttributeError(f"module 'graphprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
