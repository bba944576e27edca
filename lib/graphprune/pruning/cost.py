"""What a network costs: multiply-adds, parameters, milliseconds.

One multiply-add is 1. Counted are the products of convolutions, linear layers and attention, for one input; not counted are
normalisation, activations, pooling, biases, and the messages that graph networks add up. One input is a place of the first
dimension of the first tensor that the forward takes: an image, a sentence, or of a graph network a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.cutting import cut
from graphprune.graph.inputs import Inputs, as_inputs, naming_bad_input, weightless_inputs
from graphprune.graph.parts import parts_of
from graphprune.graph.tracing import demand_python, fitted, keep_aside, propagate, record_again
from graphprune.graph.weightless import SinglePrecision, on_meta, zeroed
from graphprune.pruning.rates import RATES, Rate, check_indices, kept_table
from graphprune.runs.runtime import evaluating

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


def cost(model: nn.Module, example_input: Any) -> Cost:
    """Multiply-adds and parameters of a network, counted by torch's FlopCounterMode on a weightless copy.

    Args:
        model: any network.
        example_input: what the forward takes: a tensor (B, ...), a tuple, or a dictionary of keywords; B is divided out.

    Raises:
        TypeError: `model` is no module, or compiled, or scripted; or `example_input` no tensor.
        ValueError: `example_input` has no batch, or the network rejects it.

    >>> import torch, graphprune
    >>> cost(graphprune.models.build("resnet20a"), torch.zeros(1, 3, 32, 32)).params
    269722
    """
    inputs = check_input(model, example_input)
    try:
        flops = _flops(on_meta(model), weightless_inputs(inputs))
    except ValueError:
        if any(tensor.is_meta for tensor in (*inputs.tensors, *model.parameters())):
            raise
        flops = _flops(zeroed(model), fitted(inputs, model))  # values decide its shapes
    return Cost(flops // (2 * len(inputs.tensors[0])), _parameters(model))


def check_input(model: nn.Module, example_input: Any) -> Inputs:
    """The example input as the arguments of the forward.

    Raises:
        TypeError, ValueError: as `cost`.
    """
    demand_python(model)
    inputs = as_inputs(example_input)
    first = inputs.tensors[0]
    if first.ndim == 0 or len(first) == 0:
        shape = tuple(first.shape)
        raise ValueError(f"example_input must hold a batch of one input or more, (B, ...), got shape {shape}")
    return inputs


def _parameters(network: nn.Module) -> int:
    return sum(int(parameter.numel()) for parameter in network.parameters())


def _flops(network: nn.Module, inputs: Inputs) -> int:
    """FlopCounterMode's count; attention's fast path and oneDNN's LSTM are switched off, for they would hide the products."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        counting = FlopCounterMode(display=False)
        device = torch.device(inputs.tensors[0].device)
        with naming_bad_input(inputs), counting, torch.no_grad(), evaluating(network), device, SinglePrecision():
            network(*inputs.args, **inputs.kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)
    return counting.get_total_flops()


def paper_flops(model: nn.Module, example_input: Any) -> int:
    """The SACP paper's "FLOPs", which its tables' base figures are: an old counter's unit, for comparison only.

    Multiply-adds of convolutions and linear layers, 4 for each element that a convolution puts out (its batch
    normalisation), and 1 for each element that an average pool reads [found by calculation].

    >>> import torch, graphprune
    >>> paper_flops(graphprune.models.build("resnet56"), torch.zeros(1, 3, 32, 32))
    127931008
    """
    inputs = check_input(model, example_input)
    meta, extra = on_meta(model), 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal extra
        extra += 4 * out.numel() if isinstance(module, nn.modules.conv._ConvNd) else args[0].numel()

    for module in meta.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(count)
    flops = _flops(meta, weightless_inputs(inputs))
    return (flops // 2 + extra) // len(inputs.tensors[0])


def prunable_share(graph: ChannelGraph) -> float:
    """Share of the parameters that lie in a row or a column of some group, so that pruning can reach them.

    Raises:
        ValueError: the graph was not made by `trace`.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> round(350 * prunable_share(graph))  # of 350 parameters: all but the 10 biases of the outputs
    340
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
        example_input: what the forward takes, of the size to count for, or `graph.inputs`. A different size from the one traced
            with is fine. Where the forward needs values (`graph.weightless` is False), it must have them.

    Attributes:
        full: the unpruned network's cost.
        forms: M and P, (2, groups + 1, groups + 1) int64, upper triangular.

    Raises:
        TypeError, ValueError: `example_input` as in `cost`; the graph was not made by `trace`, or costs 2^53 multiply-adds
            or more.

    >>> import torch, graphprune
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), example)
    >>> macs, params = CostModel(graph, example).of_rates(torch.tensor([[0, 0], [5, 5]]))
    >>> bool(macs[0] == CostModel(graph, example).full.macs)
    True
    """

    @torch.inference_mode(False)  # what is recorded must tell when it is written into
    def __init__(self, graph: ChannelGraph, example_input: Any):
        if graph.skeleton is None:
            raise ValueError("graph has no traced network (skeleton): make it with graphprune.trace")
        assert graph.shell is not None
        network = graph.zeroed or graph.shell
        inputs = check_input(network, example_input)
        self.graph = graph
        if graph.weightless:
            inputs = weightless_inputs(inputs)
        elif any(tensor.is_meta for tensor in inputs.tensors):
            raise ValueError("example_input has no values, and the forward needs them: give real tensors, or graph.inputs")
        else:
            inputs = fitted(inputs, network)
        batch = len(inputs.tensors[0])
        with naming_bad_input(inputs):
            recording = record_again(cut(network, {}), inputs, graph.weightless, graph.over_kept)
        keep_aside(graph.skeleton, recording.graph)
        seeds = {(site.tensor, site.dim): site.atoms for site in graph.sites}
        record = propagate(parts_of(graph.shell, recording.graph), recording, seeds, graph.num_atoms).record
        self.full = Cost(_flops(cut(network, {}), inputs) // (2 * batch), _parameters(graph.shell))
        if max(self.full.macs, self.full.params) >= 2**53:
            raise ValueError(f"graph costs {self.full}, 2^53 or more, beyond exact products: use a smaller example_input")
        self.forms = self._quadratic(record.products, batch) + self._linear(record.contractions, batch)
        whole = np.array([*(group.channels for group in graph.groups), 1])
        self.forms[:, -1, -1] += (self.full.macs, self.full.params) - whole @ self.forms @ whole  # what no group touches

    def _quadratic(self, products: dict[str, float], batch: int) -> np.ndarray:
        """M and P of the parameters that are cut: for each the product of its two sizes, linear forms in x."""
        tensors = dict(self.graph.shell.named_parameters(remove_duplicate=False))  # type: ignore[union-attr]
        share = np.array([group.channels for group in self.graph.groups], dtype=np.int64)
        owner = self.graph.owner.numpy()
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
        owner = self.graph.owner.numpy()
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

    def of_rates(self, indices: Tensor, rates: Sequence[Rate] = RATES) -> tuple[Tensor, Tensor]:
        """Cost by rate indices. indices: (B, groups) int64 -> macs (B,), params (B,), int64.

        Args:
            indices: (B, groups) int64, indices into `rates`.
            rates: what the indices index; those of the `RateSpace` they come from (`space.rates`).

        Raises:
            ValueError: a wrong shape or dtype, or an index that `rates` has not.
        """
        check_indices(indices, len(self.graph.groups), len(rates))
        table = kept_table(self.graph, rates).double().numpy().ravel()  # (groups * rates,)
        starts = len(rates) * np.arange(len(self.graph.groups))
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
