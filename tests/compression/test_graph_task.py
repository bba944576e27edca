"""Graphs one after the other: batches of them, and what is refused."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphprune.compression.graph_task import GraphTask

SIZES = torch.tensor([2, 1, 3])  # a pair, a single node, a path
EDGES = torch.tensor([[0, 1, 3, 4, 4, 5], [1, 0, 4, 3, 5, 4]])
X = torch.arange(6.0)[:, None]
Y = torch.tensor([0, 1, 1])
PARTS = {part: torch.tensor([number]) for number, part in enumerate(("train", "val", "test"))}
TASK = GraphTask("three", X, EDGES, SIZES, Y, PARTS)


def test_a_batch_is_what_pyg_makes_of_the_same_graphs() -> None:
    edges = (EDGES[:, :2], EDGES[:, :0], EDGES[:, 2:] - 3)
    single = [Data(x=x, edge_index=pairs) for x, pairs in zip(X.split([2, 1, 3]), edges, strict=True)]
    for order in ([0, 1, 2], [2, 0], [1], [2, 1, 0, 2]):
        found, wanted = TASK.take(torch.tensor(order)), Batch.from_data_list([single[i] for i in order])
        assert torch.equal(found.x, wanted.x)
        assert torch.equal(found.edge_index, wanted.edge_index)
        assert torch.equal(found.graph, wanted.batch)
        assert torch.equal(found.target, Y[order])


def test_a_pass_sees_every_graph_once_and_a_generator_shuffles() -> None:
    many = {"train": torch.arange(1, 30), "val": torch.tensor([0]), "test": torch.tensor([30])}
    task = GraphTask("m", torch.ones(31, 1), EDGES[:, :0], torch.ones(31, dtype=torch.int64), torch.arange(31), many)
    plain = [batch.target.tolist() for batch in task.batches("train", 10)]
    batches = task.batches("train", 10, torch.Generator().manual_seed(0))
    mixed = [label for batch in batches for label in batch.target.tolist()]
    assert plain == [list(range(1, 11)), list(range(11, 21)), list(range(21, 30))]
    assert sorted(mixed) == list(range(1, 30))
    assert mixed != list(range(1, 30))


def test_two_classes_can_be_measured_by_the_area_under_the_curve() -> None:
    task = GraphTask("three", X, EDGES, SIZES, Y, PARTS, metric="auc")
    logits = (torch.tensor([[0.0, 0.2]]), torch.tensor([[0.0, 0.9], [0.0, 0.1]]))
    batches = (task.take(torch.tensor([0])), task.take(torch.tensor([1, 2])))
    results = list(zip(logits, batches, strict=True))
    assert task.measure(results) == {"auc": 0.5, "ap": pytest.approx((1 + 2 / 3) / 2), "accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_index": torch.tensor([[1], [2]])}, "every edge must stay in its graph"),
        ({"edge_index": EDGES.flip(1)}, "edges stand in the order of the graphs"),
        ({"sizes": torch.tensor([2, 1, 2])}, "add up to the 6 nodes"),
        ({"sizes": torch.tensor([3, 0, 3])}, "must be at least 1"),
        ({"metric": "f1"}, "metric='f1': unknown for this task; choose from accuracy, auc"),
        ({"metric": "auc", "y": torch.tensor([0, 1, 2])}, "metric='auc': y has 3 classes"),
    ],
)
def test_graphs_that_overlap_or_do_not_add_up_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphTask(**{"name": "x", "x": X, "edge_index": EDGES, "sizes": SIZES, "y": Y, "graphs": PARTS} | change)
