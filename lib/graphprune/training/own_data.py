"""Data of one's own as a data set: from tensors, from loaders, from anything that hands out samples by number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphprune.runs import runtime
from graphprune.training.dataset import Dataset
from graphprune.training.objective import CLASSIFICATION, PIXELS, Measure, Objective
from graphprune.training.own_splits import Items, Missing, OwnTensors, Transform, pair_of, scaled
from graphprune.training.splits import Augment, Split


def from_tensors(
    train: tuple[Any, Any],
    val: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
    *,
    augment: Callable[[Tensor], Tensor] | None = None,
    loss: Measure | None = None,
    metric: Measure | None = None,
    num_classes: int | None = None,
    name: str = "own",
    device: str | torch.device | None = None,
) -> Dataset:
    """Tensors or arrays of one's own as a data set that everything here takes: training, search, agent.

    Inputs are taken as they are, so normalise them before; bytes are divided by 255. Targets are classes (int64, (N,)), a
    class for every pixel (int64, (N, H, W)), or anything that a loss of one's own takes.

    Args:
        train, val, test: (inputs, targets) each, (N, ...) and (N, ...). Networks are trained on `train`, chosen on `val` and
            tested once on `test`; whoever needs one that is missing says so.
        augment: changes a batch of training inputs, (B, ...) -> (B, ...); what it draws from torch's generator comes from
            the seed.
        loss: (outputs, targets) -> a number, or (B,) numbers; cross-entropy unless given.
        metric: the same, higher = better; what networks are chosen by, and what stands where accuracy does. The negative
            loss, where there is a loss of one's own and no metric.
        num_classes: outputs of the network; the classes that occur unless given.
        name: for prints and for what is stored.
        device: where all of it is held; else `runtime.device()`.

    Raises:
        TypeError: a split is no pair of tensors or arrays.
        ValueError: inputs and targets, or two splits, do not fit each other, a split is empty, or a class is negative.

    >>> x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 4
    >>> own = from_tensors(train=(x[:16], y[:16]), val=(x[16:], y[16:]))
    >>> own
    Dataset('own': train 16, val 4, no test; inputs 1 x 8 x 8; 4 outputs)
    """
    on = runtime.device(None if device is None else str(device))
    given = {"train": train, "val": val, "test": test}
    pairs = {kind: _pair(kind, pair) for kind, pair in given.items() if pair is not None}
    x, y = pairs["train"]
    for kind, (inputs, targets) in pairs.items():
        if inputs.shape[1:] != x.shape[1:] or targets.shape[1:] != y.shape[1:]:
            own, first = (", ".join(str(tuple(part.shape[1:])) for part in pair) for pair in ((inputs, targets), (x, y)))
            raise ValueError(
                f"{kind}: an input and its target have shapes {own[0]} and {own[1]}, train's {first[0]}, {first[1]}"
            )
    objective = _objective(loss, metric, y)
    if objective.loss is CLASSIFICATION.loss:
        _check_classes({kind: targets for kind, (_, targets) in pairs.items()})
    classes = num_classes or max(_outputs(targets) for _, targets in pairs.values())

    def split(kind: str) -> Split:
        if kind not in pairs:
            return _missing(kind, on, objective)
        inputs, targets = (part.to(on) for part in pairs[kind])
        return OwnTensors((), (), Augment(0, False), on, targets, inputs, augment, objective=objective)

    parts = [split(kind) for kind in given]
    return Dataset(name, parts[0], parts[1], parts[2], classes, tuple(x.shape[1:]), scaled(x[:1]).dtype)


def from_loaders(train: Any, val: Any = None, test: Any = None, **settings: Any) -> Dataset:
    """Loaders of one's own (`torch.utils.data.DataLoader`, or any iterable of batches) as a data set.

    Of a `DataLoader` the data set behind it, its `collate_fn` and its workers are used. The batch size and the order come from
    the recipe and the seed, so that results can be repeated. Loaders of a stream, and other iterables, are read once and held
    in memory.

    Args:
        train, val, test: give batches (inputs, targets), or dictionaries with both.
        settings: as `from_dataset` takes them, but `transform` and `collate`.

    Raises:
        TypeError, ValueError: as `from_dataset`; or a loader has a sampler of its own, which would not be obeyed.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> loader = DataLoader(TensorDataset(torch.rand(12, 3), torch.arange(12) % 2), batch_size=4, shuffle=True)
    >>> from_loaders(loader, num_classes=2)
    Dataset('own': train 12, no val, no test; inputs 3; 2 outputs)
    """
    loaders = {kind: part for kind, part in (("train", train), ("val", val), ("test", test)) if part is not None}
    streams = [kind for kind, loader in loaders.items() if not _has_items(loader)]
    if streams:
        pairs: dict[str, Any] = {kind: _read_all(kind, loader) for kind, loader in loaders.items()}
        for setting in ("workers", "fingerprint"):
            settings.pop(setting, None)
        return from_tensors(**pairs, **settings)
    items = {kind: _behind(kind, loader) for kind, loader in loaders.items()}
    first = loaders["train"]
    settings = {"collate": first.collate_fn, "workers": first.num_workers, **settings}
    return from_dataset(items["train"], items.get("val"), items.get("test"), **settings)


def from_dataset(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    transform: Transform | None = None,
    augment: Transform | None = None,
    loss: Measure | None = None,
    metric: Measure | None = None,
    num_classes: int | None = None,
    name: str = "own",
    fingerprint: str | None = None,
    workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
    device: str | torch.device | None = None,
) -> Dataset:
    """Data sets whose samples are handed out by number: torch's, torchvision's, Hugging Face `datasets`.

    Args:
        train, val, test: `items[i]` is (input, target), or a dictionary with both under a usual name ("image", "label", ...).
            `train` may be a `datasets.DatasetDict` with all of them ("validation" is val).
        transform: changes every input, such as an image to a tensor; images become tensors in [0, 1] unless given.
        augment: changes training inputs after that; what it draws comes from the seed.
        loss, metric, num_classes, name, device: as in `from_tensors`. Without `num_classes`, the classes are asked of the data
            set (`.classes`, features of `datasets`), or else all training samples are read once.
        fingerprint: text that changes when the data do; stored results are known by it. Unless given, all samples are read
            and hashed, once, when something is stored.
        workers: processes that read samples.
        collate: makes a batch of a list of samples; torch's unless given.

    Raises:
        TypeError: a sample is no pair of input and target. ValueError: a data set is empty.

    >>> from torch.utils.data import TensorDataset
    >>> own = from_dataset(TensorDataset(torch.rand(12, 3), torch.arange(12) % 2))
    >>> own
    Dataset('own': train 12, no val, no test; inputs 3; 2 outputs)
    """
    on = runtime.device(None if device is None else str(device))
    if isinstance(train, Mapping):
        known = dict(train)
        train, val, test = (
            next((known[key] for key in keys if key in known), other)
            for keys, other in ((("train",), None), (("validation", "val", "valid"), val), (("test",), test))
        )
    given = {"train": train, "val": val, "test": test}
    for kind, items in given.items():
        _check_items(kind, items)
    x, y = _Pairs(train, transform, None)[0]
    objective = _objective(loss, metric, y[None])
    classes = num_classes or _classes(train, transform, y)

    def split(kind: str) -> Split:
        items = given[kind]
        if items is None:
            return _missing(kind, on, objective)
        pairs = _Pairs(items, transform, augment if kind == "train" else None)
        told = None if fingerprint is None else f"{fingerprint} {kind}"
        batch = collate or torch.utils.data.default_collate
        none = torch.zeros(len(items), 0)
        return Items((), (), Augment(0, False), on, none, pairs, batch, workers, told, classes, objective=objective)

    parts = [split(kind) for kind in given]
    return Dataset(name, parts[0], parts[1], parts[2], classes, tuple(x.shape), scaled(x[None]).dtype)


class _Pairs:
    """Samples as (input, target) tensors."""

    def __init__(self, items: Any, transform: Transform | None, augment: Transform | None) -> None:
        self.items, self.transform, self.augment = items, transform or _as_tensor, augment

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = pair_of(self.items[i])
        x = self.transform(x)
        return self.augment(x) if self.augment else x, torch.as_tensor(y)


def _as_tensor(x: Any) -> Tensor:
    """An input as a tensor; an image as float32 (C, H, W) in [0, 1]."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray | list | tuple | int | float):
        return torch.as_tensor(x)
    from torchvision.transforms.functional import pil_to_tensor

    try:
        return pil_to_tensor(x).float().div_(255)
    except TypeError as error:
        raise TypeError(f"an input is a {type(x).__name__}: give transform=, which makes a tensor of it") from error


