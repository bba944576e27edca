"""Channels removed for real, and the zeroed twin that proves it.

`prune` is the only code of the suite that changes the shape of a weight. It knows no method: it takes a `keep`.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphprune import files
from graphprune.costs import CostModel
from graphprune.cutting import Places, cut, kept_classes, kept_places
from graphprune.graph import ChannelGraph
from graphprune.parts import named_tensors, parts_of
from graphprune.proving import verify
from graphprune.space import Scores, check_scores


def prune(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], round_to: int = 1) -> nn.Module:
    """A smaller copy of the network, without the channels that are not kept. The input model is untouched.

    Before it is returned, the kept channels are carried through the small network and what every layer reads is compared
    with what it should read (see `graphprune.proving.verify`).

    Args:
        model: the traced network (any weights, any device).
        graph: its `trace`.
        keep: group -> (C,) bool, True = kept.
        round_to: every group keeps a multiple of this, or all its channels, and the network no more multiply-adds than
            `keep` leaves: see `round_keep`, which also takes a budget and other scores than the L1 norm.

    Raises:
        ValueError: `keep` does not fit the graph, the model is not the one that was traced, or `round_to` cannot be had.

    Warns:
        UserWarning: nothing is removed.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> keep = {"conv1": torch.tensor([True, False, True, False]), "conv3": torch.tensor([True, True, False])}
    >>> small = prune(model, graph, keep)
    >>> small.conv1.out_channels, small.conv2.out_channels, small.conv3.out_channels
    (2, 2, 2)
    """
    kept = graph.flatten(keep)
    check_same(model, graph)
    if round_to != 1:
        kept = graph.flatten(round_keep(model, graph, keep, round_to))
    if bool(kept.all()):
        why = "the graph offers no group" if not graph.groups else f"keep (round_to={round_to}) keeps every channel"
        warnings.warn(f"prune removes nothing: {why}; graph.frozen says what cannot go and why", stacklevel=2)
    places = kept_places(graph, kept)
    small = cut(model, places)
    if trouble := verify(parts_of(small, graph.skeleton, graph.training), graph, places):
        raise ValueError(f"pruning this network at node '{trouble[0]}' would change what it computes: {trouble[1]}")
    setattr(small, RECORD, _composed(getattr(model, RECORD, {}), graph, places))
    return small


def masked(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor]) -> nn.Module:
    """The network in its full shape with every pruned slice zeroed: the oracle for `prune`.

    Rows of producers *and* columns of consumers are zero, since what lies between may turn 0 into something else
    (sigmoid(0) = 0.5). Running variances are set to 1, not 0.

    Args, Raises: as `prune`.
    """
    kept = graph.flatten(keep)
    check_same(model, graph)
    twin = copy.deepcopy(model)
    stays = kept_classes(graph, kept)
    tensors = named_tensors(twin)
    with torch.no_grad():
        for site in graph.sites:
            tensor, gone = tensors[site.tensor], (~stays[site.atoms]).nonzero().flatten()
            if not len(gone):
                continue
            if not tensor.is_floating_point():  # a ChannelSelect index: rows that point nowhere
                if site.dim == 0:
                    tensor[gone.to(tensor.device)] = -1
                continue
            tensor.index_fill_(site.dim, gone.to(tensor.device), 1.0 if site.tensor.endswith("running_var") else 0.0)
    return twin


def round_keep(
    model: nn.Module,
    graph: ChannelGraph,
    keep: Mapping[str, Tensor],
    round_to: int,
    *,
    scores: Scores | None = None,
    macs: float | None = None,
) -> dict[str, Tensor]:
    """`keep` with a multiple of `round_to` channels in every group, or all of a group's, within a budget of multiply-adds.

    A group's channels are put in order, those that `keep` keeps before the others, higher scores first, and parted into
    blocks of `round_to`. Every group has its first block. The others are added while the budget allows, first those of
    which `keep` keeps the greatest share, among equals those whose weakest channel scores highest next to its group's
    mean; a block of which it keeps nothing is never added. So groups just below a multiple are rounded up, the others
    down, and with `macs=1` all of them up. (Torch-Pruning 1.6 rounds all of them down.)

    It is what `prune(..., round_to=8)` prunes by; save the pruned network with this `keep`.

    Args:
        model, graph, keep: as `prune` takes them.
        round_to: the multiple.
        scores: group -> (C,), the importance that `keep` was made by; the L1 norm of all that belongs to a channel by default.
        macs: the share of the unpruned network's multiply-adds that may stay, for an input of the size traced with; what
            `keep` leaves by default.

    Raises:
        ValueError: an argument does not fit, or one block a group costs more than the budget.

    >>> import torch, graphprune
    >>> model = graphprune.models.build("resnet20")
    >>> graph = graphprune.trace(model, torch.zeros(1, 3, 32, 32))
    >>> keep = {group.name: torch.arange(group.channels) < 0.7 * group.channels for group in graph.groups}
    >>> rounded = round_keep(model, graph, keep, 8)
    >>> sorted({int(mask.sum()) for mask in keep.values()}), sorted({int(mask.sum()) for mask in rounded.values()})
    ([12, 23, 45], [8, 16, 24, 48])
    """
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to must be a whole number of at least 1, got {round_to!r}")
    if macs is not None and not 0 < macs <= 1:
        raise ValueError(f"macs={macs!r}: must be a share of the unpruned network's multiply-adds, 0 < macs <= 1")
    kept = graph.flatten(keep)
    check_same(model, graph)
    if (round_to == 1 and macs is None) or not graph.groups:
        return graph.unflatten(kept)
    costs, strength = CostModel(graph, graph.example), _strength(model, graph, scores)

    def left(counts: Tensor) -> float:
        return int(costs.of_counts(counts[None])[0]) / costs.full.macs

    budget = left(torch.stack([kept[span].sum() for span in graph.slices.values()])) if macs is None else macs
    blocks = [_blocks(kept[span], strength[name], round_to) for name, span in graph.slices.items()]
    held, counts = [own[:1] for own in blocks], torch.tensor([len(own[0].channels) for own in blocks])
    if (least := left(counts)) > budget:
        raise ValueError(
            f"round_to={round_to}: one multiple in every group leaves {least:.4f} of the multiply-adds, more than the "
            f"{budget:.4f} of {'keep' if macs is None else 'macs'}; use a smaller round_to, or round_keep(..., "
            f"macs={math.ceil(least * 1e4) / 1e4})"
        )
    others = [(block, g, place) for g, own in enumerate(blocks) for place, block in enumerate(own) if place and block.share]
    for block, g, place in sorted(others, key=lambda other: other[0][:2], reverse=True):
        larger = counts.clone()
        larger[g] += len(block.channels)
        if place == len(held[g]) and left(larger) <= budget:
            held[g], counts = [*held[g], block], larger
    rounded = {name: torch.zeros_like(kept[span]) for name, span in graph.slices.items()}
    for mask, own in zip(rounded.values(), held, strict=True):
        mask[torch.cat([block.channels for block in own])] = True
    return rounded


class _Block(NamedTuple):
    """Channels of one group that are rounded together: what part of them is kept, the weakest score, which they are."""

    share: float
    weakest: float
    channels: Tensor


def _blocks(kept: Tensor, scores: Tensor, size: int) -> list[_Block]:
    """One group's channels in blocks, the kept ones before the others, higher scores first; kept, scores: (C,)."""
    order = scores.argsort(descending=True, stable=True)
    order = torch.cat([order[kept[order]], order[~kept[order]]])
    scale = float(scores.abs().mean()) or 1.0
    return [_Block(float(kept[own].double().mean()), float(scores[own].min()) / scale, own) for own in order.split(size)]


