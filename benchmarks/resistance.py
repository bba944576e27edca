"""Effective resistances of large layers, all of them exactly: processor seconds of one thread, and how much memory grows."""

from __future__ import annotations

import resource
import time

import torch
from timing import Row, row

from graphprune import spectral

SHAPES = ((512, 4608), (4096, 4096))  # the widest convolution of VGG-16, unrolled; a fully connected layer of the original
LIMITS = (60.0, 4096.0)  # seconds and MiB


def rows() -> list[Row]:
    """The small layer first: the peak of memory is the whole process's and never falls."""
    torch.set_num_threads(1)
    table = []
    for shape in SHAPES:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        found = spectral.effective_resistance(weight)
        spent = time.process_time() - begun
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        leverages = float((weight.abs().double() * found).sum())
        assert abs(leverages - (sum(shape) - 1)) < 1e-6, "nodes less one: one connected graph"
        work = f"all resistances of a layer of {shape[0]} x {shape[1]}"
        table.append(row(work, "s", [spent], "the goal", [LIMITS[0]]))
        table.append(row(f"{work}: growth of the peak resident memory", "MiB", [grown], "the goal", [LIMITS[1]]))
    return table
