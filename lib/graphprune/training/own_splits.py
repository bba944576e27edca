"""Data of one's own: tensors, or anything that hands out samples by number, as splits like those of the built-in sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from graphprune.runs import runtime
from graphprune.runs.description import described
from graphprune.runs.fingerprint import digest
from graphprune.training.splits import Augment, Buffer, Split, TensorSplit

INPUTS = ("pixel_values", "image", "img", "images", "inputs", "x")
TARGETS = ("labels", "label", "fine_label", "targets", "target", "mask", "y")
"""The names under which samples that are dictionaries hold an input and its target."""

Transform = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class OwnTensors(TensorSplit):
    """Inputs and targets of any shape, held whole on the device and taken as they are; uint8 is divided by 255.

    `images` are the inputs (N, ...), `labels` the targets (N, ...).
    """

    change: Transform | None = None

    def fingerprint(self) -> str:
        return digest([super().fingerprint(), described([self.objective, self.change])])[:16]

    def _prepare(
        self, order: Tensor, batch_size: int, settings: Augment | None, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self._raw(order, batch_size):
            x = scaled(x)
            if settings is not None and self.change is not None:
                assert generator is not None
                with runtime.seeded(_drawn(generator), x.device):
                    x = self.change(x)
            yield x, y


@dataclass(frozen=True, eq=False)
class Items(Split):
    """Samples handed out by number: `items[i]` is (input, target) or a dictionary with both.

    What a sample draws at random (augmentation) comes from the seed, whichever process reads it; a pass without augmentation
    draws the same for a sample every time.

    Attributes:
        items: the data set.
        collate: makes a batch of a list of samples.
        workers: processes that read.
        told: what says that two data sets are the same; without it all samples are read and hashed, once.
        labels: (N, 0), for targets come with the samples.
    """

    items: Any
    collate: Callable[[list[Any]], Any]
    workers: int = 0
    told: str | None = None
    classes: int = 0

    @property
    def num_labels(self) -> int:
        return self.classes

    def fingerprint(self) -> str:
        if "_found" not in self.__dict__:
            self.__dict__["_found"] = digest([self.told or self._read(), len(self), described(self.objective)])[:16]
        return str(self.__dict__["_found"])

    def _read(self) -> str:
        """A hash of every sample."""
        pairs = runtime.progress(self.batches(64), "reading the data once", -(-len(self) // 64))
        return digest([digest([x, y]) for x, y in pairs])

    def _content(self) -> tuple[Buffer, ...]:
        return (self.fingerprint().encode(),)

    def _prepare(
        self, order: Tensor, batch_size: int, settings: Augment | None, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        seed = _drawn(generator) if settings is not None and generator is not None else 0
        for x, y in self._batches(order, batch_size, seed):
            yield scaled(x), y

    def _raw(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches(order, batch_size, 0)

    def _batches(self, order: Tensor, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader: Any = torch.utils.data.DataLoader(
            _Seeded(self.items, seed),
            batch_size,
            sampler=order.tolist(),
            num_workers=self.workers if len(order) > 1_000 else 0,  # starting workers takes longer than 1,000 samples
            collate_fn=self.collate,
            generator=torch.Generator(),  # else the loader advances torch's global generator
        )
        for batch in loader:
            x, y = pair_of(batch)
            yield x.to(self.device), y.to(self.device)


class _Seeded(torch.utils.data.Dataset[Any]):
    """A data set whose samples draw their random numbers from a seed and their place alone."""

    def __init__(self, items: Any, seed: int) -> None:
        self.items, self.seed = items, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        with _all_seeded(runtime.seed_generator(self.seed, "sample", i).initial_seed()):
            return self.items[i]


@contextmanager
def _all_seeded(seed: int) -> Iterator[None]:
    """The global randomness of torch, numpy and Python from a seed inside the block, and as it was after it."""
    states = random.getstate(), np.random.get_state()  # others' transforms draw from it
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with runtime.seeded(seed):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@dataclass(frozen=True, eq=False)
class Missing(Split):
    """A split that was not given: whoever needs it is told so."""

    kind: str = field(default="", kw_only=True)

    def __len__(self) -> int:
        self._refuse()

    def fingerprint(self) -> str:
        return "missing"

    def _refuse(self) -> NoReturn:
        raise ValueError(f"data has no {self.kind} split, which this needs: give {self.kind}=(inputs, targets) with the data")

    def _content(self) -> tuple[Buffer, ...]:
        self._refuse()

    def _raw(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        self._refuse()


def scaled(x: Tensor) -> Tensor:
    """Inputs as a network takes them: bytes to [0, 1], double precision to single, all else as it is."""
    if x.dtype == torch.uint8:
        return x.float().div_(255)
    return x.float() if x.dtype in (torch.float64, torch.float16, torch.bfloat16) else x


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Input and target of a batch or sample: (input, target), or a dictionary with both under one of the usual names.

    Raises:
        TypeError: it is neither.

    >>> pair_of({"image": 1, "label": 2})
    (1, 2)
    """
    if isinstance(batch, Mapping):
        x, y = (next((name for name in names if name in batch), None) for names in (INPUTS, TARGETS))
        if x is None or y is None:
            missing, names = ("input", INPUTS) if x is None else ("target", TARGETS)
            raise TypeError(f"a sample with the names {sorted(batch)} has no {missing}: call it one of {', '.join(names)}")
        return batch[x], batch[y]
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    got = f"{len(batch)} parts" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
    raise TypeError(f"a sample must be (input, target), or a dictionary with both, and is {got}")


def _drawn(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))
