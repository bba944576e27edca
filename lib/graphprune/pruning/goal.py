"""A network pruned to a budget in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model, naming_attributes
from graphprune.graph.cutting import kept_places
from graphprune.graph.groups import Norms, trace
from graphprune.graph.norms import find_norms
from graphprune.graph.tracing import demand_python
from graphprune.pruning.allocation import Limits, Order, OverBudget, allocate, order_of
from graphprune.pruning.channels import prune
from graphprune.pruning.cost import CostModel, cost
from graphprune.pruning.criterion import Criterion, score_channels
from graphprune.pruning.evaluator import MaskEvaluator
from graphprune.pruning.pruned import Pruned
from graphprune.pruning.sources import own_tensors
from graphprune.runs import runtime
from graphprune.runs.checks import at_least, demand_finite
from graphprune.training import train
from graphprune.training.data import Dataset
from graphprune.training.dataset import check_dataset
from graphprune.training.history import History
from graphprune.training.recipe import Recipe

Finetune = Recipe | Callable[[nn.Module], nn.Module | History | None] | None
"""How a network is trained between the steps: a recipe, or a function that trains it in place or returns another."""


@torch.inference_mode(False)  # tensors made in inference mode cannot be trained
def prune_to(
    model: nn.Module,
    example_input: Any,
    macs: float | None = None,
    params: float | None = None,
    *,
    scores: Criterion = None,
    round_to: int = 1,
    ignore: Sequence[str | nn.Module] = (),
    how: str | Order = "uniform",
    steps: int = 1,
    finetune: Finetune = None,
    data: Dataset | None = None,
    looks: int = 64,
    norms: Norms = "whole",
    seed: int = 0,
) -> Pruned:
    """Prune a network to a budget, and say what was decided. The budget holds after rounding, and no width fits any more.

    No group could keep one more channel (one more block of `round_to` channels) within the budget. The model given is
    not changed. Without `finetune` nothing is trained, and the small network is to be fine-tuned before it is used.

    Args:
        model: a network, trained.
        example_input: an input of the right shape, (B, ...); a tuple or a dictionary of the forward's.
        macs: the multiply-adds that may stay: a share of the network's up to 1, or a number of them above 1.
        params: the parameters that may stay, likewise; of `macs` and `params` one or both.
        scores: how much each channel matters: a dictionary, group -> (C,), or a function (model, graph) -> such a
            dictionary, for example one of `graphprune.importance`. One with a parameter `data` is given the data. L1 norms
            by default.
        round_to: every layer keeps a multiple of this, or all its channels.
        ignore: layers that keep all their channels: paths such as "layer1" (with all in it), or modules. Also parameters
            that the forward uses by themselves, by their names.
        how: how channels are shared out over the groups. "uniform": the same share of each. "global": one threshold on
            scores divided by their group's mean. "searched": `looks` ways are tried without training and the best by
            validation loss is taken (needs data). A function (graph, scores) -> group -> (C,), the lowest goes first.
        steps: prune in so many equal parts of the budget, scoring anew and fine-tuning after each.
        finetune: after each step: a `Recipe` (needs data; a recipe that distils learns from `model`), or a function that
            trains a network in place (what `train.fit` returns may be returned), or returns another.
        data: BN statistics are re-estimated on its training split after each step; see `graphprune.data.from_tensors`.
        looks: networks looked at by `how="searched"`.
        norms: "kept" prunes the width of a transformer, too; see `trace`.
        seed: of what is random in searching and training.

    Returns:
        `.network`, `.keep`, `.graph`, `.before`, `.after`, `.frozen`, `.widths` and `.save(path)`.

    Raises:
        ValueError: the budget cannot be met (it says what can), `ignore` names no layer, data are missing, or a parameter
            holds NaN or infinite values.
        TypeError: an argument is of the wrong kind, or an attribute of the model cannot be copied.

    Warns:
        UserWarning: nothing is removed.

    >>> import torch, graphprune
    >>> model, image = graphprune.models.build("resnet8"), torch.zeros(1, 3, 32, 32)
    >>> small = prune_to(model, image, macs=0.5, round_to=4, ignore=["conv1"])
    >>> small.after.macs <= 0.5 * small.before.macs, small.after == graphprune.cost(small.network, image)
    (True, True)
    >>> small.network.conv1.out_channels, sorted(set(small.widths["after"] % 4))
    (16, [0])
    """
    at_least(1, round_to=round_to, steps=steps, looks=looks)
    _check_data(how, finetune, data)
    demand_python(model)
    demand_finite(model)
    with naming_attributes(model):
        graph, before = trace(model, example_input, norms=norms), cost(model, example_input)
    if not graph.groups:
        raise ValueError(f"model: no channel can be pruned{_why_none(model, graph)}")
    goal = {"macs": _limit("macs", macs, before.macs), "params": _limit("params", params, before.params)}
    if macs is None and params is None:
        raise ValueError("macs=None, params=None: give a budget, e.g. macs=0.5 for half of the multiply-adds")
    ignored = _ignored(model, graph, ignore)
    network, now, places = model, graph, dict[tuple[str, int], Tensor]()
    for step in range(1, steps + 1):
        parts = {name: getattr(before, name) - (getattr(before, name) - most) * step / steps for name, most in goal.items()}
        limits = Limits(CostModel(now, example_input), **{name: int(part) for name, part in parts.items()})
        own = _own_scores(scores, network, now, graph, places, data)
        held = {group.name: set(group.layers) for group in now.groups} | own_tensors(now, network)
        fixed = [name for name, holders in held.items() if holders & ignored.keys()]
        keep = _decide(limits, own, how, round_to, fixed, network, data, looks, seed, (macs, params))
        kept = now.flatten(keep)
        network = _step(network, now, keep, step == steps)
        for place, index in kept_places(now, kept).items():
            places[place] = places[place][index] if place in places else index
        network = _trained(network, finetune, data, model, seed)
        if step < steps:
            now = trace(network, example_input, norms=norms)
    return Pruned(network, _composed(graph, places), graph, before, cost(network, example_input), {**graph.frozen, **ignored})


def _check_data(how: str | Order, finetune: Finetune, data: Dataset | None) -> None:
    if data is not None:
        check_dataset(data)
    if how == "searched":
        if data is None:
            raise ValueError("how='searched' looks at validation images: give data=, such as graphprune.data.from_tensors(...)")
        if len(data.train) < 2:
            raise ValueError(f"data: how='searched' needs 2 training images or more, and there are {len(data.train)}")
    if isinstance(finetune, Recipe) and data is None:
        raise ValueError("finetune=Recipe(...) needs data=, such as graphprune.data.from_tensors(...); or give a function")
    if finetune is not None and not isinstance(finetune, Recipe) and not callable(finetune):
        raise TypeError(f"finetune={finetune!r}: must be a train.Recipe, or a function that trains a network")


def _why_none(model: nn.Module, graph: ChannelGraph) -> str:
    """Why no group is there, as the end of a sentence."""
    kinds = list(dict.fromkeys(_layers(model)))
    remedy = "; prune it before it is quantized" * any(kind.__module__.startswith("torch.ao.") for kind in kinds)
    if graph.frozen:
        layers: dict[str, list[str]] = {}
        for layer, reason in graph.frozen.items():
            layers.setdefault(reason, []).append(layer or "the model itself")
        told = [f"{own[0]}{f' and {len(own) - 1} more' * (len(own) > 1)}: {reason}" for reason, own in layers.items()]
        rest = [f"{len(told) - 5} more reasons in graphprune.trace(...).frozen"] * (len(told) > 5)
        return f"; {'; '.join(told[:5] + rest)}{remedy}"
    wanted = "no convolution or linear layer, a module or F.linear say, whose outputs another layer reads"
    names = ", ".join(kind.__name__ for kind in kinds[:8])
    return f": it has {wanted}; {f'its layers: {names}' if names else 'it has no layers at all'}{remedy}"


def _layers(model: nn.Module) -> Iterator[type[nn.Module]]:
    """The kinds of torch's layers in a network."""
    if type(model).__module__.startswith("torch.") and not isinstance(model, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        yield type(model)
    else:
        for child in model.children():
            yield from _layers(child)


def _limit(name: str, value: float | None, whole: int) -> int:
    """The most that may stay, as a number of multiply-adds or parameters."""
    if value is None:
        return whole
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value!r}: must be a share of the network's, 0 < {name} <= 1, or a number above 1")
    return int(value * whole) if value <= 1 else min(int(value), whole)


