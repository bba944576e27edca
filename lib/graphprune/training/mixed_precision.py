"""Forward and backward passes in bfloat16, at nearly the speed of float32 on a CPU that has no instructions for it.

Hardware with such instructions multiplies bfloat16 numbers and adds the products up in float32. A CPU without them takes about
ten times as long for convolutions in bfloat16 as in float32 (`benchmarks/bfloat16.py`). There the same sums are made by
widening: inputs become float32, the float32 kernel runs, and its results are rounded to bfloat16. What differs is the order
in which products are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten: Any = torch.ops.aten
PRODUCTS = frozenset(
    operation.default
    for operation in (_aten.convolution, _aten.convolution_backward, _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)
)
"""The operations whose sums of products take nearly all the time of a training."""


@contextmanager
def mixed_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Around a whole step, backward pass included; `torch.autocast` around its forward pass chooses what is in bfloat16.

    Args:
        device: where the network is.
        precision: `Recipe.precision`; nothing happens for "float32".

    >>> x, layer = torch.ones(1, 3), torch.nn.Linear(3, 2)
    >>> with mixed_precision(x.device, "bfloat16"), torch.autocast("cpu", torch.bfloat16):
    ...     layer(x).dtype
    torch.bfloat16
    """
    if precision == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        with Widened():
            yield
    else:
        yield


def has_bfloat16() -> bool:
    """Whether this CPU's convolutions in bfloat16 are made by instructions, as torch's CPU library sees it."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Widened(TorchDispatchMode):
    """Products of bfloat16 tensors are computed in float32, and rounded to bfloat16."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in PRODUCTS or not any(_is_narrow(value) for value in args):
            return func(*args, **(kwargs or {}))
        results = func(*(value.float() if _is_narrow(value) else value for value in args), **(kwargs or {}))
        return tuple(map(_narrow, results)) if isinstance(results, tuple) else _narrow(results)


def _is_narrow(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.bfloat16


def _narrow(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.bfloat16()
