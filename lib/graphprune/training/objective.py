"""What a network is trained for and judged by: a loss and a metric, those of classification or one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

Measure = Callable[[Any, Tensor], Tensor]
"""(outputs, targets) -> one number, the mean over the batch, or (B,) numbers, one for each input."""


@dataclass(frozen=True)
class Objective:
    """A loss to go down, and a metric to go up.

    Attributes:
        loss: what training minimises.
        metric: what networks are chosen by, higher = better; stands where accuracy does in every result. The negative loss
            unless given.

    >>> import torch
    >>> squared = Objective(lambda outputs, targets: (outputs - targets).square().mean())
    >>> [float(value) for value in squared.sums(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))]
    [4.0, -4.0]
    """

    loss: Measure
    metric: Measure | None = None

    def mean_loss(self, outputs: Any, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """What a training step minimises, ().

        Raises:
            TypeError: the loss is no tensor of one number a batch or one an input.
        """
        if self == CLASSIFICATION:
            return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
        return _mean("loss", self.loss(outputs, targets), targets)

    def sums(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and metric, each summed over the batch."""
        if self == CLASSIFICATION:
            return F.cross_entropy(outputs, targets, reduction="sum"), self.hits(outputs, targets)
        return self.mean_loss(outputs, targets).double() * len(targets), self.hits(outputs, targets)

    def hits(self, outputs: Any, targets: Tensor) -> Tensor:
        """The metric summed over the batch; of a classifier, how many inputs it classifies correctly."""
        if self == CLASSIFICATION:
            return (outputs.argmax(1) == targets).sum()
        if self.metric is None:
            return -self.mean_loss(outputs, targets).double() * len(targets)
        return _mean("metric", self.metric(outputs, targets), targets).double() * len(targets)


def _mean(name: str, value: Any, targets: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim > 1 or (value.ndim == 1 and len(value) != len(targets)):
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"{name} must return a tensor, () or (B,) = ({len(targets)},), and returned {got}")
    return value.float().mean() if value.ndim else value


def accuracy(outputs: Any, targets: Tensor) -> Tensor:
    """The share of classes (of images, or of pixels: (B, classes, ...) against (B, ...)) that are right, for each input, (B,).

    >>> import torch
    >>> accuracy(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])).tolist()
    [1.0, 0.0]
    """
    right = (outputs.argmax(1) == targets).float()
    return right.flatten(1).mean(1) if right.ndim > 1 else right


CLASSIFICATION = Objective(F.cross_entropy, accuracy)
"""One class an input: cross-entropy, and the share classified correctly."""


def pixel_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy of one class a pixel, the mean over all pixels, ()."""
    return F.cross_entropy(outputs, targets)


PIXELS = Objective(pixel_loss, accuracy)
"""One class a pixel, (B, classes, ...) against (B, ...)."""


def plain(outputs: Any) -> Any:
    """The tensor that counts of what a network returns: `.logits` or "logits" (Hugging Face), "out" (torchvision); else all.

    >>> import torch
    >>> plain({"out": torch.ones(1), "aux": torch.zeros(1)})
    tensor([1.])
    """
    if isinstance(outputs, Mapping):
        return next((outputs[name] for name in ("logits", "out") if name in outputs), outputs)
    return getattr(outputs, "logits", outputs)
