"""Channels removed for real, and the zeroed twin that proves it.

`prune` is the only code of the suite that changes the shape of a weight. It knows no method: it takes a `keep`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph, demand_graph
from graphprune.graph.checking import CHECKED, difference, random_outputs
from graphprune.graph.copies import copy_model, naming_attributes
from graphprune.graph.cutting import Numbers, Places, cut, kept_classes, kept_numbers, kept_places
from graphprune.graph.norms import make_up, run_over_kept
from graphprune.graph.parts import named_tensors, parts_of
from graphprune.graph.verification import verify
from graphprune.graph.weightless import on_meta
from graphprune.pruning.cost import CostModel
from graphprune.pruning.masks import Scores, as_scores
from graphprune.runs.checks import at_least, demand_network
from graphprune.runs.runtime import collector_paused


@collector_paused()
@torch.inference_mode(False)  # tensors made in inference mode cannot be trained
def prune(
    model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], round_to: int = 1, check: bool | None = None
) -> nn.Module:
    """A smaller copy of the network, without the channels that are not kept. The input model is untouched.

    Before it is returned, the kept channels are carried through the small network and what every layer reads is compared
    with what it should read (see `graphprune.graph.verification.verify`).

    Args:
        model: the traced network (any weights, any device).
        graph: its `trace`.
        keep: group -> (C,) bool, True = kept.
        round_to: every group keeps a multiple of this, or all its channels, and the network no more multiply-adds than
            `keep` leaves: see `round_keep`, which also takes a budget and other scores than the L1 norm.
        check: run the pruned network beside its masked twin on the example, in float64, and raise if they differ. None: for
            networks of up to a million parameters.

    Raises:
        ValueError: `keep` does not fit the graph, the model is not the one that was traced, `round_to` cannot be had, or
            the check fails. TypeError: an argument is of the wrong kind, or an attribute of the model cannot be copied.

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
    at_least(1, round_to=round_to)
    check_same(model, graph)
    kept = graph.flatten(keep)
    if round_to != 1:
        kept = graph.flatten(round_keep(model, graph, keep, round_to))
    if bool(kept.all()):
        rounded = f" after rounding to multiples of {round_to}" if round_to != 1 else ""
        why = f"keep holds every channel{rounded}" if graph.groups else "the graph offers no group"
        warnings.warn(f"prune removes nothing: {why}; graph.frozen says what cannot go and why", stacklevel=2)
    places, numbers = kept_places(graph, kept), kept_numbers(graph, kept)
    with naming_attributes(model):
        small = cut(model, places, numbers)
    copied = on_meta if graph.weightless else copy_model
    trouble = verify(graph, kept, lambda: parts_of(small, graph.skeleton, graph.training), lambda: copied(small))
    if trouble:
        raise ValueError(
            f"pruning this network at node '{trouble[0]}' would change what it computes: {trouble[1]}; keep the layers that it "
            "reads whole, prune_to(..., ignore=[...])"
        )
    numbers = {**numbers, **make_up(small, graph, kept)}
    record = compose_records(getattr(model, RECORD, {}), graph, places)
    remember(small, record, {**getattr(model, NUMBERS, {}), **numbers})
    parameters = list(model.parameters())
    few = sum(p.numel() for p in parameters) <= CHECKED and not any(p.is_meta for p in parameters)
    if few if check is None else check:
        twin = masked(model, graph, graph.unflatten(kept))
        if found := difference(small, twin, graph):
            raise ValueError(f"the pruned network is not its masked twin: {found}. {_remedy(model, twin, graph, kept)}")
    return small


def _remedy(model: nn.Module, twin: nn.Module, graph: ChannelGraph, kept: Tensor) -> str:
    """What to do about a pruned network that is not its masked twin: which groups cause it, and whether chance does."""
    spans = {name: span for name, span in graph.slices.items() if not bool(kept[span].all())}
    alone = []
    for name, span in spans.items():
        one = torch.ones_like(kept)
        one[span] = kept[span]
        small = cut(model, kept_places(graph, one), kept_numbers(graph, one))
        make_up(small, graph, one)
        if difference(small, masked(model, graph, graph.unflatten(one)), graph):
            alone.append(name)
    keep = f"Keep the layers that cause it whole, prune_to(..., ignore={alone or list(spans)})"
    anyway = "prune(..., check=False) returns it as it is"
    if random_outputs(twin, graph):
        return f"Its forward draws random numbers, and others in a smaller network: that may be all. {keep}; {anyway}"
    return f"{keep}, and please report this network; {anyway}"


