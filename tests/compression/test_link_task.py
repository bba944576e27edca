"""Pairs of nodes: what is drawn, asked and measured."""

import math
from dataclasses import replace

import pytest
import torch

from graphprune.compression.link_task import LinkTask, draw_non_links

LINKS = torch.tensor([[0, 1, 2], [1, 2, 3]])
BOTH = torch.cat([LINKS, LINKS.flip(0)], dim=1)
TASK = LinkTask(
    "path", torch.eye(5), {part: BOTH for part in ("train", "val", "test")}, {part: LINKS for part in ("train", "val", "test")},
    {part: torch.ones(3, dtype=torch.int64) for part in ("train", "val", "test")}, outputs=2,
)  # fmt: skip


def test_drawn_pairs_are_no_links_and_no_loops_and_follow_the_generator() -> None:
    drawn = draw_non_links(LINKS, 5, 500, torch.Generator().manual_seed(0))
    linked = {(0, 1), (1, 2), (2, 3)}
    pairs = {(min(a, b), max(a, b)) for a, b in drawn.t().tolist()}
    assert drawn.shape == (2, 500)
    assert pairs == {(a, b) for a in range(5) for b in range(a + 1, 5)} - linked
    assert torch.equal(drawn, draw_non_links(LINKS, 5, 500, torch.Generator().manual_seed(0)))


def test_training_draws_as_many_pairs_without_a_link_as_there_are_links() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (next(TASK.batches("train", 1, generator)) for _ in range(2))
    assert first.target.tolist() == [1, 1, 1, 0, 0, 0]
    assert torch.equal(first.chosen[:, :3], LINKS)
    assert not torch.equal(first.chosen[:, 3:], second.chosen[:, 3:])
    assert torch.equal(next(TASK.batches("test", 1)).chosen, LINKS)


def test_the_logit_of_a_pair_is_a_dot_product() -> None:
    (batch,) = TASK.batches("val", 1)
    output = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, math.log(3)], [0.0, 0.0], [0.0, 0.0]])
    assert float(TASK.loss(output, batch)) == pytest.approx((math.log(2) + math.log(4 / 3) + math.log(2)) / 3)


def test_a_graph_in_which_all_are_linked_is_refused() -> None:
    with pytest.raises(ValueError, match="all pairs of the 3 nodes are linked"):
        draw_non_links(torch.tensor([[0, 0, 1], [1, 2, 2]]), 3, 1, torch.Generator())


PARTS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: {"train": BOTH}}, f"{name}: must be of train, val and test; got train")
            for name in ("messages", "pairs", "labels")
        ),
        ({"labels": {part: torch.ones(2, dtype=torch.int64) for part in PARTS}}, r"labels: of train they must be int64 \(3,\)"),
        ({"labels": TASK.labels | {"val": torch.ones(3)}}, r"labels: of val .* each 0 or 1; got torch.float32"),
        ({"labels": TASK.labels | {"test": torch.tensor([0, 1, 2])}}, r"labels: of test .* of \[0, 1, 2\]"),
        ({"labels": TASK.labels | {"train": torch.tensor([0, 1, 1])}}, "labels: of train .* as all pairs of train are links"),
        ({"metric": "accuracy"}, "metric='accuracy': unknown for this task; choose from auc, ap"),
    ],
)
def test_parts_and_labels_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TASK, **change)
