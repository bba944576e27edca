"""How long a forward pass takes, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from graphprune.graph.inputs import Inputs, naming_bad_input
from graphprune.pruning.cost import check_input
from graphprune.runs.checks import at_least
from graphprune.runs.runtime import evaluating


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one forward pass: the median and the 10 % and 90 % quantiles of many, warmed up."""

    median_ms: float
    low_ms: float
    high_ms: float
    threads: int
    batch: int
    device: str


def latency(model: nn.Module, example_input: Any, repeats: int = 30, threads: int | None = None) -> Latency:
    """Measure the forward pass: the median of many, after a warm-up, in evaluation mode without gradients.

    Args:
        model: the network, on the device to measure.
        example_input: a tensor or a tuple of the forward's, on the same device; its batch size is reported.
        repeats: forward passes timed, all of which count; before them a fifth as many, and one more, warm up.
        threads: CPU threads for the time of the measurement; as they are by default.

    Raises:
        TypeError: `model` is no module, or `example_input` no tensor.
        ValueError: `repeats` or `threads` below 1; `example_input` has no batch, or the network rejects it.

    >>> import torch, graphprune
    >>> latency(graphprune.models.tiny_cnn(), torch.zeros(2, 1, 8, 8), repeats=3).batch
    2
    """
    at_least(1, repeats=repeats, threads=1 if threads is None else threads)
    inputs = check_input(model, example_input)
    first = inputs.tensors[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with evaluating(model), torch.inference_mode():
            with naming_bad_input(inputs):
                for _ in range(repeats // 5 + 1):
                    _once(model, inputs)
            times = [_once(model, inputs) for _ in range(repeats)]
    finally:
        torch.set_num_threads(before)
    low, median, high = np.quantile(times, [0.1, 0.5, 0.9]) * 1e3
    return Latency(float(median), float(low), float(high), threads or before, len(first), str(first.device))


def _once(model: nn.Module, inputs: Inputs) -> float:
    """Seconds of one forward pass."""
    on_gpu = inputs.tensors[0].is_cuda
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(*inputs.args, **inputs.kwargs)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def latency_saved(before: Latency, after: Latency) -> tuple[float, float]:
    """How much less time a pruned network takes, in % of the whole one's: of the medians, and at least.

    "At least" sets the pruned network's median against the whole one's 10 % quantile: less than that could be chance.

    Raises:
        ValueError: the two were measured with other threads, batches or devices.

    >>> whole = Latency(4.0, 3.8, 4.4, threads=1, batch=1, device="cpu")
    >>> median, at_least = latency_saved(whole, Latency(3.9, 3.8, 4.1, threads=1, batch=1, device="cpu"))
    >>> round(median, 1), round(at_least, 1)  # 2.5 % less, or nothing
    (2.5, -2.6)
    """
    how, other = ((time.threads, time.batch, time.device) for time in (before, after))
    if how != other:
        raise ValueError(f"before and after were measured with (threads, batch, device) = {how} and {other}: use the same")
    return 100 * (1 - after.median_ms / before.median_ms), 100 * (1 - after.median_ms / before.low_ms)


def latency_mark(macs_saved: float, latency_saved_at_least: float | None) -> str:
    """The mark of a result whose multiply-adds fell while its latency is not shown to have fallen; else empty.

    Args:
        macs_saved: any unit, above 0 if multiply-adds fell.
        latency_saved_at_least: the lower end of the interval of the latency saved; None where there is no interval.

    >>> latency_mark(61.2, -6.5), latency_mark(61.2, 11.3)
    ('none shown', '')
    """
    return "none shown" if macs_saved > 0 and (latency_saved_at_least is None or latency_saved_at_least <= 0) else ""
