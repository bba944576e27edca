"""The few images that a program is made of: the same number of each class, classified correctly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphprune.runs import runtime
from graphprune.runs.checks import at_least
from graphprune.training.data import Dataset


@torch.no_grad()
def pick(model: nn.Module, data: Dataset, per_class: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Training images that the network classifies correctly, `per_class` of each class, in the order of the classes.

    The paper takes one a class. That they are classified correctly is our reading; a wrong one costs much wherever s is.

    Returns:
        images (classes x per_class, C, H, W) as the network takes them, labels (classes x per_class,), on the CPU.
    Raises:
        ValueError: `per_class` is below 1, or a class has too few such images.
    """
    at_least(1, per_class=per_class)
    generator = runtime.seed_generator(seed, "neurons.pick")
    place = next(model.parameters()).device
    found: list[list[Tensor]] = [[] for _ in range(data.num_classes)]
    with runtime.evaluating(model):
        for x, y in data.train.batches(512, shuffle=True, generator=generator):
            right = (model(x.to(place)).argmax(1).cpu() == y.cpu()).tolist()
            for image, label, is_right in zip(x.cpu(), y.tolist(), right, strict=True):
                if is_right and len(found[label]) < per_class:
                    found[label].append(image)
            if all(len(part) == per_class for part in found):
                break
    for number, part in enumerate(found):
        if len(part) < per_class:
            raise ValueError(
                f"per_class={per_class}: class {number} has {len(part)} training images that the network classifies correctly; "
                "train it longer, or take fewer"
            )
    labels = torch.arange(data.num_classes).repeat_interleave(per_class)
    return torch.stack([image for part in found for image in part]), labels