def _strength(model: nn.Module, graph: ChannelGraph, scores: Scores | None) -> dict[str, Tensor]:
    """The scores, or the L1 norms where there are none: group -> (C,) float64."""
    if scores is None:
        norms = atom_norms(model, graph)
        scores = {name: norms[span] for name, span in graph.slices.items()}
    check_scores(graph, scores)
    return {name: scores[name].detach().cpu().double() for name in graph.slices}


def atom_norms(model: nn.Module, graph: ChannelGraph) -> Tensor:
    """(num_atoms,): the L1 norm of all parameter slices that belong to an atom."""
    norms = torch.zeros(graph.num_atoms)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for site in graph.sites:
        own = (site.atoms >= 0) & (site.atoms < graph.num_atoms)
        if site.dim == 0 and site.tensor in parameters:
            rows = parameters[site.tensor].detach().abs().flatten(1 if parameters[site.tensor].ndim > 1 else 0)
            norms.index_add_(0, site.atoms[own], (rows.sum(1) if rows.ndim > 1 else rows).float().cpu()[own])
    return norms


def check_same(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise unless every tensor the graph would cut is in the model, with the size it was traced with."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    tensors = named_tensors(model)
    for site in graph.sites:
        tensor = tensors.get(site.tensor)
        size = None if tensor is None else tensor.shape[site.dim] if site.dim < tensor.ndim else len(site.atoms)
        if size != len(site.atoms):
            raise ValueError(
                f"model is not the network that was traced: {site.tensor} has "
                f"{'no such tensor' if size is None else f'{size} slices along dimension {site.dim}'}, "
                f"the graph {len(site.atoms)}; trace this model again"
            )


# saving -----------------------------------------------------------------------------------------------------------

RECORD = "_graphprune_kept"
"""The attribute of a pruned network that says what is left of its class: (tensor, dim) -> slices before, those kept."""
FORMAT, FORMAT_1 = "graphprune-2", "graphprune-1"

Record = Mapping[tuple[str, int], tuple[int, Tensor]]


def _composed(before: Record, graph: ChannelGraph, places: Places) -> Record:
    """What is left after the places are cut, counted in the slices of the network before its first pruning."""
    found = dict(before)
    for site in graph.sites:
        place = site.tensor, site.dim
        size, kept = before.get(place, (len(site.atoms), None))
        found[place] = size, places[place] if kept is None else kept[places[place]]
    return found


def save_pruned(path: str | os.PathLike[str], model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor]) -> Path:
    """Save a pruned network: its weights and the slices kept of each tensor, in one safetensors file without pickle.

    The file has a sha256 of its content inside. It says what was kept by the names of the network's tensors, so that it is
    read however graphs are built by then. Of a network pruned several times it says what is left of the first one.

    Args:
        path: the file to write, "small.safetensors", whole or not at all.
        model: the network to save: `prune`'s result (trained further or not).
        graph: the trace of the network it was pruned from.
        keep: the `keep` it was pruned by.

    Raises:
        ValueError: `model` has not the shapes that `keep` gives. OSError: the file cannot be written.
    """
    places, tensors = kept_places(graph, graph.flatten(keep)), named_tensors(model)
    for (name, dim), index in places.items():
        tensor = tensors.get(name)
        if tensor is None or (dim < tensor.ndim and tensor.shape[dim] != len(index)):
            raise ValueError(
                f"model does not fit keep: {name} should have {len(index)} slices along dimension {dim}; "
                "save the network that prune(model, graph, keep) returned, with the same keep (after round_to: round_keep's)"
            )
    numbers: dict[tuple[int, ...], int] = {}  # many tensors keep the same slices: each list is written once
    cuts = []
    for (name, dim), (size, index) in (getattr(model, RECORD, {}) or _composed({}, graph, places)).items():
        cuts.append([name, dim, size, numbers.setdefault(tuple(index.tolist()), len(numbers))])
    path = Path(path)
    files.replace(path, files.packed(model.state_dict(), {"format": FORMAT, "kept": list(numbers), "cuts": cuts}))
    return path


