"""Families of small networks, trained many at a time: the population that an agent learns to prune.

Each network sees its own classes of the images and has its own learning rate and its own share of channels dropped in training.
So no two networks of a family are alike, and what helps on all of them is worth learning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphprune.runs import runtime
from graphprune.runs.checks import at_least
from graphprune.training.data import Dataset
from graphprune.training.splits import Split

FAMILIES = ("mlp", "conv", "residual")
TOGETHER = 32  # networks trained at once


class Small(nn.Module):
    """Two groups of channels a and b: b = relu(middle(a)), and the logits are linear in b.

    In "residual" the last layer before the classifier adds onto `a`, so that a group couples two layers.

    Args:
        family: "mlp", "conv" or "residual".
        image: (C, H, W) of the inputs.
        width: channels of each of the two groups.
        classes: outputs.
        depth: "mlp" alone: hidden layers; the ones after the second have `width` channels, too.
    """

    def __init__(self, family: str, image: tuple[int, ...], width: int = 7, classes: int = 10, depth: int = 2) -> None:
        super().__init__()
        if family not in FAMILIES:
            raise ValueError(f"family={family!r}: must be one of {', '.join(FAMILIES)}")
        self.family, self.width = family, width
        channels, height, pixels_wide = image
        if family == "mlp":
            self.first: nn.Module = nn.Linear(channels * height * pixels_wide, width)
            self.middle: nn.Module = nn.Linear(width, width)
            self.more = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 2))
            self.head = nn.Linear(width, classes)
            return
        self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(width, width, 3, stride=2 if family == "conv" else 1, padding=1)
        self.more = nn.ModuleList()
        places = -(-height // 2) * -(-pixels_wide // 2)
        if family == "residual":
            self.last = nn.Conv2d(width, width, 3, padding=1)
            self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(width * (-(-height // 4) * -(-pixels_wide // 4) if places > 1 else 1), classes)

    def forward(self, x: Tensor, keep_a: Tensor | None = None, keep_b: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> logits (n, classes). What a channel is worth, `keep`, is (n, width) or (width,); 0 hides it."""
        a = self.early(x) if keep_a is None else hide(self.early(x), keep_a)
        b = self.late(a) if keep_b is None else hide(self.late(a), keep_b)
        return self.tail(a, b, keep_a)

    def early(self, x: Tensor) -> Tensor:
        """The first group's channels."""
        return torch.relu(self.first(x.flatten(1) if self.family == "mlp" else x))

    def late(self, a: Tensor) -> Tensor:
        """The second group's channels."""
        return torch.relu(self.middle(a))

    def tail(self, a: Tensor, b: Tensor, keep_a: Tensor | None = None) -> Tensor:
        """From both groups to the logits, without a nonlinearity where depth is 2."""
        for layer in self.more:
            b = torch.relu(layer(b))
        if self.family == "residual":
            b = a + self.last(b)
            b = self.pool(b if keep_a is None else hide(b, keep_a))
        return self.head(b.flatten(1))


def hide(x: Tensor, keep: Tensor) -> Tensor:
    """x (n, C, ...) times keep (n, C) or (C,)."""
    return x * keep.view(*keep.shape, *[1] * (x.ndim - 2))


def train_many(
    family: str, data: Dataset, count: int, seed: int, *, width: int = 7, depth: int = 2, steps: int = 300
) -> tuple[list[Small], Tensor]:
    """Train networks of a family side by side.

    Args:
        family: one of `FAMILIES`.
        data: images; the training split is read.
        count: networks.
        seed: of weights, classes and batches.
        width, depth: as `Small` takes them.
        steps: batches of 64 images that each network sees.

    Returns:
        The networks, and the classes that each was trained on, (count, classes) bool: 6 to all of them.

    Raises:
        ValueError: an unknown family, or a number below 1.

    >>> import graphprune
    >>> models, classes = train_many("mlp", graphprune.data.load("digits"), 2, seed=0, steps=1)
    >>> len(models), classes.shape
    (2, torch.Size([2, 10]))
    """
    at_least(1, count=count, width=width, steps=steps)
    at_least(2, depth=depth)
    generator = runtime.seed_generator(seed, "family", family, width, depth)
    images, labels = whole(data.train)
    few = max(2, data.num_classes * 6 // 10)
    models, seen = [], []
    for start in range(0, count, TOGETHER):
        size = min(TOGETHER, count - start)
        classes = torch.zeros(size, data.num_classes, dtype=torch.bool)
        for row in classes:
            wanted = int(torch.randint(few, data.num_classes + 1, (1,), generator=generator))
            row[torch.randperm(data.num_classes, generator=generator)[:wanted]] = True
        with runtime.seeded(int(torch.randint(1 << 31, (1,), generator=generator))):
            batch = [Small(family, data.input_shape, width, data.num_classes, depth) for _ in range(size)]
        _fit(batch, images, labels, classes, width, steps, generator)
        models += batch
        seen.append(classes)
    return models, torch.cat(seen)


def whole(split: Split) -> tuple[Tensor, Tensor]:
    """All images of a split, normalised, and their labels."""
    batches = list(split.batches(512))
    return torch.cat([images for images, _ in batches]).cpu(), torch.cat([labels for _, labels in batches]).cpu()


def _fit(
    models: list[Small], images: Tensor, labels: Tensor, classes: Tensor, width: int, steps: int, generator: torch.Generator
) -> None:
    """AdamW on the sum of all networks' losses: a network's gradient is its own."""
    stays = 1 - 0.25 * torch.rand(len(models), 1, 1, 1, generator=generator)  # the share of channels that a step keeps
    pace = 10 ** (-0.6 * torch.rand(len(models), generator=generator))  # of a step, 1/4 to 1: a learning rate of its own
    weights, buffers = torch.func.stack_module_state(list(models))
    optimizer = torch.optim.AdamW(weights.values(), lr=2e-2, weight_decay=1e-2)
    slope = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / steps)))
    ours = [row[labels].nonzero().flatten() for row in classes]
    run = torch.func.vmap(lambda w, b, *given: torch.func.functional_call(models[0], (w, b), given))
    for _ in range(steps):
        pick = torch.stack([rows[torch.randint(len(rows), (64,), generator=generator)] for rows in ours])
        kept = (torch.rand(len(models), 2, 64, width, generator=generator) < stays) / stays
        logits = run(weights, buffers, images[pick], kept[:, 0], kept[:, 1])
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), labels[pick].flatten(), reduction="sum").div(64).backward()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimizer.step()
        slope.step()
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name].lerp(weight, pace.view(-1, *[1] * (weight.ndim - 1))))
    with torch.no_grad():
        for place, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name][place])
            model.eval()
