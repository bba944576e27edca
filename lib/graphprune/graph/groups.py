"""From labels to groups: which channels must live or die together, and which cannot go at all.

A connected component of tied labels is an atom; atoms that lie in the same places of the same tensors form a group. Before a
group is offered, `trace` prunes a weightless copy of the network and carries the kept labels through it, so that every `keep`
over the graph's groups can be honoured.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, fx, nn

from graphprune.graph.channel_graph import ChannelGraph, Count, Group, Node, Norm, Site
from graphprune.graph.copies import Fresh
from graphprune.graph.inputs import Outputs, as_inputs, weightless_inputs
from graphprune.graph.norms import find_norms
from graphprune.graph.parts import parts_of
from graphprune.graph.recording import Recording
from graphprune.graph.rules.labels import count_values, varying_dims
from graphprune.graph.rules.operation import NumberKey, tensors
from graphprune.graph.rules.propagation import Record
from graphprune.graph.silent_layers import silent_layers
from graphprune.graph.tracing import demand_python, first_recording, propagate
from graphprune.graph.training_mode import training_forward
from graphprune.graph.verification import probe
from graphprune.graph.weightless import on_meta
from graphprune.runs.runtime import collector_paused


@collector_paused()
@torch.inference_mode(False)  # what is recorded must tell when it is written into
def trace(
    model: nn.Module, example_input: Any = None, *, outputs: Outputs = None, norms: Norms = "whole", **keywords: Any
) -> ChannelGraph:
    """Trace a network into its channel graph.

    The forward is run once, without weights where it runs without them, and written down (see `graphprune.graph.recording`).
    What cannot be seen is frozen, with its reason in `graph.frozen`.

    Source: nodes and edges as SACP section 3.2; coupled groups by label propagation.

    Args:
        model: the network. It is not changed.
        example_input: a tensor (B, C, H, W), a tuple of the forward's arguments, or a dictionary of its keywords. Shapes and
            dtypes are what counts, so zeros serve (integers, tokens say, should be valid ones); the smallest input the network
            accepts is the fastest.
        outputs: which outputs count, where not all do: keys or positions of the result, `outputs=["logits"]`, or a function
            of it. Channels that are an output which counts cannot go.
        norms: over which channels LayerNorm and its like take their statistics in a pruned network. "whole": over all that
            were there, as the masked twin does, so that the channels stay (RMSNorm's may go, its weight makes up for them).
            "kept": over the kept ones, in the masked twin too; so a transformer's width can be pruned.
        keywords: the forward's keywords, `trace(model, **batch)`.

    Raises:
        TypeError: `model` is no module, or compiled, or scripted; or there is no tensor among the inputs.
        ValueError: `norms` is neither of the two.
        ValueError: the network rejects the input, or decides by the values of its tensors; the message names the line.

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graphprune.trace(net, torch.zeros(1, 1, 8, 8)).groups[0].name
    'conv1'
    """
    demand_python(model)
    if norms not in NORMS:
        raise ValueError(f"norms={norms!r}: must be one of {', '.join(map(repr, NORMS))}")
    shell = on_meta(model)
    shell.eval()
    over_kept = find_norms(shell) if norms == "kept" else {}
    first, inputs, weightless = first_recording(model, shell, as_inputs(example_input, keywords, outputs), over_kept)
    parts = parts_of(shell, first.graph)
    fresh = Fresh(model, shell, inputs, weightless, over_kept)
    run = propagate(parts, first)
    if held := stuck_numbers(run.record):
        run = propagate(parts, first, held=held)
    if fixed := tangled(run.record):
        run = propagate(parts, first, fixed=fixed, held=held)
    for node in first.graph.nodes:
        if getattr(node.target, "__name__", node.target) in DRAWS:
            for labels in tensors(run.record.entering.get(node.name)):
                run.record.ledger.freeze(labels, "the forward draws random numbers for it")
    training = training_forward(parts, first, run.record, fresh, fixed, held)
    parts = parts_of(shell, first.graph, training.graph) if training else parts
    reach: Counter[str] = Counter()  # node -> how often it was in trouble
    skeletons = [first.graph, *([training.graph] if training else [])]
    for _ in range(TRIES):
        graph = assemble(run.record, fresh, first, training)
        trouble = probe(graph, parts, fresh.cut)
        if trouble is None:
            return graph
        node, reason = trouble
        reach[node] += 1
        for name in upstream(skeletons, node, reach[node]):
            for labels in tensors(run.record.entering.get(name)):
                run.record.ledger.freeze(labels, f"a smaller size breaks '{node}': {reason}")
    run.record.ledger.freeze(torch.arange(run.record.ledger.count), f"no group could be proven: '{node}': {reason}")
    return assemble(run.record, fresh, first, training)


Norms = Literal["whole", "kept"]
NORMS = get_args(Norms)

DRAWS = {"randn_like", "rand_like", "bernoulli", "bernoulli_", "gumbel_softmax"}
"""Operations that draw for each element. What is drawn in evaluation mode would be other numbers in a smaller network."""

TRIES = 60
"""Times that groups are offered to the proof, less of them each time, before all is frozen."""


def upstream(skeletons: Iterable[fx.Graph], name: str, steps: int) -> set[str]:
    """A node and what it reads, this many steps up: what may have caused the trouble that showed there."""
    found: set[str] = set()
    for skeleton in skeletons:
        nodes = {node for node in skeleton.nodes if node.name == name}
        for _ in range(steps):
            found.update(node.name for node in nodes)
            nodes = {source for node in nodes for source in node.all_input_nodes}
    return found


def assemble(record: Record, fresh: Fresh, first: Recording, training: Recording | None) -> ChannelGraph:
    """Resolve ties and freezes into atoms and groups, and number everything."""
    sites = {**record.sites, **element_sites(record)}
    classes = np.append(record.ledger.classes(), -1)  # -1, nothing to prune, stays -1
    count = int(classes.max()) + 1
    reasons = [reason for _, reason in record.ledger.reasons]
    why = record.ledger.first_reasons(classes)
    columns, alike = columns_of(sites, classes)
    members = group_classes(columns.values(), why, count)
    reasons.append("all its channels are tied together, so none of them can go")
    why[[int(group[0]) for group in members if len(group) == 1]] = len(reasons) - 1
    members = [group for group in members if len(group) > 1]
    order = np.concatenate([*members, np.flatnonzero(why >= 0)])
    number = np.full(count + 1, -1)
    number[order] = np.arange(len(order))
    whole = number.copy()
    final = {key: torch.from_numpy(number[found]) for key, found in columns.items()}
    frozen = {}
    number[order[sum(map(len, members)) :]] = -1  # from here on the atoms alone
    produced = []
    for layer in record.layers:
        found = classes[layer.labels.numpy()]
        produced.append(number[found])
        stuck = why[found[why[found] >= 0][:1]]
        if len(stuck) and layer.kind in {"conv", "fc"}:
            frozen[layer.name] = reasons[int(stuck[0])]
    nodes = [
        Node(layer.name, layer.kind, len(numbered), tuple(numbered.tolist()))
        for layer, numbered in zip(record.layers, produced, strict=True)
    ]
    groups = name_groups(nodes, produced, members)
    dims: dict[str, list[int]] = defaultdict(list)
    for tensor, dim in sites:
        dims[tensor].append(dim)
    told = {*frozen, *(layer for group in groups for layer in group.layers)}

    def verdict(name: str) -> str | None:
        """Why a layer or a tensor stays; "" if it does not or has been told, None if it is not known."""
        lying = [columns[alike[name, dim]] for dim in dims[name]]
        if name in told or any(bool((number[found] >= 0).any()) for found in lying):
            return ""
        stuck = [index for found in lying for index in why[found].tolist() if index >= 0]
        return record.opaque.get(name) or (reasons[stuck[0]] if stuck else None)

    def with_frozen(labels: Tensor) -> Tensor:
        return torch.from_numpy(whole[classes[labels.numpy()]])

    skeletons = [first.graph, *([training.graph] if training else [])]
    frozen |= silent_layers(parts_of(fresh.shell, *skeletons), skeletons, verdict)
    return ChannelGraph(
        nodes=tuple(nodes),
        edge_index=torch.tensor(sorted(set(record.edges)), dtype=torch.long).reshape(-1, 2).T.contiguous(),
        groups=groups,
        frozen=frozen,
        sites=tuple(Site(tensor, dim, final[column]) for (tensor, dim), column in alike.items()),
        shell=fresh.shell,
        skeleton=first.graph,
        training=training.graph if training else None,
        example=tuple(weightless_inputs(fresh.inputs).tensors),
        numbers=tuple(Count(key, with_frozen(labels)) for key, labels in record.numbers.items()),
        sized=first.sized or (training is not None and training.sized),
        inputs=fresh.inputs,
        weightless=fresh.weightless,
        norms=tuple(Norm(path, dim, with_frozen(labels), kept) for path, (dim, labels, kept) in record.norms.items()),
        zeroed=fresh.zeroed,
    )


def columns_of(
    sites: Mapping[tuple[str, int], Tensor], classes: np.ndarray
) -> tuple[dict[bytes, np.ndarray], dict[tuple[str, int], bytes]]:
    """The classes along the sites: each column once, by its bytes, and for every site which one it has. Many are equal."""
    columns: dict[bytes, np.ndarray] = {}
    read: dict[int, bytes] = {}  # many sites have the same labels
    for labels in sites.values():
        if id(labels) not in read:
            found = classes[labels.numpy()]
            read[id(labels)] = found.tobytes()
            columns[read[id(labels)]] = found
    return columns, {key: read[id(labels)] for key, labels in sites.items()}


def tangled(record: Record) -> set[str]:
    """Parameters and buffers used as operands whose elements do not differ along one dimension: rotary frequencies, say."""
    classes = record.ledger.classes() if record.elements else np.zeros(0, np.int64)
    return {
        name for name, labels in record.elements.items() if len(varying_dims(torch.from_numpy(classes[labels.numpy()]))) != 1
    }


def stuck_numbers(record: Record) -> set[NumberKey]:
    """Numbers of modules that count channels of which none can go: heads that are averaged, say. Within them, others may."""
    if not record.numbers:
        return set()
    classes, held = record.ledger.classes(), [labels for labels, _ in record.ledger.reasons]
    frozen = classes[np.concatenate(held)] if held else np.zeros(0, np.int64)
    found = {key: classes[labels[labels >= 0].numpy()] for key, labels in record.numbers.items()}
    several = {key: counted for key, counted in found.items() if len(counted) > 1}
    return {key for key, counted in several.items() if (counted == counted[0]).all() or np.isin(counted, frozen).all()}


def element_sites(record: Record) -> dict[tuple[str, int], Tensor]:
    """Sites of parameters used as operands: the one dimension along which their elements' classes differ.

    Where they differ along several, or the parameter is read as a weight too, its elements are frozen.
    """
    for (name, _), labels in record.sites.items():
        if name in record.opaque:
            record.ledger.freeze(labels, f"the parameter '{name}' is also read by an operation that is not known")
    classes = record.ledger.classes() if record.elements else np.zeros(0, np.int64)
    sites = {}
    for name, labels in record.elements.items():
        found = torch.from_numpy(classes[labels.numpy()])
        dims = varying_dims(found)
        shared = any(tensor == name for tensor, _ in record.sites)
        if name in record.opaque:
            record.ledger.freeze(labels, f"the parameter '{name}' is also read by an operation that is not known")
        elif len(dims) == 1 and not shared:
            sites[name, dims[0]] = labels.movedim(dims[0], 0).reshape(labels.shape[dims[0]], -1)[:, 0]
        else:
            record.ledger.freeze(labels, f"the parameter '{name}' ties it in more than one dimension")
    return sites


def group_classes(columns: Iterable[np.ndarray], why: np.ndarray, count: int) -> list[np.ndarray]:
    """Unfrozen classes that lie in the same sites equally often, in order of first appearance.

    Args:
        columns: for each site the classes of its slices, -1 = nothing to prune; equal ones once.
        why: (count + 1,), -1 for a class that is not frozen.
    """
    columns = [found[found >= 0] for found in columns]
    if not columns:
        return []
    kind, kinds = np.zeros(count, np.int64), 1  # classes of one kind are alike in the columns so far
    for found in columns:
        touched, times = count_values(found)
        before = kind[touched] * (len(found) + 1) + times
        if len(before) and (before == before[0]).all():  # mostly all of a kind, as often
            kind[touched], kinds = kinds, kinds + 1
        else:
            different, which = np.unique(before, return_inverse=True)
            kind[touched] = kinds + which
            kinds += len(different)
    seen = np.concatenate(columns)
    first = np.full(count, len(seen))
    first[seen[::-1]] = np.arange(len(seen))[::-1]  # of a repeated index the last assignment stands
    free = np.flatnonzero((first < len(seen)) & (why[:count] < 0))
    free = free[np.argsort(first[free])]
    _, start, group = np.unique(kind[free], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(start))[group]
    return np.split(free[np.argsort(rank, kind="stable")], np.cumsum(np.bincount(rank))[:-1]) if len(free) else []


def name_groups(nodes: Iterable[Node], produced: Iterable[np.ndarray], members: list[np.ndarray]) -> tuple[Group, ...]:
    """Name the groups after their first producing layers. produced: the nodes' atoms."""
    owner = np.repeat(np.arange(len(members)), [len(group) for group in members])
    layers: list[dict[str, int]] = [{} for _ in members]
    for node, atoms in zip(nodes, produced, strict=True):
        if node.kind in {"conv", "fc"} and ":" not in node.name:
            channels = np.bincount(owner[atoms[atoms >= 0]])
            for index in np.flatnonzero(channels).tolist():
                layers[index][node.name] = int(channels[index])
    groups: list[Group] = []
    taken: set[str] = set()
    for group, producers in zip(members, layers, strict=True):
        base = name = next(iter(producers), "parameter")
        while name in taken:
            name = f"{base}#{sum(t.partition('#')[0] == base for t in taken) + 1}"
        taken.add(name)
        groups.append(Group(name, len(group), tuple(producers), sum(producers.values())))
    return tuple(groups)
