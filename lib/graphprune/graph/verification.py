"""Proof that a `keep` can be honoured: kept classes carried through the pruned network, without its weights.

A forward that reads no size does the same in every pruned network. One that does is recorded again, of the pruned network, and
compared with the first recording: the same operations, with the same numbers where they are no sizes, and results that have
lost just the places of what was pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.cutting import Numbers, Places, cut_parts, kept_classes, kept_numbers, kept_places
from graphprune.graph.parts import Parts, parts_of
from graphprune.graph.recording import Stopped, shapes_only
from graphprune.graph.rules.labels import Disagreement, compact, stored_dims, varies
from graphprune.graph.rules.operation import tensors
from graphprune.graph.rules.propagation import Propagation, first_line
from graphprune.graph.tracing import record_again

TAKES_SIZES = {
    *("view", "reshape", "expand", "unflatten", "split", "split_with_sizes", "narrow", "getitem", "zeros", "ones", "empty"),
    *("layer_norm", "rms_norm", "new_zeros", "new_ones", "new_empty", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
"""Operations whose numbers may differ in a pruned network: what they give is told by its shape and its labels."""


class Trouble(Exception):
    """A pruned network would compute something else: the node at which that shows, and why."""

    def __init__(self, node: str, why: str):
        super().__init__(node, why)
        self.node, self.why = node, why


def verify(
    graph: ChannelGraph, kept: Tensor, parts: Callable[[], Parts], network: Callable[[], nn.Module]
) -> tuple[str, str] | None:
    """Carry the kept classes through a pruned network and compare what every consumer reads.

    Args:
        graph: the trace of the unpruned one.
        kept: (num_atoms,) bool, what was kept.
        parts: gives the pruned network's parts.
        network: gives a throwaway copy of it, on the meta device if the graph is weightless.

    Returns:
        None if all is well, else the node at which it is not, and why.
    """
    places = kept_places(graph, kept)
    distinct = {id(site.atoms): site for site in graph.sites}
    classes = {key: site.atoms[places[site.tensor, site.dim]] for key, site in distinct.items()}
    seeds = {(site.tensor, site.dim): classes[id(site.atoms)] for site in graph.sites}
    try:
        for skeleton, training in ((graph.skeleton, False), (graph.training, True)):
            if skeleton is None:
                continue
            if graph.sized:
                small = network()
                again = record_cut(graph, skeleton, small, training)
                run = carry_labels(parts_of(small, again), again, seeds, graph.num_atoms)
                compare_places(skeleton, whole_labels(graph, skeleton), run, kept_classes(graph, kept))
            else:
                run = carry_labels(parts(), skeleton, seeds, graph.num_atoms, recorded=False)
    except Trouble as trouble:
        return trouble.node, trouble.why
    return None


def probe(graph: ChannelGraph, parts: Parts, network: Callable[[Places, Numbers], nn.Module]) -> tuple[str, str] | None:
    """Try hard cases before anything is offered: each group at one channel, all but one, or a random half, in two mixtures.

    Args:
        graph: what is to be offered.
        parts: the network that was traced.
        network: gives a pruned copy of it.
    """
    draw = torch.Generator().manual_seed(0)
    for case in range(2):
        kept = torch.rand(graph.num_atoms, generator=draw) < 0.5
        for number, span in enumerate(graph.slices.values()):
            hard = (number + case) % 4 if case else number % 3
            if hard < 2:
                kept[span] = hard == 1
                kept[span.start] = hard == 0
            elif not kept[span].any():
                kept[span.start] = True
        if trouble := verify_cut(graph, kept, parts, network):
            return trouble
    return None


def verify_cut(
    graph: ChannelGraph, kept: Tensor, parts: Parts, network: Callable[[Places, Numbers], nn.Module]
) -> tuple[str, str] | None:
    """As `verify`, of a network that is yet to be pruned."""
    places, numbers = kept_places(graph, kept), kept_numbers(graph, kept)
    return verify(graph, kept, lambda: cut_parts(parts, places, numbers), lambda: network(places, numbers))


def carry_labels(
    parts: Parts,
    graph: fx.Graph,
    seeds: Mapping[tuple[str, int], Tensor],
    atoms: int,
    recorded: bool = True,
) -> Propagation:
    """Classes carried along a forward; every tensor of the network must be met where its own lie.

    Raises:
        Trouble: they are not the same.
    """
    run = Propagation(parts, graph, seeds, atoms, recorded=recorded)
    try:
        with shapes_only():
            run.run()
        for key, labels in run.record.sites.items():
            run.ledger.tie(labels, seeds.get(key, labels), f"{key[0]} would read other channels than before")
    except Exception as error:  # whatever breaks here would break the pruned network
        known = isinstance(error, Disagreement)
        why = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
        raise Trouble(str(run.current), why) from error
    return run


# networks that read sizes ---------------------------------------------------------------------------------------------


def record_cut(graph: ChannelGraph, skeleton: fx.Graph, small: nn.Module, training: bool) -> fx.Graph:
    """The forward of a pruned network, if it does what the unpruned one did.

    Raises:
        Trouble: it does something else, or fails.
    """
    assert graph.inputs is not None
    nodes = list(skeleton.nodes)
    try:
        again = record_again(small, graph.inputs, graph.weightless, graph.over_kept, training).graph
    except Stopped as stopped:
        error: Any = stopped.__cause__
        operations = [node for node in nodes[stopped.at :] if node.op.startswith("call") and node.meta["rule"] is not None]
        at = [*operations, nodes[-1]][0]  # its numbers and weights are written down before it
        raise Trouble(at.name, f"{type(error).__name__}: {first_line(error)}") from error
    for node, other in zip(nodes, again.nodes, strict=False):
        if (node.op, node.name) != (other.op, other.name) or (node.op != "call_function" and node.target != other.target):
            raise Trouble(node.name, f"the pruned network does something else there ({other.name})")
        other.meta["rule"] = node.meta.get("rule")  # one that failed stays aside
        free = str(getattr(node.target, "__name__", node.target)) in TAKES_SIZES
        if node.op.startswith("call") and node.meta["rule"] is not None:
            for before, after in pairs((node.args, node.kwargs), (other.args, other.kwargs)):
                if not same_argument(before, after, free):
                    raise Trouble(node.name, f"the pruned network computes with {written(after)} there, not {written(before)}")
    if len(nodes) != len(again.nodes):
        raise Trouble(nodes[-1].name, "the pruned network does another number of operations")
    return again


def pairs(before: Any, after: Any) -> Iterator[tuple[Any, Any]]:
    """Leaves of two nested arguments side by side; a container of another kind or length as a whole."""
    if isinstance(before, slice) and isinstance(after, slice):
        before, after = (before.start, before.stop, before.step), (after.start, after.stop, after.step)
    if isinstance(before, tuple | list) and isinstance(after, tuple | list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from pairs(one, other)
    elif isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for key in before:
            yield from pairs(before[key], after[key])
    else:
        yield before, after


def same_argument(before: Any, after: Any, free: bool) -> bool:
    """Whether an argument is the same in both recordings. free: a number may differ."""
    if isinstance(before, fx.Node) and isinstance(after, fx.Node):
        number = before.meta["value"] if before.meta.get("rule", 0) is None else None
        return in_memory(before).name == in_memory(after).name and (number is None or free or number == after.meta["value"])
    if isinstance(before, int | float) and isinstance(after, int | float) and not isinstance(before, bool):
        return free or before == after
    plain = (bool, str, bytes, type(None), tuple, list, dict, fx.Node, torch.dtype, torch.device, int, float)
    return before == after if isinstance(before, plain) or isinstance(after, plain) else type(before) is type(after)


def in_memory(node: fx.Node) -> fx.Node:
    """The tensor that a node is a copy of, if any: `contiguous` gives its operand back where a smaller one lies in order."""
    while node.target == "contiguous":
        node = node.all_input_nodes[0]
    return node


def written(argument: Any) -> str:
    return str(argument.meta["value"] if isinstance(argument, fx.Node) else argument)


def whole_labels(graph: ChannelGraph, skeleton: fx.Graph) -> dict[str, Any]:
    """The classes that each node of the unpruned network bears."""
    assert graph.shell is not None
    seeds = {(site.tensor, site.dim): site.atoms for site in graph.sites}
    run = carry_labels(parts_of(graph.shell, skeleton), skeleton, seeds, graph.num_atoms)
    return {node.name: labels for node, labels in run.labels.items()}


def compare_places(skeleton: fx.Graph, wholes: Mapping[str, Any], run: Propagation, stays: Tensor) -> None:
    """Every result of the pruned network has lost just the places whose classes are gone.

    Raises:
        Trouble: one has not.
    """
    for node, other in zip(skeleton.nodes, run.graph.nodes, strict=True):
        if node.op in ("output", "get_attr"):  # a tensor that is cut is compared where it is read
            continue
        for labels, value in zip(tensors(wholes[node.name]), tensors(other.meta["value"]), strict=True):
            for dim in {*stored_dims(labels), *(d for d, size in enumerate(value.shape) if size != labels.shape[d])}:
                left = labels.shape[dim]
                if varies(labels, dim):
                    alive = stays[compact(labels)].movedim(dim, 0).flatten(1) if labels.ndim > 1 else stays[labels][:, None]
                    left = int(alive.any(1).sum())
                if value.shape[dim] != left:
                    raise Trouble(node.name, f"{value.shape[dim]} places along dimension {dim} where {left} were kept")
