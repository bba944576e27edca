"""A training step in bfloat16: the suite's, against torch.autocast alone and against float32; processor seconds of one thread.

On a CPU with instructions for bfloat16 the suite's step is torch's own.
"""

from __future__ import annotations

import torch
from timing import Row, row, seconds
from torch.nn import functional as F

from graphprune import models
from graphprune.training.mixed_precision import mixed_precision

BATCH, REPEATS = 128, 3


def step_seconds(precision: str, *, ours: bool) -> list[float]:
    """Of steps of a ResNet-20 in the channels-last layout, forward, backward and update."""
    net = models.seeded("resnet20", 0).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (BATCH,), generator=generator)

    def step() -> None:
        with mixed_precision(x.device, precision if ours else "float32"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = net(x)
            loss = F.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()

    return seconds(step, REPEATS)


def rows() -> list[Row]:
    torch.set_num_threads(1)
    mine, work = step_seconds("bfloat16", ours=True), f"a step of ResNet-20 in bfloat16, batch {BATCH}"
    return [
        row(work, "s", mine, "torch.autocast alone", step_seconds("bfloat16", ours=False)),
        row(work, "s", mine, "float32", step_seconds("float32", ours=False)),
    ]
