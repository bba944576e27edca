"""From labels to groups: which channels must live or die together, and which cannot go at all.

A connected component of tied labels is an atom; atoms that lie in the same places of the same tensors form a group. Before a
group is offered, `trace` prunes a weightless copy of the network and carries the kept labels through it, so that every `keep`
over the graph's groups can be honoured.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from torch import Tensor, fx, nn

from graphprune.cutting import cut, kept_classes, on_meta, without_data
from graphprune.graph import ChannelGraph, Group, Node, Site
from graphprune.labels import Disagreement, varying
from graphprune.networks import ChannelSelect
from graphprune.propagation import Propagation, Record
from graphprune.rules import module_base


class _Tracer(fx.Tracer):
    """Stops at every module whose forward is torch's own, subclasses included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, ChannelSelect) or module_base(m) is not None:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def symbolic(model: nn.Module) -> fx.GraphModule:
    """Trace a (weightless) model by torch.fx, in evaluation mode.

    Raises:
        ValueError: it has control flow that depends on data; the message names the line.
    """
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
        where = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"model cannot be traced: {type(error).__name__} at {where.filename}:{where.lineno} ({where.line}): {error}. "
            "Its forward decides by the values of tensors; move that out of the forward, or wrap it with torch.fx.wrap"
        ) from error


def as_inputs(example_input: Any) -> tuple[Tensor, ...]:
    """The example input as a tuple of meta tensors."""
    given = example_input if isinstance(example_input, tuple | list) else (example_input,)
    if not given or not all(isinstance(tensor, Tensor) for tensor in given):
        kinds = ", ".join(type(tensor).__name__ for tensor in given)
        raise TypeError(f"example_input must be a tensor or a tuple of the forward's tensors, got ({kinds})")
    return tuple(without_data(tensor) for tensor in given)