def _pair(kind: str, given: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise TypeError(f"{kind} must be (inputs, targets), two tensors or arrays, got {type(given).__name__}")
    try:
        x, y = (torch.as_tensor(part) for part in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{kind} must hold two tensors or arrays: {error}") from error
    if x.ndim < 2 or len(x) != len(y) or not len(x):
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"{kind}: inputs and targets must be (N, ...) and (N, ...) with the same N > 0, got {shapes}")
    return x, y.long() if y.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32) else y


def _objective(loss: Measure | None, metric: Measure | None, targets: Tensor) -> Objective:
    if loss is not None:
        return Objective(loss, metric)
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(
            f"targets of type {targets.dtype} are no classes: give loss=, for several labels an input "
            "torch.nn.functional.binary_cross_entropy_with_logits"
        )
    known = CLASSIFICATION if targets.ndim == 1 else PIXELS
    return known if metric is None else Objective(known.loss, metric)


def _check_classes(targets: Mapping[str, Tensor]) -> None:
    for kind, classes in targets.items():
        if (least := int(classes.min())) < 0:
            raise ValueError(
                f"{kind}: classes are numbered from 0, and a target is {least}; number them anew, or drop those inputs"
            )


def _outputs(targets: Tensor) -> int:
    """Outputs a network needs for these targets: classes, or numbers an input."""
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return targets.shape[1] if targets.ndim > 1 else 1
    return int(targets.max()) + 1


