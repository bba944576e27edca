"""What a task gives, asks and measures; what it refuses."""

import math

import pytest
import torch

from graphprune.compression.sparse_features import to_csr
from graphprune.compression.tasks import NodeTask, check_graph, rank_scores

EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
PARTS = {"train": torch.tensor([0, 1]), "val": torch.tensor([2]), "test": torch.tensor([3])}
Y = torch.tensor([0, 1, 1, 0])
TASK = NodeTask("four", torch.eye(4), EDGES, Y, PARTS)


def test_a_node_task_asks_about_the_nodes_of_a_part() -> None:
    (batch,) = TASK.batches("train", 1)
    assert [part is whole for part, whole in zip(batch.inputs, (TASK.x, EDGES), strict=True)] == [True, True]
    assert (batch.target.tolist(), batch.chosen.tolist()) == ([0, 1], [0, 1])
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [0.0, 0.0], [0.0, 0.0]])
    assert float(TASK.loss(logits, batch)) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert TASK.measure([(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), batch)]) == {"accuracy": 0.5}
    assert (TASK.features, TASK.outputs) == (4, 2)


def test_area_under_the_curve_counts_pairs_in_the_right_order() -> None:
    target, logits = torch.tensor([1, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.1])
    assert rank_scores(target, logits) == {"auc": 0.75, "ap": pytest.approx((1 + 2 / 3) / 2)}


def test_one_class_has_no_area_under_the_curve() -> None:
    with pytest.raises(ValueError, match="all 2 labels of a part are 1, so the area under its curve is undefined"):
        rank_scores(torch.tensor([1, 1]), torch.tensor([0.1, 0.2]))


def test_the_fingerprint_tells_splits_and_features_apart() -> None:
    swapped = NodeTask("four", torch.eye(4), EDGES, Y, PARTS | {"val": PARTS["test"], "test": PARTS["val"]})
    sparse = NodeTask("four", to_csr(torch.eye(4) * 2), EDGES, Y, PARTS)
    same = NodeTask("four", torch.eye(4), EDGES, Y, PARTS)
    assert TASK.fingerprint() == same.fingerprint()
    assert len({TASK.fingerprint(), swapped.fingerprint(), sparse.fingerprint()}) == 3


@pytest.mark.parametrize(
    ("x", "edges", "message"),
    [
        (torch.tensor([[1.0], [math.nan]]), EDGES[:, :0], "x: node 1 has features that are not finite"),
        (to_csr(torch.tensor([[0.0], [1.0], [math.inf]])), EDGES[:, :0], "x: node 2 has features that are not finite"),
        (torch.ones(2, 1), torch.tensor([[0], [2]]), "edge_index: names node 2, but x has the nodes 0 to 1"),
        (torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), "edge_index: must be int64"),
        (torch.ones(2, 1), torch.tensor([0, 1]), r"edge_index: must be int64 \(2, edges\)"),
        (torch.ones(2), EDGES[:, :0], r"x: must be floating-point \(nodes, features\)"),
        (torch.ones(2, 1, dtype=torch.int64), EDGES[:, :0], "x: must be floating-point"),
    ],
)
def test_a_graph_that_cannot_be_read_is_refused_by_name(x: torch.Tensor, edges: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_graph(x, edges)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(4, dtype=torch.int64)}, "every node has class 0"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "one a node"),
        ({"metric": "f1"}, "metric='f1': unknown for this task; choose from accuracy"),
        ({"nodes": PARTS | {"test": torch.tensor([0])}}, "must not overlap"),
        ({"nodes": PARTS | {"test": torch.tensor([4])}}, "numbers from 0 to 3"),
        ({"nodes": PARTS | {"test": torch.tensor([], dtype=torch.int64)}}, "none of them empty"),
    ],
)
def test_labels_and_splits_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NodeTask(**{"name": "x", "x": torch.eye(4), "edge_index": EDGES, "y": Y, "nodes": PARTS} | change)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="part='tset': must be one of train, val, test"):
        next(TASK.batches("tset", 1))
