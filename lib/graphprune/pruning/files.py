"""Pruned networks as files: safetensors with json, no pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph, demand_graph
from graphprune.graph.copies import naming_attributes
from graphprune.graph.cutting import cut, kept_numbers, kept_places
from graphprune.graph.parts import named_tensors
from graphprune.pruning.channels import NUMBERS, RECORD, Record, compose_records, remember
from graphprune.runs import safe_files
from graphprune.runs.checks import demand_network

FORMAT, FORMAT_1 = "graphprune-2", "graphprune-1"


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
        TypeError: an argument is of the wrong kind. ValueError: `model` has not the shapes that `keep` gives.
        OSError: the file cannot be written; its folder is missing, say.
    """
    path = _path(path, "save_pruned(path, model, graph, keep)")
    demand_network(model)
    demand_graph(graph)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; give a file in it, such as {path / 'small.safetensors'}")
    kept = graph.flatten(keep)
    places, tensors = kept_places(graph, kept), named_tensors(model)
    for (name, dim), index in places.items():
        tensor = tensors.get(name)
        if tensor is None or (dim < tensor.ndim and tensor.shape[dim] != len(index)):
            raise ValueError(
                f"model does not fit keep: {name} should have {len(index)} slices along dimension {dim}; "
                "save the network that prune(model, graph, keep) returned, with the same keep (after round_to: round_keep's)"
            )
    lists: dict[tuple[int, ...], int] = {}  # many tensors keep the same slices: each list is written once
    cuts = []
    for (name, dim), (size, index) in (getattr(model, RECORD, {}) or compose_records({}, graph, places)).items():
        cuts.append([name, dim, size, lists.setdefault(tuple(index.tolist()), len(lists))])
    numbers = getattr(model, NUMBERS, {}) or kept_numbers(graph, kept)
    about = {"format": FORMAT, "kept": list(lists), "cuts": cuts, "numbers": [[*key, value] for key, value in numbers.items()]}
    safe_files.replace(path, safe_files.packed(model.state_dict(), about))
    return path


@torch.inference_mode(False)  # tensors made in inference mode cannot be trained
def load_pruned(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Load a network that `save_pruned` wrote.

    Whether `model` is the right architecture is judged by the names and shapes of its tensors. Files of the first format,
    which have no sha256, are read too: damage to their weights is not noticed.

    Args:
        path: the file.
        model: a network of the unpruned architecture, any weights; it is not changed.

    Raises:
        FileNotFoundError: there is no such file. TypeError: an argument is of the wrong kind.
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

    path = _path(path, "load_pruned(path, model)")
    demand_network(model)
    if not path.is_file():
        raise FileNotFoundError(f"path: there is no file {path}; give the one that save_pruned returned")
    content = path.read_bytes()
    if content[8:9] not in (b"{", b""):  # where the header of safetensors begins
        raise ValueError(f"path: {path} is not a file of graphprune: it holds no safetensors; give one that save_pruned wrote")
    try:
        about = safe_files.header(content)
        state = safe_files.unpacked(content)
        if about is not None and about.get("format") != FORMAT_1:
            safe_files.check(content, path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"path: {path} is damaged ({error}); save the network again") from error
    if about is None or "format" not in about:
        raise ValueError(f"path: {path} was not written by graphprune.save_pruned; load it as it was saved")
    if about["format"] not in (FORMAT, FORMAT_1):
        raise ValueError(f"path: {path} has the format {about['format']!r}, this one reads {FORMAT!r}: update graphprune")
    record = _record_of(about) if about["format"] == FORMAT else _record_of_format_1(about, model, path)
    _check_sizes(model, record, path)
    numbers = {(module, name, place): value for module, name, place, value in about.get("numbers", ())}
    with naming_attributes(model):
        small = cut(model, {place: index for place, (_, index) in record.items()}, numbers)
    _check_state(small, state, path)
    small.load_state_dict(state)
    remember(small, record, numbers)
    return small


def _path(path: Any, call: str) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file's name, got {type(path).__name__}; the arguments are {call}")
    return Path(path)


def _record_of(about: Mapping[str, Any]) -> Record:
    lists = [torch.tensor(kept, dtype=torch.int64) for kept in about["kept"]]
    return {(name, dim): (size, lists[number]) for name, dim, size, number in about["cuts"]}


def _record_of_format_1(about: Mapping[str, Any], model: nn.Module, path: Path) -> Record:
    """The first format names the groups of the graph of then: of groups it does not name, every channel is kept."""
    from graphprune.graph.groups import trace

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
    return compose_records({}, graph, kept_places(graph, graph.flatten(full)))


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