def reject_bad_input(skeleton: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            skeleton(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ValueError(
            f"model rejects example_input of shape {shapes}: {error}; give a tensor (or a tuple of tensors) its forward accepts"
        ) from error


def propagate(
    module: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    seeds: Mapping[tuple[str, int], Tensor] | None = None,
    atoms: int | None = None,
) -> Propagation:
    """Carry labels through a traced network; with `seeds`, the labels a pruned network's producers must have."""
    run = Propagation(module, seeds, atoms)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.run(*inputs, enable_io_processing=False)
    return run


def channel_graph(model: nn.Module, example_input: Any) -> ChannelGraph:
    """See `graphprune.graph.trace`."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    inputs = as_inputs(example_input)
    skeleton = symbolic(on_meta(model))
    reject_bad_input(skeleton, inputs)
    record = propagate(skeleton, inputs).record
    for _ in range(100):
        graph = assemble(record, skeleton, inputs)
        trouble = probe(graph, skeleton)
        if trouble is None:
            return graph
        node, reason = trouble
        for labels in record.entering.get(node, []):
            record.ledger.freeze(labels, f"a smaller size breaks '{node}': {reason}")
    raise ValueError("no set of groups was found that can be pruned safely: please report this network")


# groups -----------------------------------------------------------------------------------------------------------


def assemble(record: Record, skeleton: fx.GraphModule, inputs: tuple[Tensor, ...]) -> ChannelGraph:
    """Resolve ties and freezes into atoms and groups, and number everything."""
    sites = {**record.sites, **element_sites(record)}
    classes = record.ledger.classes()
    count = int(classes.max()) + 1 if len(classes) else 0
    why = np.full(count, -1)  # of each class the reason it is frozen, an index
    reasons = [reason for _, reason in record.ledger.reasons]
    for index in reversed(range(len(reasons))):  # the first reason found is the one told
        why[classes[record.ledger.reasons[index][0]]] = index
    resolved = {key: np.where(labels.numpy() < 0, -1, classes[labels.numpy()]) for key, labels in sites.items()}
    members = group_classes(resolved, why, count)
    reasons.append("all its channels are tied together, so none of them can go")
    why[[int(group[0]) for group in members if len(group) == 1]] = len(reasons) - 1
    members = [group for group in members if len(group) > 1]
    order = np.concatenate([*members, np.flatnonzero(why >= 0)])
    number = np.full(count + 1, -1)
    number[order] = np.arange(len(order))
    final = {key: torch.from_numpy(number[found]) for key, found in resolved.items()}
    atoms, nodes, frozen = sum(len(group) for group in members), [], {}
    for layer in record.layers:
        found = np.where(layer.labels.numpy() < 0, -1, classes[layer.labels.numpy()])
        numbered = np.where((found >= 0) & (number[found] < atoms), number[found], -1)
        nodes.append(Node(layer.name, layer.kind, len(found), tuple(numbered.tolist())))
        stuck = [why[c] for c in found.tolist() if c >= 0 and why[c] >= 0]
        if stuck and layer.kind in {"conv", "fc"}:
            frozen[layer.name] = reasons[stuck[0]]
    return ChannelGraph(
        nodes=tuple(nodes),
        edge_index=torch.tensor(sorted(set(record.edges)), dtype=torch.long).reshape(-1, 2).T.contiguous(),
        groups=name_groups(nodes, members),
        frozen=frozen,
        sites=tuple(Site(tensor, dim, labels) for (tensor, dim), labels in final.items()),
        skeleton=skeleton,
        example=inputs,
    )


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
        dims = varying(found)
        shared = any(tensor == name for tensor, _ in record.sites)
        if len(dims) == 1 and not shared:
            sites[name, dims[0]] = labels.movedim(dims[0], 0).reshape(labels.shape[dims[0]], -1)[:, 0]
        else:
            record.ledger.freeze(labels, f"the parameter '{name}' ties it in more than one dimension")
    return sites


def group_classes(resolved: Mapping[tuple[str, int], np.ndarray], why: np.ndarray, count: int) -> list[np.ndarray]:
    """Unfrozen classes that lie in the same sites equally often, in order of first appearance."""
    rows, cols = [], []
    for site, found in enumerate(resolved.values()):
        rows.append(found[found >= 0])
        cols.append(np.full(len(rows[-1]), site))
    if not rows:
        return []
    row, col = np.concatenate(rows), np.concatenate(cols)
    table = coo_array((np.ones(len(row), dtype=np.int64), (row, col)), shape=(count, len(resolved))).tocsr()
    table.sort_indices()
    groups: dict[bytes, list[int]] = {}
    _, first = np.unique(row, return_index=True)
    for found in row[np.sort(first)].tolist():
        if why[found] < 0:
            span = slice(table.indptr[found], table.indptr[found + 1])
            signature = table.indices[span].tobytes() + b"|" + table.data[span].tobytes()
            groups.setdefault(signature, []).append(found)
    return [np.array(group) for group in groups.values()]


def name_groups(nodes: Iterable[Node], members: list[np.ndarray]) -> tuple[Group, ...]:
    """Name the groups after their first producing layers."""
    owner = np.repeat(np.arange(len(members)), [len(group) for group in members])
    layers: list[dict[str, int]] = [{} for _ in members]
    for node in nodes:
        atoms = np.array([atom for atom in node.atoms if atom >= 0], dtype=np.int64)
        if node.kind in {"conv", "fc"} and len(atoms) and ":" not in node.name:
            for group, channels in zip(*np.unique(owner[atoms], return_counts=True), strict=True):
                layers[group][node.name] = int(channels)
    groups: list[Group] = []
    taken: set[str] = set()
    for group, produced in zip(members, layers, strict=True):
        base = name = next(iter(produced), "parameter")
        while name in taken:
            name = f"{base}#{sum(t.partition('#')[0] == base for t in taken) + 1}"
        taken.add(name)
        groups.append(Group(name, len(group), tuple(produced), sum(produced.values())))
    return tuple(groups)


# proof ------------------------------------------------------------------------------------------------------------


def verify(
    module: nn.Module, graph: ChannelGraph, kept: Tensor, inputs: tuple[Tensor, ...] | None = None
) -> tuple[str, str] | None:
    """Carry the kept classes through a pruned (weightless) network and compare what every consumer reads.

    Returns:
        None if all is well, else the node at which it is not, and why.
    """
    stays = kept_classes(graph, kept)
    seeds = {(site.tensor, site.dim): site.atoms[stays[site.atoms]] for site in graph.sites}
    run = Propagation(fx.GraphModule(module, graph.skeleton.graph), seeds, graph.num_atoms)  # type: ignore[union-attr]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.run(*(inputs or graph.example), enable_io_processing=False)
        for key, labels in run.record.sites.items():
            if not torch.equal(labels, seeds.get(key, labels)):
                return str(run.current), f"{key[0]} would read other channels than before"
    except Exception as error:  # whatever breaks here would break the pruned network
        return str(run.current), f"{type(error).__name__}: {error}" if not isinstance(error, Disagreement) else str(error)
    return None


def probe(graph: ChannelGraph, skeleton: fx.GraphModule) -> tuple[str, str] | None:
    """Try hard cases before anything is offered: one channel a group, all but one, and random halves."""
    draw = torch.Generator().manual_seed(0)
    for case in range(4):
        kept = torch.rand(graph.num_atoms, generator=draw) < 0.5
        for span in graph.slices.values():
            if case < 2:
                kept[span] = case == 1
                kept[span.start] = case == 0
            elif not kept[span].any():
                kept[span.start] = True
        if trouble := verify(cut(skeleton, graph, kept), graph, kept):
            return trouble
    return None
