"""What a network costs: multiply-adds, parameters, milliseconds.

One multiply-add is 1. Counted are the products of convolutions, linear layers and attention, for one input; not counted are
normalisation, activations, pooling and biases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from graphprune.copying import on_meta
from graphprune.cutting import cut
from graphprune.graph import ChannelGraph, kept_counts
from graphprune.inputs import Inputs, as_inputs, weightless_inputs
from graphprune.parts import parts_of
from graphprune.runtime import evaluating
from graphprune.tracing import propagate, record_again

CHUNK = 4096  # configurations costed at a time: they stay in the cache


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass of one input.

    Attributes:
        macs: multiply-adds of convolutions, linear layers and attention.
        params: parameters.
    """

    macs: int
    params: int


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one forward pass: the median and the 10 % and 90 % quantiles of many, warmed up."""

    median_ms: float
    low_ms: float
    high_ms: float
    threads: int
    batch: int
    device: str


def cost(model: nn.Module, example_input: Any) -> Cost:
    """Multiply-adds and parameters of a network, counted by torch's FlopCounterMode on a weightless copy.

    Args:
        model: any network.
        example_input: a tensor (B, ...) or a tuple of the forward's; B is divided out.

    Raises:
        TypeError: `example_input` is no tensor.

    >>> cost(graphprune.models.build("resnet20a"), torch.zeros(1, 3, 32, 32)).params
    269722
    """
    inputs = as_inputs(example_input)
    params = sum(int(parameter.numel()) for parameter in model.parameters())
    return Cost(_flops(on_meta(model), inputs) // (2 * len(inputs.tensors[0])), params)


def _flops(meta: nn.Module, inputs: Inputs) -> int:
    """FlopCounterMode's count; attention's fast path is switched off, for it would hide the products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        given = weightless_inputs(inputs)
        with FlopCounterMode(display=False) as counter, torch.no_grad(), evaluating(meta), torch.device("meta"):
            meta(*given.args, **given.kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def paper_flops(model: nn.Module, example_input: Any) -> int:
    """The SACP paper's "FLOPs", which its tables' base figures are: an old counter's unit, for comparison only.

    Multiply-adds of convolutions and linear layers, 4 for each element that a convolution puts out (its batch
    normalisation), and 1 for each element that an average pool reads [found by calculation].

    >>> paper_flops(graphprune.models.build("resnet56"), torch.zeros(1, 3, 32, 32)) / 1e6
    127.93...
    """
    inputs = as_inputs(example_input)
    meta, extra = on_meta(model), 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal extra
        extra += 4 * out.numel() if isinstance(module, nn.modules.conv._ConvNd) else args[0].numel()

    for module in meta.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(count)
    flops = _flops(meta, inputs)
    return (flops // 2 + extra) // len(inputs.tensors[0])


def prunable_share(graph: ChannelGraph) -> float:
    """Share of the parameters that lie in a row or a column of some group, so that pruning can reach them.

    Raises:
        ValueError: the graph was not made by `trace`.

    >>> prunable_share(graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8)))
    0.9714...
    """
    if graph.shell is None:
        raise ValueError("graph has no traced network (shell): make it with graphprune.trace")
    stays: dict[str, float] = {}  # share of a tensor that lies in no group
    for site in graph.sites:
        offered = (site.atoms >= 0) & (site.atoms < graph.num_atoms)
        stays[site.tensor] = stays.get(site.tensor, 1.0) * (1 - float(offered.double().mean()))
    sizes = {name: parameter.numel() for name, parameter in graph.shell.named_parameters()}
    return 1 - sum(size * stays.get(name, 1.0) for name, size in sizes.items()) / sum(sizes.values())


class CostModel:
    """Multiply-adds and parameters of every pruned version of a network, from kept counts alone.

    Along each dimension of a weight the kept size is linear in the groups' kept counts k; a weight's parameters are the
    product of its sizes, its multiply-adds that times the places it is applied at. With x = (k, 1) both totals are
    quadratic forms,

        macs(k) = x^T M x,    params(k) = x^T P x,

    of whole, non-negative coefficients. No partial sum exceeds the unpruned network's cost, and float64 holds every
    whole number below 2^53, so the matrix products give exact integers. No network is built.

    Args:
        graph: the traced network.
        example_input: one input of the size to count for. A different size from the one traced with is fine.

    Attributes:
        full: the unpruned network's cost.
        forms: M and P, (2, groups + 1, groups + 1) int64, upper triangular.

    Raises:
        ValueError: the graph was not made by `trace`, or costs 2^53 multiply-adds or more.
    """

    def __init__(self, graph: ChannelGraph, example_input: Any):
        if graph.skeleton is None:
            raise ValueError("graph has no traced network (skeleton): make it with graphprune.trace")
        self.graph = graph
        inputs = as_inputs(example_input)
        assert graph.shell is not None
        if not graph.weightless:
            raise ValueError("graph was traced with the network's weights, for its forward needs values: use graphprune.cost")
        batch, recording = len(inputs.tensors[0]), record_again(cut(graph.shell, {}), inputs, weightless=True)
        seeds = {(site.tensor, site.dim): site.atoms for site in graph.sites}
        record = propagate(parts_of(graph.shell, recording.graph), recording, seeds, graph.num_atoms).record
        self.full = Cost(_flops(cut(graph.shell, {}), inputs) // (2 * batch), self._all_parameters())
        if max(self.full.macs, self.full.params) >= 2**53:
            raise ValueError(f"graph costs {self.full}, 2^53 or more, beyond exact products: use a smaller example_input")
        self.forms = self._quadratic(record.products, batch) + self._linear(record.contractions, batch)
        whole = np.array([*(group.channels for group in graph.groups), 1])
        self.forms[:, -1, -1] += (self.full.macs, self.full.params) - whole @ self.forms @ whole  # what no group touches

    def _all_parameters(self) -> int:
        assert self.graph.shell is not None
        return sum(int(parameter.numel()) for parameter in self.graph.shell.parameters())

    def _quadratic(self, products: dict[str, float], batch: int) -> np.ndarray:
        """M and P of the parameters that are cut: for each the product of its two sizes, linear forms in x."""
        tensors = dict(self.graph.shell.named_parameters(remove_duplicate=False))  # type: ignore[union-attr]
        share = np.array([group.channels for group in self.graph.groups], dtype=np.int64)
        owner = np.repeat(np.arange(len(share)), share)
        sizes: dict[str, dict[int, np.ndarray]] = {}
        for site in self.graph.sites:
            if site.tensor in tensors:
                atoms = site.atoms.numpy()
                own = atoms[(atoms >= 0) & (atoms < self.graph.num_atoms)]
                size = np.zeros(len(share) + 1, dtype=np.int64)
                np.add.at(size, owner[own], 1)
                size[:-1] //= share  # a group's atoms lie here equally often
                size[-1] = len(atoms) - len(own)  # always kept
                sizes.setdefault(site.tensor, {})[site.dim] = size
        one = np.zeros(len(share) + 1, dtype=np.int64)
        one[-1] = 1
        forms = np.zeros((2, len(one), len(one)), dtype=np.int64)
        for name, dims in sizes.items():
            first, second = [*dims.values(), one][:2]
            unit = tensors[name].numel() // int(np.prod([tensors[name].shape[dim] for dim in dims]))
            macs = round(products.get(name, 0.0)) * unit // batch
            forms += np.array([macs, unit])[:, None, None] * np.outer(first, second)
        return np.triu(forms) + np.triu(forms.transpose(0, 2, 1), 1)

    def _linear(self, contractions: list[tuple[Tensor, float]], batch: int) -> np.ndarray:
        """M and P of products of computed tensors, attention's: linear in the kept counts of what tells their places apart."""
        share = np.array([group.channels for group in self.graph.groups], dtype=np.int64)
        owner = np.repeat(np.arange(len(share)), share)
        total = np.zeros(len(share) + 1)
        for labels, macs in contractions:
            atoms = labels.numpy()
            np.add.at(total, owner[atoms[(atoms >= 0) & (atoms < self.graph.num_atoms)]], macs / batch)
        forms = np.zeros((2, len(total), len(total)), dtype=np.int64)
        forms[0, :-1, -1] = np.round(total[:-1] / share) if len(share) else 0
        return forms

    def of_counts(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Cost by kept channels. counts: (B, groups) int64, each at most its group's -> macs (B,), params (B,), int64."""
        return self._evaluate(len(counts), lambda rows: counts[rows].double().numpy())

    def of_rates(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Cost by rate indices (rate i / 10). indices: (B, groups) int64 in 0..9 -> macs (B,), params (B,), int64.

        Raises:
            ValueError: a wrong shape, or an index outside 0..9.
        """
        groups = self.graph.groups
        if indices.ndim != 2 or indices.shape[1] != len(groups):
            raise ValueError(f"indices must have shape (B, {len(groups)}), one column a group, got {tuple(indices.shape)}")
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) > 9):
            raise ValueError(f"indices must lie in 0..9 (rate i / 10), got {int(indices.min())}..{int(indices.max())}")
        table = torch.stack([kept_counts(group.channels) for group in groups]).double().numpy().ravel()  # (groups * 10,)
        starts = 10 * np.arange(len(groups))
        return self._evaluate(len(indices), lambda rows: table.take(indices[rows].numpy() + starts))

    def _evaluate(self, n: int, kept: Callable[[slice], np.ndarray]) -> tuple[Tensor, Tensor]:
        """x^T M x and x^T P x of n configurations, a chunk that stays in the cache at a time."""
        size = self.forms.shape[1]
        columns = self.forms.astype(np.float64).transpose(1, 0, 2).reshape(size, 2 * size)
        out = torch.empty(2, n, dtype=torch.int64)
        for start in range(0, n, CHUNK):
            part = kept(slice(start, start + CHUNK))
            x = np.ones((len(part), size))
            x[:, :-1] = part
            totals = np.einsum("btj,bj->tb", (x @ columns).reshape(-1, 2, size), x)
            out[:, start : start + CHUNK] = torch.from_numpy(totals)
        return out[0], out[1]


def latency(model: nn.Module, example_input: Any, repeats: int = 30, threads: int | None = None) -> Latency:
    """Measure the forward pass: the median of many, after a warm-up, in evaluation mode without gradients.

    Args:
        model: the network, on the device to measure.
        example_input: a tensor or a tuple of the forward's, on the same device; its batch size is reported.
        repeats: forward passes timed, after a fifth as many to warm up.
        threads: CPU threads for the time of the measurement; as they are by default.

    Raises:
        ValueError: `repeats` or `threads` below 1.
    """
    for name, value in (("repeats", repeats), ("threads", threads)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    inputs = example_input if isinstance(example_input, tuple | list) else (example_input,)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with evaluating(model), torch.inference_mode():
            times = sorted(_once(model, inputs) for _ in range(repeats + repeats // 5 + 1))  # the slowest: warm-up
    finally:
        torch.set_num_threads(before)
    low, median, high = np.quantile(times[:repeats], [0.1, 0.5, 0.9]) * 1e3
    return Latency(float(median), float(low), float(high), threads or before, len(inputs[0]), str(inputs[0].device))


def _once(model: nn.Module, inputs: Any) -> float:
    on_gpu = inputs[0].is_cuda
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(*inputs)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def latency_saved(before: Latency, after: Latency) -> tuple[float, float]:
    """How much less time a pruned network takes, in % of the whole one's: of the medians, and at least.

    "At least" sets the pruned network's median against the whole one's 10 % quantile: less than that could be chance.

    Raises:
        ValueError: the two were measured with other threads, batches or devices.

    >>> whole = Latency(4.0, 3.8, 4.4, threads=1, batch=1, device="cpu")
    >>> latency_saved(whole, Latency(3.9, 3.8, 4.1, threads=1, batch=1, device="cpu"))  # 2.5 % less, or nothing
    (2.5..., -2.6...)
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
