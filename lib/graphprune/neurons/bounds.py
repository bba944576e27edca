"""Between which numbers every value of a chain lies: interval propagation from the images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphprune.neurons.chain import Affine, Chain, Score

Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Intervals of a chain on some images.

    Attributes:
        inputs: for each operation the lower and upper bound of what enters it, (B, ...) each.
        outputs: the bounds of the logits, (B, K) each.
        caps: place of a `Score` in the chain -> (B, C, ...): what a score of 0 takes away, u+ or u.
    """

    inputs: tuple[Interval, ...]
    outputs: Interval
    caps: dict[int, Tensor]


def propagate(chain: Chain, images: Tensor, radius: float, program: str) -> Bounds:
    """Intervals of every operation's input, each image given a radius.

    `exact`: they hold for every s in [0, 1]; what follows a score and a ReLU lies in [0, u+]. `published`: they are the
    unpruned network's, as in the authors' code.

    Args:
        images: (B, *input shape) float64. radius: of the box around each image, at least 0.
        program: `published` or `exact`.
    """
    low, high = images - radius, images + radius
    inputs, caps = [], {}
    for place, op in enumerate(chain.operations):
        inputs.append((low, high))
        if isinstance(op, Affine):
            if radius == 0 and bool((low == high).all()):  # without a rounding error in between
                low = high = op(low)
            else:
                middle, spread = op((low + high) / 2), op.absolute((high - low) / 2)
                low, high = middle - spread, middle + spread
        elif isinstance(op, Score):
            caps[place] = high.clamp(min=0) if op.gated or program == "exact" else high
            if program == "exact":
                low = low - caps[place]
            if op.gated:
                low, high = low.relu(), high.relu()
        else:
            low, high = op(low), op(high)
    return Bounds(tuple(inputs), (low, high), caps)
