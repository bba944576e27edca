"""A data set: three splits, and what a network needs to know of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.training.objective import Objective
from graphprune.training.own_splits import Missing
from graphprune.training.splits import Augment, Split, TensorSplit, stratified


def check_dataset(data: Any) -> None:
    """Raise TypeError unless `data` has splits, and say how it gets them."""
    if not hasattr(data, "train") or isinstance(data, nn.Module):
        raise TypeError(
            f"data is a {type(data).__name__}: make a data set of it with graphprune.data.from_tensors, from_loaders or "
            "from_dataset"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits and what a model needs to know of them.

    Example:
        >>> from graphprune.data import load
        >>> digits = load("digits", device="cpu")
        >>> len(digits.train), len(digits.val), len(digits.test), digits.input_shape
        (1137, 300, 360, (1, 8, 8))
    """

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]  # C, H, W
    dtype: torch.dtype = torch.float32

    def __repr__(self) -> str:
        sizes = [f"{kind} {len(part):,}" for kind, part in self._parts() if not isinstance(part, Missing)]
        sizes += [f"no {kind}" for kind, part in self._parts() if isinstance(part, Missing)]
        shape = " x ".join(map(str, self.input_shape))
        return f"Dataset({self.name!r}: {', '.join(sizes)}; inputs {shape}; {self.num_classes} outputs)"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>"

    def _parts(self) -> list[tuple[str, Split]]:
        return [("train", self.train), ("val", self.val), ("test", self.test)]

    @property
    def objective(self) -> Objective:
        """The loss and the metric of a network on these data."""
        return self.train.objective

    def demand(self, *kinds: str) -> None:
        """Raise ValueError unless there are splits of these kinds: "train", "val", "test"."""
        for kind, part in self._parts():
            if kind in kinds:
                len(part)

    @property
    def mean(self) -> tuple[float, ...]:
        return self.train.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.train.std

    @property
    def augment(self) -> Augment:
        return self.train.augment

    def example(self, batch: int = 1) -> Tensor:
        """Zeros in the shape of `batch` inputs, float32 (batch, C, H, W) on the CPU: what `trace` and `cost` need."""
        return torch.zeros(batch, *self.input_shape, dtype=self.dtype)

    def fingerprint(self) -> str:
        """Short hash of the content, all images and labels, for provenance; see `Split.fingerprint`."""
        parts = [split.fingerprint() for split in (self.train, self.val, self.test)]
        content = (self.name, self.input_shape, self.num_classes, parts)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def for_public_weights(self) -> Dataset:
        """CIFAR-10 for weights that were trained on all 50,000 training images (`models.load_public`).

        An accuracy on images the weights have seen chooses nothing, so validation is a fixed stratified half of the
        10,000 test images, the reported accuracy comes from the other half, and `train` is all 50,000.

        Raises:
            ValueError: another data set.
        """
        parts = (self.train, self.val, self.test)
        if self.name != "cifar10" or len(self.test) != 10_000:
            raise ValueError(f"for_public_weights() needs data.load('cifar10') as loaded; got {self.name!r}")
        train, val, test = (part for part in parts if isinstance(part, TensorSplit))
        images, labels = torch.cat([train.images, val.images]), torch.cat([train.labels, val.labels])
        whole = replace(train, images=images, labels=labels)
        rest, chosen = stratified(test.labels, 5_000)
        return replace(self, train=whole, val=test.take(chosen), test=test.take(rest))
