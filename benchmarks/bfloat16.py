"""A training step in bfloat16: the suite's, against torch.autocast alone and against float32; processor seconds of one thread.

On a CPU with instructions for bfloat16 the suite's step is torch's own.
"""

from __future__ import annotations

import torch
from timing import Row, row, seconds
from training import BATCH, REPEATS, stepper

from graphprune.training.mixed_precision import mixed_precision


def step_seconds(*, bf16: bool, widened: bool = False) -> float:
    """Of a step of a ResNet-20 in the channels-last layout, forward, backward and update, after one that warms up."""
    step, generator = stepper(channels_last=True, bf16=bf16), torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    y = torch.randint(10, (BATCH,), generator=generator)
    with mixed_precision(x.device, "bfloat16" if widened else "float32"):
        return seconds(lambda: step(x, y), 1)[0]


def rows() -> list[Row]:
    """The three in turn, so that what else runs on the machine slows all of them."""
    torch.set_num_threads(1)
    kinds = {"bf16": True, "widened": True}, {"bf16": True}, {"bf16": False}
    ours, alone, full = zip(*([step_seconds(**kind) for kind in kinds] for _ in range(REPEATS)), strict=True)
    work = f"a step of ResNet-20 in bfloat16, batch {BATCH}"
    return [row(work, "s", ours, "torch.autocast alone", alone), row(work, "s", ours, "float32", full)]
