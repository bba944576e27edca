"""Training that wastes nothing: this suite's pipeline and loop against the usual DataLoader with PIL transforms.

ResNet-20 on CIFAR-10, batches of 128, the same augmentation (a shift of up to 4 pixels, a mirror), SGD with momentum; all
in one run, on all cores. Prints a row each; `make bench` gathers them.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from graphprune import data, models, train
from graphprune.runs import runtime
from graphprune.training.recipe import Recipe
from graphprune.training.splits import Split

BATCH, IMAGES, STEPS, REPEATS = 128, 6_400, 15, 3


def usual_loader(workers: int) -> Iterable[Any]:
    """torchvision's CIFAR-10 as its examples load it: PIL images, transformed one by one in worker processes."""
    folders = [Path(os.environ.get("GRAPHPRUNE_DATA", "")), runtime.root() / "data"]
    folder = next(folder for folder in folders if (folder / "cifar-10-batches-py").is_dir())
    steps = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    steps.append(v2.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD))
    photos = torchvision.datasets.CIFAR10(str(folder), train=True, transform=v2.Compose(steps))
    part = torch.utils.data.Subset(photos, range(IMAGES))
    return torch.utils.data.DataLoader(part, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)


def own_batches(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    generator = runtime.seed_generator(0, "benchmark")
    return split.batches(BATCH, shuffle=True, augment=True, generator=generator, limit=IMAGES)


def per_second(batches: Callable[[], Iterable[Any]]) -> list[float]:
    """Images a second, `REPEATS` times, after a pass that warms up."""
    found = []
    for _ in range(REPEATS + 1):
        started, seen = time.perf_counter(), 0
        for x, _y in batches():
            seen += len(x)
        found.append(seen / (time.perf_counter() - started))
    return found[1:]


def stepper(compiled: bool = False, channels_last: bool = False, bf16: bool = False) -> Callable[[Tensor, Tensor], None]:
    """One step of training of a ResNet-20 of its own."""
    net = models.seeded("resnet20", 0).train()
    if channels_last:
        net.to(memory_format=torch.channels_last)
    forward: nn.Module = torch.compile(net) if compiled else net  # type: ignore[assignment]
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, 0, 5e-4)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = F.cross_entropy(forward(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def fitted(dataset: data.Dataset) -> list[float]:
    """Images a second of `train.fit`, `REPEATS` times, after one that warms up."""
    part, recipe = replace(dataset, train=dataset.train.take(torch.arange(STEPS * BATCH))), Recipe(1, 0.1, BATCH)
    found = []
    for _ in range(REPEATS + 1):
        net, started = models.seeded("resnet20", 0), time.perf_counter()
        train.fit(net, part, recipe, seed=0, device="cpu")
        found.append(STEPS * BATCH / (time.perf_counter() - started))
    return found[1:]


def steps_per_second(batches: Callable[[], Iterable[Any]], step: Callable[[Tensor, Tensor], None]) -> list[float]:
    """Images a second of training, `REPEATS` times `STEPS` steps, after three steps that warm up."""
    stream = iter(batches())
    for _ in range(3):
        step(*next(stream))
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(STEPS):
            step(*next(stream))
        found.append(STEPS * BATCH / (time.perf_counter() - started))
    return found


def row(work: str, ours: list[float], against: str, theirs: list[float]) -> dict[str, Any]:
    spread = f"{min(ours):.0f} to {max(ours):.0f} against {min(theirs):.0f} to {max(theirs):.0f}"
    ratio = median(ours) / median(theirs)
    about = {"work": work, "ours": median(ours), "unit": "images/s", "against": against, "theirs": median(theirs)}
    return about | {"ratio": ratio, "n": REPEATS, "spread": spread}


def rows() -> list[dict[str, Any]]:
    torch.set_num_threads(runtime.cores())
    dataset = data.load("cifar10", device="cpu")
    split = dataset.train
    loader = usual_loader(runtime.cores())
    usual = f"DataLoader with PIL transforms, {runtime.cores()} workers"
    found = [row("CIFAR-10 batches, augmented", per_second(lambda: own_batches(split)), usual, per_second(lambda: loader))]

    plain = steps_per_second(lambda: own_batches(split), stepper())
    last = steps_per_second(lambda: own_batches(split), stepper(channels_last=True))
    peer = steps_per_second(lambda: loader, stepper())
    found.append(row("ResNet-20 trained by train.fit", fitted(dataset), f"a plain loop, {usual}", peer))
    found.append(row("a step of ResNet-20: channels last", last, "contiguous layout", plain))
    bf16 = steps_per_second(lambda: own_batches(split), stepper(channels_last=True, bf16=True))
    found.append(row("the same: bf16 autocast (not used)", bf16, "float32", last))
    if shutil.which("g++"):  # torch.compile writes C++
        compiled = steps_per_second(lambda: own_batches(split), stepper(channels_last=True, compiled=True))
        found.append(row("the same: torch.compile, compilation not counted (not used)", compiled, "eager", last))
    return found


if __name__ == "__main__":
    for line in rows():
        print(line)
