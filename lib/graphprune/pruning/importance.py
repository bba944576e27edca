"""How much each channel matters: one score an atom, the sum over the producing layers' filters that belong to it.

Every function returns `dict[group name -> FloatTensor (C,)]`, higher = more important, never negative; the model is
left as it was. A residual stage's channel is as important as all its filters together. A channel that no layer makes, but
a parameter that the forward uses by itself, is as important as its slice of that parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.graph.channel_graph import ChannelGraph, demand_graph
from graphprune.graph.copies import copy_model
from graphprune.pruning.sources import demand_both, producers, sources_of
from graphprune.runs.checks import at_least
from graphprune.training.dataset import check_dataset
from graphprune.training.objective import plain

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

Scores = dict[str, Tensor]

__all__ = ["Scores", "bn_scale", "fpgm", "hrank", "l1", "l2", "random", "taylor"]


def __dir__() -> list[str]:
    return __all__


def l1(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Sum of absolute filter weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets").

    Args:
        model: the unpruned network `graph` was traced from.
        graph: its channel graph.

    Raises:
        TypeError: an argument is of the wrong kind. ValueError: the model is not the graph's.

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> scores = l1(net, graph)
    >>> scores[graph.groups[0].name].shape == (graph.groups[0].channels,)
    True
    """
    return _from_filters(model, graph, lambda filters: filters.abs().sum(1))