def load_pruned(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Load a network that `save_pruned` wrote.

    Whether `model` is the right architecture is judged by the names and shapes of its tensors. Files of the first format,
    which have no sha256, are read too: damage to their weights is not noticed.

    Args:
        path: the file.
        model: a network of the unpruned architecture, any weights; it is not changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not `save_pruned`'s, or `model` is another architecture.

    >>> import tempfile, torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> keep = graphprune.keep_from_rates(graph, [5, 5], graphprune.importance.l1(model, graph))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_pruned(f"{folder}/small.safetensors", graphprune.prune(model, graph, keep), graph, keep)
    ...     small = load_pruned(path, graphprune.models.tiny_cnn())
    >>> small.conv1.out_channels, small.conv3.out_channels
    (2, 1)
    """
    from safetensors import SafetensorError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}; give the one that save_pruned returned")
    content = path.read_bytes()
    try:
        about = files.header(content)
        state = files.unpacked(content)
        if about is not None and about.get("format") != FORMAT_1:
            files.check(content, path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"path: {path} is damaged ({error}); save the network again") from error
    if about is None or "format" not in about:
        raise ValueError(f"path: {path} was not written by graphprune.save_pruned; load it as it was saved")
    if about["format"] not in (FORMAT, FORMAT_1):
        raise ValueError(f"path: {path} has the format {about['format']!r}, this one reads {FORMAT!r}: update graphprune")
    record = _record_of(about) if about["format"] == FORMAT else _record_of_format_1(about, model, path)
    _check_sizes(model, record, path)
    small = cut(model, {place: index for place, (_, index) in record.items()})
    _check_state(small, state, path)
    small.load_state_dict(state)
    setattr(small, RECORD, record)
    return small


def _record_of(about: Mapping[str, Any]) -> Record:
    lists = [torch.tensor(kept, dtype=torch.int64) for kept in about["kept"]]
    return {(name, dim): (size, lists[number]) for name, dim, size, number in about["cuts"]}


def _record_of_format_1(about: Mapping[str, Any], model: nn.Module, path: Path) -> Record:
    """The first format names the groups of the graph of then: of groups it does not name, every channel is kept."""
    from graphprune.graph import trace

    inputs = zip(about["example"], about["dtypes"], strict=True)
    try:
        graph = trace(model, tuple(torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in inputs))
    except (ValueError, RuntimeError) as error:
        raise _another(path, f"it cannot be traced as that one was ({error})") from error
    full = graph.full()
    for name, mask in about["keep"].items():
        if name not in full or len(full[name]) != len(mask):
            has = f"{len(full[name])} channels" if name in full else "no such group"
            raise _another(path, f"that one's group {name!r} has {len(mask)} channels, this one's {has}")
        full[name] = torch.tensor(mask).bool()
    return _composed({}, graph, kept_places(graph, graph.flatten(full)))


def _check_sizes(model: nn.Module, record: Record, path: Path) -> None:
    tensors = named_tensors(model)
    for (name, dim), (size, _) in record.items():
        if name not in tensors:
            raise _another(path, f"it has no tensor {name}")
        if dim < tensors[name].ndim and tensors[name].shape[dim] != size:  # beyond: what a ChannelSelect chooses from
            raise _another(path, f"{name} has {tensors[name].shape[dim]} slices along dimension {dim}, that one's {size}")


def _check_state(small: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    found = small.state_dict()
    for name in [*state, *found]:
        if name not in found or name not in state:
            raise _another(path, f"{name} is in {'the file' if name in state else 'the model'} alone")
        if found[name].shape != state[name].shape:
            raise _another(path, f"{name} would be {tuple(found[name].shape)} after pruning, and is {tuple(state[name].shape)}")


def _another(path: Path, how: str) -> ValueError:
    return ValueError(f"model is not the architecture that {path} was pruned from: {how}; build the same one, unpruned")
