"""Scoring configurations: this suite's look-ups against PyG, against dense products, and against the cache.

All in one run, one thread, processor seconds. `make bench` gathers the rows.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

import torch
from timing import Row, rates, row, seconds
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from graphprune import importance, models, runtime
from graphprune.coupling import trace
from graphprune.encoder import GraphEncoder
from graphprune.graph import ChannelGraph
from graphprune.scorer import CHUNK, Scorer
from graphprune.space import RateSpace, Scores, kept_masks
from graphprune.tables import Lookup, total, union
from graphprune.window import Window

IMAGE = torch.zeros(1, 3, 32, 32)
MANY, FEW, REPEATS = 1 << 20, 256, 5


def prepared(name: str, **options: object) -> tuple[ChannelGraph, Scores, GraphEncoder, Scorer]:
    net = models.seeded(name, 0)
    graph = trace(net, IMAGE)
    scores = importance.l1(net, graph)
    encoder = GraphEncoder.seeded(0, graph.feature_index.shape[1], **options).requires_grad_(False)
    return graph, scores, encoder, Scorer(encoder, graph, scores)


def batch_of(graph: ChannelGraph, scores: Scores, indices: Tensor) -> Batch:
    """The pruned networks as PyG has them: a graph each, side by side."""
    x = graph.features(kept_masks(graph, indices, scores))
    return Batch.from_data_list([Data(x=rows, edge_index=graph.edge_index) for rows in x])


def by_pyg(graph: ChannelGraph, scores: Scores, encoder: GraphEncoder, indices: Tensor, target: Tensor) -> Tensor:
    return F.cosine_similarity(encoder(batch_of(graph, scores, indices)), target[None])


def first_layer_only(encoder: GraphEncoder, graph: ChannelGraph, score: Scorer) -> Callable[[Tensor], Tensor]:
    """ReLU(a_v) from a table a node, the second layer computed."""
    first, last = encoder.convolutions(graph.edge_index, len(graph.nodes))
    tables = []
    for own in score._first_sent(first):
        scope = union(s for s, _ in own)
        tables.append([(scope, total(own, scope, 10).relu())])
    lookup = Lookup.stack(tables, len(graph.groups), 10)
    return lambda indices: torch.cat([last.mean(lookup(part)) for part in indices.split(1024)])


def gathered(score: Scorer, indices: Tensor) -> tuple[Callable[[], None], int]:
    """The limit: the same table rows added up, where they lie known beforehand; and the bytes it reads."""
    assert score.tables is not None
    lookup = Lookup.stack([score.tables[1]], indices.shape[1], 10)
    parts = [(part.float() @ lookup.strides).int() + lookup.offsets for part in indices.split(CHUNK)]

    def gather() -> None:
        for at in parts:
            F.embedding_bag(at, lookup.rows, mode="sum")

    return gather, len(indices) * len(lookup.offsets) * lookup.rows.shape[1] * 4


def stream() -> list[Row]:
    """Five million candidates of ResNet-56: drawn with R(r) >= 0.3 and half of the MACs at most, costed, scored, reduced."""
    graph, _, _, score = prepared("resnet56")
    window = Window(graph, IMAGE, 0.3, (0.0, 0.5))
    assert window.costs.full.macs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before any candidate: network, tables and costs are there
    spent = seconds(lambda: window.best(score, 5_000_000, 300, runtime.seed_generator(0)), 1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    work = "5M ResNet-56 candidates drawn, costed, scored, top 300"
    memory = row(f"{work}: growth of the peak resident memory", "MiB", [grown], "the goal", [1024])
    return [row(work, "s", spent, "the goal", [15]), memory]


def resnet18() -> list[Row]:
    graph, scores, encoder, score = prepared("resnet18")
    indices = RateSpace(graph).sample(MANY, 0.7, torch.Generator().manual_seed(0))
    few, unit = indices[:FEW], "configurations/s"
    ours = rates(lambda: score(indices), MANY, REPEATS)
    work = "default GCN on ResNet-18"
    built, batches = (
        rates(lambda: by_pyg(graph, scores, encoder, few, score.reference), FEW, REPEATS),
        batch_of(graph, scores, few),
    )
    x = graph.features(kept_masks(graph, few, scores))
    dense = rates(lambda: encoder.embed(x, graph.edge_index), FEW, REPEATS)
    table, part = first_layer_only(encoder, graph, score), indices[: 1 << 15]
    torch.testing.assert_close(table(few), score.embed(few), atol=1e-5, rtol=1e-4)
    found = [
        row(work, unit, ours, f"PyG Batch of {FEW}, building included", built),
        row(work, unit, ours, f"PyG forward alone, Batch of {FEW}", rates(lambda: encoder(batches), FEW, REPEATS)),
        row(work, unit, ours, "dense batched GCN, features given", dense),
        row(work, unit, ours, "first-layer tables only", rates(lambda: table(part), len(part), REPEATS)),
    ]
    gather, size = gathered(score, indices)
    limit = rates(gather, size, REPEATS)
    read = [size / MANY * rate / 1e9 for rate in ours]
    return [
        *found,
        row(f"{work}: table rows read", "GB/s", read, "the same rows gathered, places known", [g / 1e9 for g in limit]),
    ]


def others() -> list[Row]:
    """Other networks and encoders against PyG Batches."""
    found = []
    for name, options in (
        ("resnet56", {"kind": "gcn"}),
        ("vgg16", {"kind": "gcn"}),
        ("resnet18", {"kind": "sage"}),
        ("resnet18", {"kind": "gat"}),
        ("resnet18", {"kind": "gcn", "layers": 3}),
        ("resnet18", {"kind": "gcn", "layers": 3, "undirected": True}),
    ):
        graph, scores, encoder, score = prepared(name, **options)
        n = MANY if score.tables else MANY >> 3
        indices = torch.randint(10, (n, len(graph.groups)), generator=torch.Generator().manual_seed(0))
        theirs = rates(lambda: by_pyg(graph, scores, encoder, indices[:FEW], score.reference), FEW, 3)  # noqa: B023
        what = f"{options['kind'].upper()}, {options.get('layers', 2)} layers{', undirected' * ('undirected' in options)}"
        ours = rates(lambda: score(indices), n, 3)  # noqa: B023
        found.append(row(f"{what} on {name}", "configurations/s", ours, f"PyG Batch of {FEW}, building included", theirs))
    return found


def rows() -> list[Row]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        return [*stream(), *resnet18(), *others()]


if __name__ == "__main__":
    for line in rows():
        print(line)