def l2(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Euclidean norm of each filter, summed over coupled layers. Arguments and errors as `l1`."""
    return _from_filters(model, graph, lambda filters: filters.norm(dim=1))


def fpgm(model: nn.Module, graph: ChannelGraph) -> Scores:
    """Distance of a filter to all filters of its layer: near the geometric median means replaceable.

    Source: He et al. 2019, "Filter Pruning via Geometric Median", eq. 6. Arguments and errors as `l1`.
    """
    return _from_filters(model, graph, lambda filters: torch.cdist(filters[None], filters[None])[0].sum(1))


def bn_scale(model: nn.Module, graph: ChannelGraph) -> Scores:
    """|gamma| of the batch normalisations that scale the channel (Liu et al. 2017, "Network Slimming").

    Raises:
        ValueError: a group has no batch normalisation with a scale; use `l1` there.
    """
    demand_both(model, graph)
    modules = dict(model.named_modules())
    parts = {
        node.name: module.weight.detach().abs()
        for node in graph.nodes
        if isinstance(module := modules.get(node.name), _BatchNorm) and module.weight is not None
    }
    return _collect(graph, _of_layers(graph, parts), "no batch normalisation with a scale; use importance.l1 for this network")


def random(model: nn.Module, graph: ChannelGraph, generator: torch.Generator | None = None) -> Scores:
    """Uniform scores in [0, 1): the baseline every criterion must beat. `model` is not looked at.

    Args:
        generator: where the scores come from; torch's global generator if not given.
    """
    demand_graph(graph)
    return {group.name: torch.rand(group.channels, generator=generator) for group in graph.groups}


def taylor(
    model: nn.Module, graph: ChannelGraph, data: Dataset, *, batches: int = 8, batch_size: int = 128, seed: int = 0
) -> Scores:
    """|sum of weight x gradient| of each filter: the first-order change of the loss when it goes.

    Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", the joint contribution of a
    filter's weights; the absolute value in place of the square (the same order within a layer and batch), averaged over
    batches. Evaluation mode.

    Args:
        model: the unpruned network.
        graph: its channel graph.
        data: the training split is read, never validation or test.
        batches: how many batches of `batch_size` images, at most.
        batch_size: images a batch.
        seed: which images.

    Raises:
        ValueError: `batches` or `batch_size` < 1, or as `l1`.
    """
    twin = copy_model(model).eval().requires_grad_(True)
    sources = sources_of(twin, graph)
    weights = [source.tensor.requires_grad_(True) for source in sources]
    totals = [source.rows(source.tensor.detach()).new_zeros(len(source.atoms)) for source in sources]
    for images, labels in _batches(model, data, batches, batch_size, seed):
        loss = data.objective.mean_loss(plain(twin(images)), labels)
        for source, total, gradient in zip(sources, totals, torch.autograd.grad(loss, weights), strict=True):
            total += source.rows(source.tensor.detach() * gradient).sum(1).abs() / batches
    return _collect(graph, [(source.name, source.atoms, total) for source, total in zip(sources, totals, strict=True)])


@torch.no_grad()
def hrank(
    model: nn.Module, graph: ChannelGraph, data: Dataset, *, batches: int = 1, batch_size: int = 32, seed: int = 0
) -> Scores:
    """Mean rank of the feature map a filter makes (Lin et al. 2020, "HRank"), on a few training images.

    Ranks are taken of the convolutions' own outputs [our reading: before BN and activation]. Arguments as `taylor`.

    Raises:
        ValueError: `batches` or `batch_size` < 1, or a group has no layer with two-dimensional feature maps.
    """
    demand_both(model, graph)
    twin = copy_model(model).eval()
    totals: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.ndim == 4:
                ranks = torch.linalg.matrix_rank(output.float()).float().mean(0) / batches
                totals[name] = totals.get(name, torch.zeros_like(ranks)) + ranks

        return hook

    for name, layer in producers(twin, graph).items():
        layer.register_forward_hook(record(name))
    for images, _ in _batches(model, data, batches, batch_size, seed):
        twin(images)
    return _collect(graph, _of_layers(graph, totals), "no convolution with two-dimensional feature maps; use importance.l1")


def _from_filters(model: nn.Module, graph: ChannelGraph, score: Callable[[Tensor], Tensor]) -> Scores:
    scored = [(own.name, own.atoms, score(own.rows(own.tensor.detach()))) for own in sources_of(model, graph)]
    return _collect(graph, scored)


def _of_layers(graph: ChannelGraph, parts: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...], Tensor]]:
    return [(node.name, node.atoms, parts[node.name]) for node in graph.nodes if node.name in parts]


def per_atom(graph: ChannelGraph, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Per-channel values of layers, summed over the channels of each atom, and how many those are.

    Args:
        parts: layer -> (channels,); layers that are no node of the graph are passed over.

    Returns:
        sums and counts, both (num_atoms,) float32.

    Raises:
        ValueError: a layer has not as many channels as in the graph.
    """
    return _summed(graph, _of_layers(graph, parts))


def _summed(graph: ChannelGraph, scored: list[tuple[str, tuple[int, ...], Tensor]]) -> tuple[Tensor, Tensor]:
    device = scored[0][2].device if scored else torch.device("cpu")
    total, hits = torch.zeros(2, graph.num_atoms, dtype=torch.float32, device=device)
    for name, numbers, values in scored:
        atoms, score = torch.tensor(numbers, device=device), values.to(device, torch.float32)
        if score.shape != atoms.shape:
            raise ValueError(f"model does not fit graph: layer {name!r} has {len(score)} channels, not {len(atoms)}")
        ours = atoms >= 0
        total.index_add_(0, atoms[ours], score[ours])
        hits.index_add_(0, atoms[ours], torch.ones_like(score[ours]))
    return total, hits


def _collect(graph: ChannelGraph, scored: list[tuple[str, tuple[int, ...], Tensor]], missing: str = "no tensor") -> Scores:
    """Sum the scores of layers' channels, (name, atoms, scores), over the channels of each atom."""
    total, hits = _summed(graph, scored)
    for name, span in graph.slices.items():
        if bool((hits[span] == 0).any()):
            raise ValueError(f"group {name!r} has a channel that cannot be scored: {missing}")
    return {name: total[span].clone() for name, span in graph.slices.items()}


def _batches(model: nn.Module, data: Dataset, batches: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    at_least(1, batches=batches, batch_size=batch_size)
    check_dataset(data)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    for images, labels in islice(data.train.batches(batch_size, shuffle=True, generator=generator), batches):
        yield images.to(device), labels.to(device)
