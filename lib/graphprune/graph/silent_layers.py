"""Layers that stay though no operation named them, and why: every layer that stays must have a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import fx, nn

from graphprune.graph.parts import Parts, named_modules, named_tensors, unread

IDLE = (
    "the example input does not run it; it stays as it is, and fails on pruned channels if another call runs it: "
    "give an example that takes this branch"
)
"""Why a module stays whose parameters the recorded forward does not read."""

RECURRENT = "a recurrent layer's own state stays, for each step reads all of it"
PASSES, COMPUTES = "it passes on channels that stay", "the forward computes with its weight before it uses it"
"""Why layers stay that no operation named."""


def silent_layers(parts: Parts, skeletons: Sequence[fx.Graph], verdict: Callable[[str], str | None]) -> dict[str, str]:
    """The layers that are in no group and that no operation named: path -> why they stay.

    Args:
        verdict: of a layer or a tensor, why it stays; "" if it does not or has been told, None if it is not known.
    """
    idle = set.intersection(*(unread(parts, skeleton) for skeleton in skeletons))
    found: dict[str, str] = {}
    whole: set[str] = set()  # modules that are one operation
    first = {id(module): path for path, module in reversed(named_modules(parts.root).items())}
    for path, module in named_modules(parts.root).items():
        if first[id(module)] != path or any(path.startswith(f"{above}.") for above in whole):
            continue
        whole |= {path} & parts.modules.keys()
        held = named_tensors(module) if path in whole else module._parameters
        names = [f"{path}.{name}" if path else name for name, tensor in held.items() if isinstance(tensor, nn.Parameter)]
        names = [parts.canonical[name] for name in names]
        weights = [name for name in names if "weight" in name.removeprefix(path) and parts.tensors[name].ndim > 1]
        weights = [] if isinstance(module, nn.LayerNorm | nn.RMSNorm) else weights  # the layer before it tells
        if names and idle.issuperset(names):
            found[path] = IDLE
        elif isinstance(module, nn.RNNBase):
            found[path] = RECURRENT
        elif weights and "" not in (verdicts := [verdict(name) for name in (path, *weights)]):
            found[path] = next(filter(None, verdicts), PASSES if path in whole else COMPUTES)
    return found
