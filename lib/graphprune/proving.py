"""Proof that a `keep` can be honoured: kept classes carried through the pruned network, without its weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphprune.cutting import Places, cut_parts, kept_places
from graphprune.graph import ChannelGraph
from graphprune.labels import Disagreement
from graphprune.parts import Parts
from graphprune.propagation import Propagation, first_line
from graphprune.tracing import constants, shapes_only


def verify(
    parts: Parts, graph: ChannelGraph, places: Places, inputs: tuple[Tensor, ...] | None = None
) -> tuple[str, str] | None:
    """Carry the kept classes through a pruned, weightless network and compare what every consumer reads.

    Args:
        parts: the pruned network, of any device and mode.
        graph: the trace of the unpruned one.
        places: what was kept.
        inputs: others than those it was traced with.

    Returns:
        None if all is well, else the node at which it is not, and why.
    """
    assert graph.shell is not None
    distinct = {id(site.atoms): site for site in graph.sites}
    classes = {key: site.atoms[places[site.tensor, site.dim]] for key, site in distinct.items()}
    seeds = {(site.tensor, site.dim): classes[id(site.atoms)] for site in graph.sites}
    made = {name: getattr(graph.shell, name) for name in constants(graph.shell)}
    parts = replace(parts, tensors={**parts.tensors, **made}) if made else parts
    for skeleton in (graph.skeleton, graph.training):
        if skeleton is None:
            continue
        run = Propagation(parts, skeleton, seeds, graph.num_atoms)
        try:
            with shapes_only():
                run.run(*(inputs or graph.example))
            for key, labels in run.record.sites.items():
                run.ledger.tie(labels, seeds.get(key, labels), f"{key[0]} would read other channels than before")
        except Exception as error:  # whatever breaks here would break the pruned network
            known = isinstance(error, Disagreement)
            return str(run.current), str(error) if known else f"{type(error).__name__}: {first_line(error)}"
    return None


def probe(graph: ChannelGraph, parts: Parts) -> tuple[str, str] | None:
    """Try hard cases before anything is offered: each group at one channel, all but one, or a random half, in two mixtures.

    Args:
        graph: what is to be offered.
        parts: the network that was traced.
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
        places = kept_places(graph, kept)
        if trouble := verify(cut_parts(parts, places), graph, places):
            return trouble
    return None
