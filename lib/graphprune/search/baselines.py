"""The arms SACP is compared with, each at the same MACs, on the same training budget, through the same funnel.

The budget is counted in passes over the training images: m * light.epochs + k * full.epochs. Random search and the bee
colony spend it as SACP does. Uniform and global L1 have nothing to search, so one network gets all of it: k restarts
that differ in the order of the training images, each m / k * light.epochs longer than `full`, the best of them chosen
on validation. (SACP's encoder trains on no image, and its cost is not counted.)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from graphprune.encoders.foraging import forage
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.allocation import rank_in_group, weigh_by_size
from graphprune.pruning.window import Score, into_window
from graphprune.runs import runtime
from graphprune.search.funnel import Funnel, SearchResult, choose, finish, rates_table, run_ranking, train_candidates, tune
from graphprune.training.data import Dataset
from graphprune.training.train import Recipe


def random_search(
    model: nn.Module, graph: ChannelGraph, data: Dataset, *, n_candidates: int | None = None, **setting: Any
) -> SearchResult:
    """The first m of uniform draws instead of the m most similar: what SACP would be if its ranking said nothing.

    Args:
        model, graph, data, setting: the fields of `Funnel`.
        n_candidates: draws made, 100 for each of the m unless given; more only matter where different networks are
            rare.
    """
    funnel = Funnel(model, graph, data, **setting)
    return run_ranking(
        funnel,
        score_at_random(),
        n_candidates=n_candidates or 100 * funnel.m,
        ranking={"by": "chance"},
    )


def score_at_random() -> Score:
    """Scores, for one stream of draws, that prefer what was drawn earlier, in whatever blocks the draws come."""
    places = itertools.count()

    def earliness(indices: Tensor) -> Tensor:
        return -torch.tensor(list(itertools.islice(places, len(indices))), dtype=torch.float64)

    return earliness


# --- one network, no search -------------------------------------------------------------------------------------------


def uniform_l1(model: nn.Module, graph: ChannelGraph, data: Dataset, **setting: Any) -> SearchResult:
    """The same share of every group's channels removed, smallest L1 norms first (Li et al. 2017, arXiv 1608.08710).

    The share is not bound to the rates: channels go one at a time, from the group that has lost least, until the MACs fit.

    Args:
        model, graph, data, setting: the fields of `Funnel`.
    """
    funnel = Funnel(model, graph, data, **setting)
    return _one_network(funnel, rank_in_group(funnel.scores))


def global_l1(model: nn.Module, graph: ChannelGraph, data: Dataset, **setting: Any) -> SearchResult:
    """One threshold for all channels of the network, on L1 norms divided by their group's mean.

    Norms of different layers differ in scale, so a global ranking needs a normalisation by layer (Molchanov et al.
    2017, arXiv 1611.06440, section 2.2, by the layer's l2 norm); we divide by the mean, as Torch-Pruning does
    (DepGraph, Fang et al. 2023, arXiv 2301.12900) [our reading]. Each group keeps at least one channel.

    Args:
        model, graph, data, setting: the fields of `Funnel`.
    """
    funnel = Funnel(model, graph, data, **setting)
    return _one_network(funnel, weigh_by_size(funnel.scores))


def lengthen_recipe(funnel: Funnel) -> Recipe:
    """The recipe of a restart where nothing is searched: `full`, with its share of the m light fine-tunings."""
    return dataclasses.replace(funnel.full, epochs=funnel.full.epochs + funnel.m * funnel.light.epochs / funnel.k)


def _one_network(funnel: Funnel, priority: dict[str, Tensor]) -> SearchResult:
    kept = cut_to_window(funnel, priority)
    counts = torch.stack([kept[span].sum() for span in funnel.graph.slices.values()])
    widths, channels = torch.tensor([(group.width, group.channels) for group in funnel.graph.groups]).T
    ratio = 1 - (widths * counts / channels).sum().item() / widths.sum().item()
    restarts = pd.DataFrame({"rank": range(1, funnel.k + 1), "ratio": ratio, "score": float("nan")})
    restarts["indices"] = [[] for _ in range(funnel.k)]  # these shares are no rates
    masks = kept.expand(funnel.k, -1)
    return choose(funnel, train_candidates(funnel, "full", restarts, masks, lengthen_recipe(funnel), restarts=range(funnel.k)))


def cut_to_window(funnel: Funnel, priority: dict[str, Tensor]) -> Tensor:
    """Remove channels in the order of `priority`, lowest first, until the MACs fit: the largest network in the window.

    Args:
        priority: group name -> (C,). Ties go in the order of the groups; a group's highest is never removed.

    Returns:
        (num_atoms,) bool, True = kept.

    Raises:
        ValueError: a single channel steps over the window.
    """
    graph, (low, high) = funnel.graph, funnel.macs_window
    atoms = torch.cat([priority[name].double().cpu() for name in graph.slices])
    last = torch.tensor([span.start + int(atoms[span].argmax()) for span in graph.slices.values()])
    order = atoms.index_fill(0, last, float("inf")).argsort(stable=True)[: len(atoms) - len(last)]
    sizes = torch.tensor([group.channels for group in graph.groups])
    removed = torch.zeros(len(order) + 1, len(sizes), dtype=torch.int64)
    removed[torch.arange(1, len(order) + 1), graph.owner[order]] = 1
    shares = funnel.window.shares(sizes - removed.cumsum(0))  # after 0, 1, 2, ... removals
    number = int((shares > high).sum())
    if number == len(shares) or shares[number] < low:
        near = [round(share, 4) for share in shares[max(0, number - 1) : number + 1].tolist()]
        raise ValueError(f"macs_window={funnel.macs_window}: the shares of MACs next to it here are {near}; widen it")
    kept = torch.ones(len(atoms), dtype=torch.bool)
    kept[order[:number]] = False
    return kept


# --- the bee colony ---------------------------------------------------------------------------------------------------


def bee_colony(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    *,
    foods: int | None = None,
    limit: int = 5,
    changes: int = 2,
    **setting: Any,
) -> SearchResult:
    """ABCPruner: an artificial bee colony over the rate space; fitness is the accuracy after light fine-tuning.

    Source: Lin et al. 2020, arXiv 2001.08565, and the authors' code (lmbxmu/ABCPruner on GitHub), whose `limit`,
    `changes` and onlookers' chance stand here. [Our reading]: fitness on the validation split (the code takes the test
    split); m evaluations in all, a network met again costing none; the bees of a phase fly at once, so that they can be
    trained in parallel; L1 picks the channels; the k best are retrained (there the best one); every bee is kept at
    the MACs aimed at by `into_window` (there only a layer's largest share is bounded).

    Args:
        model, graph, data, setting: the fields of `Funnel`.
        foods: food sources; m / 4, but 2 to 10, unless given.
        limit: failed visits after which a source is left.
        changes: groups that a bee changes at once.

    Raises:
        ValueError: `foods` outside 2 .. m, or fewer than m different networks were to be found.
    """
    funnel = Funnel(model, graph, data, **setting)

    def fitness(indices: Tensor) -> Tensor:
        rows = tune(funnel, rates_table(funnel, indices, torch.full((len(indices),), float("nan"))))
        return torch.tensor(rows["accuracy_val"].fillna(0.0).tolist(), dtype=torch.float64)  # what failed is no food

    visited, found = forage_in(funnel, fitness, foods, limit, changes)
    return finish(funnel, tune(funnel, rates_table(funnel, visited, found)))


def forage_in(
    funnel: Funnel, fitness: Callable[[Tensor], Tensor], foods: int | None = None, limit: int = 5, changes: int = 2
) -> tuple[Tensor, Tensor]:
    """The m configurations that the bees evaluate, (m, groups), and their fitness; arguments as `bee_colony`'s."""
    foods = foods or min(10, max(2, funnel.m // 4))
    if not 2 <= foods <= funnel.m:
        raise ValueError(f"foods={foods}: must be at least 2, as bees look at another source, and at most m={funnel.m}")
    generator = runtime.seed_generator(funnel.seed, "bees")
    visited, found = forage(
        fitness,
        lambda n: funnel.window.draw(n, generator),
        lambda indices: into_window(funnel.window, indices, generator),
        funnel.window.counts,
        evaluations=funnel.m,
        foods=foods,
        limit=limit,
        changes=changes,
        rates=len(funnel.rates),
        generator=generator,
    )
    if len(visited) < funnel.m:
        raise ValueError(f"m={funnel.m}: the bees found only {len(visited)} different networks; widen macs_window")
    return visited, found
