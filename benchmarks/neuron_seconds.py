"""How long the decoupled programs of VGG-16 take at its full size: seconds of one core for scoring all of its channels.

The network has its initial weights and the images are CIFAR-10's: time depends on sizes, and training it takes hours of a
core. The row is published as reports/cifar/neuron_seconds.csv, which notebook 07 reads.

    OMP_NUM_THREADS=1 python benchmarks/neuron_seconds.py
"""

from __future__ import annotations

import time

import pandas as pd

from graphprune import data, models, neurons, trace
from graphprune.runs import runtime

HEAD_IMAGES = 200


def main() -> None:
    """Score the network once and write the row."""
    images = data.load("cifar10", device="cpu")
    model = models.seeded("vgg16", 0).eval()
    x, y = next(images.train.batches(HEAD_IMAGES, shuffle=True, generator=runtime.seed_generator(0, "neuron_seconds")))
    first = [int((y == label).nonzero()[0]) for label in range(images.num_classes)]  # an image of each class
    graph, begun = trace(model, images.example()), time.process_time()
    found = neurons.decoupled(model, x[first], y[first], x, y, time_limit=600.0, graph=graph)
    seconds = time.process_time() - begun
    row = {"network": "vgg16", "layers": len(neurons.read(model, x[:1]).scored), "channels": sum(map(len, found.values()))}
    row |= {"images": len(first), "head images": HEAD_IMAGES, "status": found.status, "processor seconds": seconds}
    path = runtime.root() / "reports" / "cifar" / "neuron_seconds.csv"
    pd.DataFrame([row]).to_csv(path, index=False, float_format="%.1f")
    print(row, flush=True)


if __name__ == "__main__":
    main()
