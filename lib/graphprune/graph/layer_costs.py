"""Where a network's multiply-adds are spent, layer by layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graphprune.graph.inputs import Inputs, weightless_inputs
from graphprune.graph.weightless import SinglePrecision, on_meta


def shares_of_layers(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """The share of the multiply-adds that each module does itself, by its path; those it calls are not counted in.

    Empty where the network's forward needs the values of its inputs or weights.

    Args:
        model: a network; its weights are not looked at.
        inputs: what it is called with.

    >>> from graphprune.graph.inputs import as_inputs
    >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    >>> shares_of_layers(model, as_inputs(torch.zeros(1, 4)))
    {'0': 0.8, '2': 0.2}
    """
    meta, given = on_meta(model).eval(), weightless_inputs(inputs)
    counting = FlopCounterMode(display=False)
    try:
        with counting, torch.no_grad(), torch.device("meta"), SinglePrecision():
            meta(*given.args, **given.kwargs)
    except (RuntimeError, NotImplementedError):
        return {}
    whole = counting.get_total_flops()
    prefix = f"{type(meta).__name__}."
    spent = {path.removeprefix(prefix): sum(kinds.values()) for path, kinds in counting.get_flop_counts().items()}
    leaves = {path for path, module in meta.named_modules() if path and not any(True for _ in module.children())}
    return {path: flops / whole for path, flops in spent.items() if path in leaves and flops}
