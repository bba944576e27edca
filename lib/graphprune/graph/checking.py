"""A pruned network run beside its masked twin: the last proof, with numbers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.inputs import Inputs
from graphprune.runs.runtime import evaluating

CHECKED = 1_000_000
"""Parameters up to which `prune` compares by default."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""The largest difference allowed, as a share of the largest output. A forward may compute in single precision within."""


def difference(small: nn.Module, twin: nn.Module, graph: ChannelGraph) -> str | None:
    """Run both on the example in float64, and say where they differ; None if they do not.

    Floating point inputs are drawn anew where the trace did not need their values. What cannot run in float64 runs as it is.

    Args:
        small: the pruned network; it is not changed.
        twin: the masked one; it is not changed.
        graph: the trace.
    """
    assert graph.inputs is not None
    networks = [copy.deepcopy(twin).double().eval(), copy.deepcopy(small).double().eval()]
    try:
        whole = outputs_of(networks[0], graph.inputs, torch.float64)
        dtype = torch.float64
    except Exception:  # something in it is of single precision by its code
        networks, dtype = [copy.deepcopy(twin).eval(), copy.deepcopy(small).eval()], torch.float32
        whole = outputs_of(networks[0], graph.inputs, dtype)
    part = outputs_of(networks[1], graph.inputs, dtype)
    for index, (wanted, found) in enumerate(zip(whole, part, strict=True)):
        if wanted.shape != found.shape or not close(wanted, found, TOLERANCE[dtype]):
            return f"output {index} differs by {largest_difference(wanted, found)}"
    return None


def random_outputs(model: nn.Module, graph: ChannelGraph) -> bool:
    """Whether the outputs on the example depend on the seed of torch's random numbers, as far as the CPU draws them."""
    assert graph.inputs is not None
    first, other = (outputs_of(model, graph.inputs, torch.float32, seed) for seed in (0, 1))
    return any(not close(wanted, found, 1e-6) for wanted, found in zip(first, other, strict=True))


def outputs_of(model: nn.Module, inputs: Inputs, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """The outputs that count, on the example; the generator of the CPU is left as it was."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    draw = torch.Generator().manual_seed(0)
    kind = dtype if dtype is torch.float64 else like.dtype

    def given(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            tensor = (
                torch.randn(tensor.shape, generator=draw, dtype=torch.float64).to(kind) if tensor.is_meta else tensor.to(kind)
            )
        return tensor.to(like.device)

    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        with evaluating(model), torch.no_grad():
            return [out.detach().to("cpu") for out in inputs.mapped(given).call(model)]
    finally:
        torch.default_generator.set_state(state)


def close(wanted: Tensor, found: Tensor, tolerance: float) -> bool:
    if not wanted.is_floating_point() or not wanted.numel():
        return True  # numbers of classes, say: the scores they come from tell
    return bool(torch.allclose(found, wanted, rtol=0, atol=tolerance * max(largest(wanted), 1e-30), equal_nan=True))


def largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def largest_difference(wanted: Tensor, found: Tensor) -> str:
    if wanted.shape != found.shape:
        return f"shape, {tuple(found.shape)} for {tuple(wanted.shape)}"
    return f"{largest(wanted - found):.2g} of {largest(wanted):.2g}"