def _ignored(model: nn.Module, graph: ChannelGraph, ignore: Sequence[str | nn.Module]) -> dict[str, str]:
    """Layer or parameter -> why it stays, for all of groups that `ignore` reaches."""
    if isinstance(ignore, str | nn.Module):
        ignore = [ignore]
    found: dict[str, str] = {}
    paths = {id(module): path for path, module in model.named_modules()}
    held = {group.name: set(group.layers) for group in graph.groups} | own_tensors(graph, model)
    known = {*paths.values(), *graph.slices, *(name for holders in held.values() for name in holders)}
    for wish in ignore:
        name = wish if isinstance(wish, str) else paths.get(id(wish))
        if name is None:
            raise ValueError(f"ignore: the {type(wish).__name__} given is no module of the model; give its path as text")
        if name not in known:
            layers = ", ".join(holder for holders in held.values() for holder in sorted(holders)[:1])
            raise ValueError(f"ignore={name!r}: no layer of the model; those with channels to prune begin with: {layers}")
        for group, holders in held.items():
            if any(f"{holder}.".startswith(f"{name}.") for holder in (group, *holders)):
                found |= dict.fromkeys(holders, f"ignore={name!r} was asked for")
    return found


def _own_scores(
    scores: Criterion,
    network: nn.Module,
    now: ChannelGraph,
    graph: ChannelGraph,
    places: Mapping[tuple[str, int], Tensor],
    data: Dataset | None,
) -> dict[str, Tensor]:
    """Scores of the channels that are left; a dictionary's are those of the unpruned network."""
    if not isinstance(scores, Mapping) or not places:
        return score_channels(scores, network, now, data)
    whole, keep = score_channels(scores, network, graph), _composed(graph, places)
    return {group.name: whole[group.name][keep[group.name]] for group in now.groups}