@torch.inference_mode(False)
def masked(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor]) -> nn.Module:
    """The network in its full shape with every pruned slice zeroed: the oracle for `prune`.

    Rows of producers *and* columns of consumers are zero, since what lies between may turn 0 into something else
    (sigmoid(0) = 0.5). Running variances are set to 1, not 0. Of a graph traced with `norms="kept"`, the statistics of its
    layer norms run over the kept channels.

    Args, Raises: as `prune`.
    """
    check_same(model, graph)
    kept = graph.flatten(keep)
    twin = copy_model(model)
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
    run_over_kept(twin, graph, kept)
    return twin


def round_keep(
    model: nn.Module,
    graph: ChannelGraph,
    keep: Mapping[str, Tensor],
    multiple: int,
    *,
    scores: Scores | None = None,
    macs: float | None = None,
) -> dict[str, Tensor]:
    """`keep` rounded: every group keeps a multiple of a number of channels, or all it has, within a budget of multiply-adds.

    A group's channels are put in order, those that `keep` keeps before the others, higher scores first, and parted into
    blocks of `multiple`. Every group has its first block. The others are added while the budget allows, first those of
    which `keep` keeps the greatest share, among equals those whose weakest channel scores highest next to its group's
    mean; a block of which it keeps nothing is never added. So groups just below a multiple are rounded up, the others
    down, and with `macs=1` all of them up. (Torch-Pruning 1.6 rounds all of them down.)

    It is what `prune(..., round_to=8)` prunes by; save the pruned network with this `keep`.

    Args:
        model, graph, keep: as `prune` takes them.
        multiple: what the number of channels is to be a multiple of, such as 8.
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
    at_least(1, multiple=multiple)
    if macs is not None and not 0 < macs <= 1:
        raise ValueError(f"macs={macs!r}: must be a share of the unpruned network's multiply-adds, 0 < macs <= 1")
    check_same(model, graph)
    kept = graph.flatten(keep)
    if (multiple == 1 and macs is None) or not graph.groups:
        return graph.unflatten(kept)
    costs, strength = CostModel(graph, graph.inputs or graph.example), _strength(model, graph, scores)

    def left(counts: Tensor) -> float:
        return int(costs.of_counts(counts[None])[0]) / costs.full.macs

    budget = left(torch.stack([kept[span].sum() for span in graph.slices.values()])) if macs is None else macs
    blocks = [_blocks(kept[span], strength[name], multiple) for name, span in graph.slices.items()]
    held, counts = [own[:1] for own in blocks], torch.tensor([len(own[0].channels) for own in blocks])
    if (least := left(counts)) > budget:
        raise ValueError(
            f"multiple={multiple} (prune's round_to): one in every group leaves {least:.4f} of the multiply-adds, more than "
            f"the {budget:.4f} of {'keep' if macs is None else 'macs'}; use a smaller one, or round_keep(..., "
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
    return {name: score.detach().cpu().double() for name, score in as_scores(graph, scores).items()}


def atom_norms(model: nn.Module, graph: ChannelGraph) -> Tensor:
    """(num_atoms,): the L1 norm of all parameter slices that belong to an atom."""
    norms = torch.zeros(graph.num_atoms, dtype=torch.float32)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for site in graph.sites:
        own = (site.atoms >= 0) & (site.atoms < graph.num_atoms)
        if site.dim == 0 and site.tensor in parameters:
            rows = parameters[site.tensor].detach().abs().flatten(1 if parameters[site.tensor].ndim > 1 else 0)
            norms.index_add_(0, site.atoms[own], (rows.sum(1) if rows.ndim > 1 else rows).float().cpu()[own])
    return norms


def check_same(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise unless every tensor the graph would cut is in the model, with the size it was traced with."""
    demand_network(model)
    demand_graph(graph)
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
NUMBERS = "_graphprune_numbers"
"""The attribute of a pruned network that says which numbers its modules keep, such as counts of heads, were changed."""

Record = Mapping[tuple[str, int], tuple[int, Tensor]]


def remember(small: nn.Module, record: Record, numbers: Numbers) -> None:
    """Note in a pruned network what is left of its class; `torch.jit.script` is told to pass the notes by."""
    setattr(small, RECORD, record)
    setattr(small, NUMBERS, numbers)
    ignored = "__jit_ignored_attributes__"
    setattr(small, ignored, list(dict.fromkeys([*getattr(small, ignored, ()), RECORD, NUMBERS])))


def compose_records(before: Record, graph: ChannelGraph, places: Places) -> Record:
    """What is left after the places are cut, counted in the slices of the network before its first pruning."""
    found = dict(before)
    for site in graph.sites:
        place = site.tensor, site.dim
        size, kept = before.get(place, (len(site.atoms), None))
        found[place] = size, places[place] if kept is None else kept[places[place]]
    return found
