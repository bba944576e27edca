"""Masks evaluated a second: the whole network with many masks in a pass, and a pruned one for each, against prune.

The peer does for each mask what a reader would write: `prune`, `train.reestimate_bn`, `train.evaluate`. Fresh random masks
that keep 7 channels of 10 (about half of the MACs) in every repeat; random weights, for they change no time; one thread,
processor seconds. `make bench` gathers the rows.
"""

from __future__ import annotations

import torch
from timing import Row, rates, row
from torch import Tensor

from graphprune import data, models, train
from graphprune.coupling import trace
from graphprune.data import Dataset
from graphprune.evaluator import MaskEvaluator
from graphprune.graph import ChannelGraph
from graphprune.pruning import prune
from graphprune.splits import Augment, TensorSplit

KEPT, REPEATS = 0.7, 5
UNIT = "masks/s"


def photographs(n: int) -> Dataset:
    """Noise in the shape of CIFAR-10."""
    images = torch.randint(256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    split = TensorSplit((0.5,) * 3, (0.25,) * 3, Augment(4, True), torch.device("cpu"), torch.arange(n) % 10, images)
    return Dataset("noise", split, split, split, 10, (3, 32, 32))


def drawn(graph: ChannelGraph, n: int) -> Tensor:
    kept = torch.rand(n, graph.num_atoms) < KEPT
    for span in graph.slices.values():
        kept[:, span.start] = True
    return kept


def compared(name: str, dataset: Dataset, images: int, calibration: int, n: int, at_once: int) -> list[Row]:
    net = models.seeded(name, 0, in_channels=dataset.input_shape[0]).eval()
    graph, val = trace(net, dataset.example()), dataset.val.take(torch.arange(images))  # type: ignore[attr-defined]

    def one_by_one() -> None:
        for mask in drawn(graph, n):
            small = prune(net, graph, graph.unflatten(mask))
            train.reestimate_bn(small, dataset, batches=1, batch_size=calibration)
            train.evaluate(small, val)

    theirs, found = rates(one_by_one, n, REPEATS), []
    for width in (1, at_once):
        evaluator = MaskEvaluator(net, graph, dataset, images=images, calibration=calibration, at_once=width)
        ours = rates(lambda: evaluator(drawn(graph, n)), n, REPEATS)  # noqa: B023
        way = "one at a time, without proof" if width == 1 else f"{width} masks a pass, full shape"
        work = f"masks of {name} evaluated, {way}: {calibration} + {images} images of {dataset.input_shape[1]} pixels"
        found.append(row(work, UNIT, ours, "prune, reestimate_bn, evaluate", theirs))
    return found


def rows() -> list[Row]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = data.load("digits", device="cpu")
    return [*compared("resnet8", digits, 300, 128, 32, 8), *compared("resnet20", photographs(512), 512, 256, 4, 4)]


if __name__ == "__main__":
    for line in rows():
        print(line)