def _decide(
    limits: Limits,
    scores: Mapping[str, Tensor],
    how: str | Order,
    round_to: int,
    fixed: Sequence[str],
    network: nn.Module,
    data: Dataset | None,
    looks: int,
    seed: int,
    asked: tuple[float | None, float | None],
) -> dict[str, Tensor]:
    graph = limits.costs.graph
    try:
        if how != "searched":
            return allocate(limits, order_of(how, graph, scores), round_to, fixed)
        assert data is not None
        evaluator = MaskEvaluator(network, graph, data)
        return _searched(limits, scores, round_to, fixed, evaluator, looks, seed)
    except OverBudget as error:
        named = [(name, value) for name, value in zip(("macs", "params"), asked, strict=True) if value is not None]
        budget = ", ".join(f"{name}={value}" + " (a number of them, as it is above 1)" * (value > 1) for name, value in named)
        remedies = ["ask for more"] + ["ignore fewer layers"] * bool(fixed)
        remedies += [f"lower round_to={round_to}"] * (round_to > 1)
        if _norms_hold(network, graph):
            remedies.append("prune the width of this transformer, too, by norms='kept'")
        raise ValueError(f"{budget}: out of reach, {error}; {' or '.join(remedies)}") from None


def _norms_hold(network: nn.Module, graph: ChannelGraph) -> bool:
    """Whether more channels could go with norms="kept"."""
    if any(norm.kept for norm in graph.norms) or not find_norms(network):
        return False
    return trace(network, graph.inputs or graph.example, norms="kept").num_atoms > graph.num_atoms


def _searched(
    limits: Limits,
    scores: Mapping[str, Tensor],
    round_to: int,
    fixed: Sequence[str],
    evaluator: MaskEvaluator,
    looks: int,
    seed: int,
) -> dict[str, Tensor]:
    """Of uniform, global, and uniform with a random shift for each group, the one with the lowest validation loss."""
    graph, generator = limits.costs.graph, runtime.seed_generator(seed, "shares of the groups")
    uniform = order_of("uniform", graph, scores)
    orders = [uniform, order_of("global", graph, scores)]
    while len(orders) < looks:
        shifts = torch.rand(len(graph.groups), generator=generator, dtype=torch.float64).tolist()
        orders.append({name: place + shift for (name, place), shift in zip(uniform.items(), shifts, strict=True)})
    keeps = [allocate(limits, order, round_to, fixed) for order in runtime.progress(orders[:looks], "shares of the groups")]
    losses = evaluator(torch.stack([graph.flatten(keep) for keep in keeps])).loss
    return keeps[int(losses.argmin())]


def _step(network: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], last: bool) -> nn.Module:
    if not last and all(bool(mask.all()) for mask in keep.values()):
        return copy_model(network)  # too small a step for these widths
    with warnings.catch_warnings():
        if not last:
            warnings.filterwarnings("ignore", message="prune removes nothing")
        return prune(network, graph, keep)


def _trained(network: nn.Module, finetune: Finetune, data: Dataset | None, teacher: nn.Module, seed: int) -> nn.Module:
    if data is not None:
        train.reestimate_bn(network, data, seed=seed)
    if isinstance(finetune, Recipe):
        assert data is not None
        return train.finetune(network, data, finetune, seed=seed, teacher=copy_model(teacher) if finetune.distil else None)
    found: Any = finetune(network) if finetune is not None else None
    if found is not None and not isinstance(found, nn.Module | History):
        wanted = "train the network in place and return None, or return a network"
        raise TypeError(f"finetune must {wanted}, and returned a {type(found).__name__}")
    return found if isinstance(found, nn.Module) else network  # `train.fit` trains in place, and returns a history


def _composed(graph: ChannelGraph, places: Mapping[tuple[str, int], Tensor]) -> dict[str, Tensor]:
    """The `keep` of the unpruned network that leaves these slices of its tensors."""
    kept = torch.zeros(graph.num_classes + 1, dtype=torch.bool)
    for site in graph.sites:
        place = site.tensor, site.dim
        kept[site.atoms[places[place]] if place in places else site.atoms] = True
    return graph.unflatten(kept[: graph.num_atoms])
