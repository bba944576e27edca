"""Channels removed for real, and the zeroed twin that proves it.

`prune` is the only code of the suite that changes the shape of a weight. It knows no method: it takes a `keep`.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from graphprune.checking import CHECKED, compare_outputs
from graphprune.copying import on_meta
from graphprune.cutting import cut, kept_classes, kept_numbers, kept_places
from graphprune.graph import ChannelGraph
from graphprune.parts import named_tensors, parts_of
from graphprune.proving import verify


def prune(
    model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], round_to: int = 1, check: bool | None = None
) -> nn.Module:
    """A smaller copy of the network, without the channels that are not kept. The input model is untouched.

    Before it is returned, the kept channels are carried through the small network and what every layer reads is compared
    with what it should read (see `graphprune.proving.verify`).

    Args:
        model: the traced network (any weights, any device).
        graph: its `trace`.
        keep: group -> (C,) bool, True = kept.
        round_to: give back the strongest pruned channels (L1 norm) until every group keeps a multiple of this, or all.
        check: run the pruned network beside its masked twin on the example, in float64, and raise if they differ. None: for
            networks of up to a million parameters.

    Raises:
        ValueError: `keep` does not fit the graph, the model is not the one that was traced, or the check fails.

    Warns:
        UserWarning: nothing is removed.

    >>> small = graphprune.prune(model, graph, keep)
    """
    kept = graph.flatten(keep)
    check_same(model, graph)
    if round_to != 1:
        kept = graph.flatten(round_keep(model, graph, keep, round_to))
    if bool(kept.all()):
        why = "the graph offers no group" if not graph.groups else f"keep (round_to={round_to}) keeps every channel"
        warnings.warn(f"prune removes nothing: {why}; graph.frozen says what cannot go and why", stacklevel=2)
    places = kept_places(graph, kept)
    small = cut(model, places, kept_numbers(graph, kept))
    copied = on_meta if graph.weightless else copy.deepcopy
    if trouble := verify(graph, kept, lambda: parts_of(small, graph.skeleton, graph.training), lambda: copied(small)):
        raise ValueError(f"pruning this network at node '{trouble[0]}' would change what it computes: {trouble[1]}")
    parameters = list(model.parameters())
    few = sum(p.numel() for p in parameters) <= CHECKED and not any(p.is_meta for p in parameters)
    if few if check is None else check:
        compare_outputs(small, masked(model, graph, graph.unflatten(kept)), graph)
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


def round_keep(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], round_to: int) -> dict[str, Tensor]:
    """`keep` with the strongest pruned channels of each group given back until it keeps a multiple of `round_to`, or all.

    What `prune(..., round_to=8)` prunes by; save the pruned network with this `keep`.

    Args, Raises: as `prune`.

    >>> keep = round_keep(model, graph, keep, 8)
    """
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"round_to must be a whole number of at least 1, got {round_to!r}")
    kept, strength = graph.flatten(keep).clone(), atom_norms(model, graph)
    for span in graph.slices.values():
        count, channels = int(kept[span].sum()), span.stop - span.start
        missing = min(-(-count // round_to) * round_to, channels) - count
        order = torch.where(kept[span], -torch.inf, strength[span]).argsort(descending=True, stable=True)
        kept[span.start + order[:missing]] = True
    return graph.unflatten(kept)


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


def save_pruned(path: str | os.PathLike[str], model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor]) -> Path:
    """Save a pruned network: its weights and the channels kept, in one safetensors file without pickle.

    Args:
        path: the file to write, "small.safetensors". Written under another name first and renamed when complete.
        model: the network to save: `prune`'s result (trained further or not).
        graph: the trace of the network it was pruned from.
        keep: the `keep` it was pruned by.

    Raises:
        ValueError: `model` has not the shapes that `keep` gives.
    """
    from safetensors.torch import save

    kept = graph.flatten(keep)
    stays = kept_classes(graph, kept)
    tensors = named_tensors(model)
    for site in graph.sites:
        tensor, size = tensors.get(site.tensor), int(stays[site.atoms].sum())
        if tensor is None or (site.dim < tensor.ndim and tensor.shape[site.dim] != size):
            raise ValueError(
                f"model does not fit keep: {site.tensor} should have {size} slices along dimension {site.dim}; "
                "save the network that prune(model, graph, keep) returned, with the same keep (after round_to: round_keep's)"
            )
    shapes = [list(tensor.shape) for tensor in graph.example]
    record = {
        "format": "graphprune-1",
        "graph": graph.fingerprint(),
        "example": shapes,
        "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in graph.example],
        "keep": {name: mask.int().tolist() for name, mask in graph.unflatten(kept).items()},
    }
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(state, {"graphprune": json.dumps(record)}))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def load_pruned(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Load a network that `save_pruned` wrote.

    Args:
        path: the file.
        model: a network of the unpruned architecture, any weights; it is not changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not `save_pruned`'s, or `model` is another architecture.

    >>> small = graphprune.load_pruned("small.safetensors", graphprune.models.build("resnet20"))
    """
    from safetensors import SafetensorError, safe_open

    from graphprune.coupling import trace

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("graphprune", "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"path: {path} is damaged ({error}); save the network again") from error
    if not record or record.get("format") != "graphprune-1":
        raise ValueError(f"path: {path} was not written by graphprune.save_pruned")
    inputs = zip(record["example"], record["dtypes"], strict=True)
    graph = trace(model, tuple(torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in inputs))
    if graph.fingerprint() != record["graph"]:
        raise ValueError(f"model is not the architecture that {path} was pruned from; build the same one, unpruned")
    keep = {name: torch.tensor(mask).bool() for name, mask in record["keep"].items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="prune removes nothing")
        small = prune(model, graph, keep)
    small.load_state_dict(state)
    return small
