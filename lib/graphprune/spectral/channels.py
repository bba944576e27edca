"""The structured twin: whole channels scored by the effective resistances of their edges, to be removed by `prune`."""

from __future__ import annotations

from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.importance import per_atom
from graphprune.spectral.scores import FACTORS, scores


def channel_scores(
    model: nn.Module, graph: ChannelGraph, rule: str = "resistance", conv: str = "channels"
) -> dict[str, Tensor]:
    """How much each channel holds its layer's graph together: the sum of its edges' scores in the layers that make it.

    With the rule `resistance` it is the expected number of the channel's edges in a random spanning tree. It fits wherever
    `importance.l1` does.

    Args:
        model: the unpruned network `graph` was traced from. graph: its channel graph.
        rule: `resistance`, `degree` or `adjacency`, see `scores`. conv: see `edges.layer_edges`.
    Returns:
        group name -> (C,) float32, never negative.
    Raises:
        ValueError: as `scores`, or a group has no layer with weights.
    """
    if rule not in FACTORS:
        raise ValueError(f"rule={rule!r}: channels are scored by 'resistance', 'degree' or 'adjacency'")
    rows = {name.rpartition(".")[0]: value.flatten(1).sum(1) for name, value in scores(model, None, rule, conv).items()}
    total, hits = per_atom(graph, rows)
    for name, span in graph.slices.items():
        if bool((hits[span] == 0).any()):
            raise ValueError(f"group {name!r} has a channel that no layer with weights makes; use another importance")
    return {name: total[span].clone() for name, span in graph.slices.items()}