def _missing(kind: str, device: torch.device, objective: Objective) -> Missing:
    return Missing((), (), Augment(0, False), device, torch.zeros(0), kind=kind, objective=objective)


def _check_items(kind: str, items: Any) -> None:
    if items is None and kind != "train":
        return
    if not hasattr(items, "__getitem__") or not hasattr(items, "__len__"):
        wanted = "a data set with samples by number (`__getitem__` and `__len__`); of a stream use from_loaders"
        raise TypeError(f"{kind} must be {wanted}, got {type(items).__name__}")
    if not len(items):
        raise ValueError(f"{kind}: the data set has no sample")


def _classes(items: Any, transform: Transform | None, first: Tensor) -> int:
    """The number of outputs, as the data set says it, or from all its targets."""
    if first.is_floating_point() or first.dtype == torch.bool:
        return _outputs(first[None])
    known = getattr(items, "classes", None)
    if isinstance(known, list | tuple):
        return len(known)
    for feature in (getattr(items, "features", None) or {}).values():
        if isinstance(number := getattr(feature, "num_classes", None), int):
            return number
    pairs = _Pairs(items, transform, None)
    return max(int(pairs[i][1].max()) for i in range(len(items))) + 1


def _has_items(loader: Any) -> bool:
    """Whether a loader reads samples by number from a data set, in batches of its own making."""
    if not isinstance(loader, torch.utils.data.DataLoader) or loader.batch_size is None:
        return False
    return not isinstance(loader.dataset, torch.utils.data.IterableDataset)


def _behind(kind: str, loader: Any) -> Any:
    """The data set that a loader reads."""
    sampler: Any = loader.sampler
    if isinstance(sampler, torch.utils.data.SubsetRandomSampler):
        return torch.utils.data.Subset(loader.dataset, [int(i) for i in sampler.indices])
    plain = (torch.utils.data.SequentialSampler, torch.utils.data.RandomSampler)
    batches = type(loader.batch_sampler) is torch.utils.data.BatchSampler
    if not batches or not isinstance(sampler, plain):
        odd = type(sampler if batches else loader.batch_sampler).__name__
        raise ValueError(
            f"{kind}: the loader's {odd} would not be obeyed, as the order comes from the recipe and the seed; give the "
            "samples wanted as a torch.utils.data.Subset, or a list of batches"
        )
    return loader.dataset


def _read_all(kind: str, loader: Any) -> tuple[Tensor, Tensor]:
    """Everything that a loader gives, in memory."""
    if not hasattr(loader, "__iter__"):
        raise TypeError(f"{kind} must be a DataLoader, or another iterable of batches, got {type(loader).__name__}")
    pairs = [pair_of(batch) for batch in loader]
    if not pairs:
        raise ValueError(f"{kind}: the loader gives no batch")
    return torch.cat([torch.as_tensor(x) for x, _ in pairs]), torch.cat([torch.as_tensor(y) for _, y in pairs])
