"""Ours: an edge is worth as much as the strongest path from input to output that runs through it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from graphprune.pruning.weight_paths import flow
from graphprune.training.data import Dataset

POWER = 8.0  # chosen on networks of other seeds than those that notebook 06 judges by


def strongest(
    model: nn.Module, data: Dataset | None, strengths: Mapping[str, Tensor], power: float = POWER
) -> dict[str, Tensor]:
    """For every weight (sum over the paths through it of (product of strengths)^power)^(1 / power).

    As `power` grows this becomes the product along the strongest path through the weight; 1 is SynFlow's score of one
    round. A path counts as much as its edges do together, so that the weights of largest score form whole paths.

    Args:
        data: only `data.input_shape` counts.
        strengths: parameter name -> numbers of at least 0 in the weight's shape.
        power: 1 or more.
    Raises:
        ValueError: there is no data, `power` is below 1, there is no path at all, or a layer turns a path negative.
    """
    if data is None:
        raise ValueError("data=None: the rule 'paths' needs the shape of an input; give the data set")
    if not power >= 1:
        raise ValueError(f"power={power!r}: must be at least 1, e.g. {POWER:g}")
    raised = {name: (s / s.max().clamp(min=1e-300)) ** power for name, s in strengths.items()}
    through = flow(model, data.example(), raised)
    if not bool(through.outputs.sum() > 0):
        raise ValueError("strengths: no path from input to output has a strength above 0; prune less, or use another rule")
    if wrong := [name for name, value in through.weights.items() if not bool((value >= 0).all())]:
        raise ValueError(
            f"model: what flows through {wrong[0]!r} is negative or not a number, as some activation or normalisation after it "
            "is not one that maps positive numbers to themselves; use a network with ReLU, or another rule"
        )
    return {name: value ** (1 / power) for name, value in through.weights.items()}
