"""Splits of a data set, held on the device as uint8 or streamed from files, and augmented there a batch at a time."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.runs import runtime
from graphprune.runs.checks import at_least
from graphprune.training.objective import CLASSIFICATION, Objective

Buffer = bytes | memoryview
"""What a hash is made of."""


@dataclass(frozen=True)
class Augment:
    """Random shift by up to `pad` pixels (pad with black, crop back); with `flip`, a mirror image half of the time."""

    pad: int
    flip: bool


@dataclass(frozen=True, eq=False)
class Split(ABC):
    """One part of a data set; `batches` is the way to read it, however it is stored."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    device: torch.device

    labels: Tensor  # int64 (N,)
    objective: Objective = field(default=CLASSIFICATION, kw_only=True)  # what a network is to do on it

    @property
    def num_labels(self) -> int:
        """Outputs that a classifier of these images needs."""
        return int(self.labels.max()) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A hash of all that the split's batches depend on: images, labels, normalisation, augmentation.

        It is computed once (CIFAR-10's 150 MB of pixels take about a third of a second), and again after a tensor was
        changed in place.
        """
        state = self._state()
        before: tuple[object, str] | None = self.__dict__.get("_fingerprint")
        if before is not None and before[0] == state:
            return before[1]
        about = repr((self.mean, self.std, self.augment)).encode()
        found = _hash(about, *_parts(self.labels), *self._content())
        self.__dict__["_fingerprint"] = state, found  # the dataclass is frozen, what is known of it is not
        return found

    def _state(self) -> object:
        """What differs after a tensor was changed in place."""
        return _version(self.labels)

    @abstractmethod
    def _content(self) -> tuple[Buffer, ...]:
        """What the images depend on, as bytes."""

    @abstractmethod
    def _raw(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images uint8 (B, C, H, W) and labels (B,) in the given order, on the device."""

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | bool | None = None,
        generator: torch.Generator | None = None,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches on the device, every image once.

        Args:
            batch_size: images a batch; the last one holds the rest.
            shuffle: draw the order from `generator`.
            augment: True for the data set's own augmentation, an `Augment` for another, else none.
            generator: CPU generator; required to shuffle or augment, so that a seed gives the same bits everywhere.
            limit: stop after this many images.

        Shapes:
            x float32 (B, C, H, W), y int64 (B,).

        Raises:
            ValueError: a size below 1, or a generator that is missing or not on the CPU.

        Example:
            >>> from graphprune import data
            >>> x, y = next(data.load("digits", device="cpu").val.batches(100))
            >>> x.shape, y.shape
            (torch.Size([100, 1, 8, 8]), torch.Size([100]))
        """
        at_least(1, batch_size=batch_size, limit=1 if limit is None else limit)
        settings = self.augment if augment is True else augment or None
        if (shuffle or settings) and (generator is None or generator.device.type != "cpu"):
            raise ValueError("generator must be a CPU torch.Generator to shuffle or augment: runtime.seed_generator(seed)")
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        return self._prepare(order[:limit], batch_size, settings, generator)

    def _prepare(
        self, order: Tensor, batch_size: int, settings: Augment | None, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._raw(order, batch_size):
            if settings is not None:
                images = random_crop_flip(images, settings, generator)
            yield normalise(images, self.mean, self.std), labels


@dataclass(frozen=True, eq=False)
class TensorSplit(Split):
    """A split held whole on the device."""

    images: Tensor  # uint8 (N, C, H, W)

    def _state(self) -> object:
        return _version(self.labels), _version(self.images)

    def _content(self) -> tuple[Buffer, ...]:
        return _parts(self.images)

    def take(self, index: Tensor) -> "TensorSplit":
        """The images at `index` (N',), in that order."""
        index = index.to(self.device)
        return replace(self, images=self.images[index], labels=self.labels[index])

    def _raw(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in order.to(self.device).split(batch_size):
            yield self.images[index], self.labels[index]


@dataclass(frozen=True, eq=False)
class FolderSplit(Split):
    """A split read from image files batch by batch, each file resized and cropped in the middle to `size`."""

    root: Path
    paths: tuple[str, ...]  # relative to root, with forward slashes
    size: int

    def _content(self) -> tuple[Buffer, ...]:
        """Each file's name, size in bytes and time of change: a folder may be too large to be read for this.

        A copy that does not keep the times counts as another folder: what it says is computed again.
        """
        found = [(self.root / path).stat() for path in self.paths]
        files = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(self.paths, found, strict=True)]
        return (repr((files, self.size)).encode(),)

    def _raw(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader: Any = torch.utils.data.DataLoader(
            _Files(self),
            batch_size,
            sampler=order.tolist(),
            num_workers=runtime.cores() if len(order) > 1_000 else 0,  # starting workers takes longer than 1,000 images
            generator=torch.Generator(),  # else the loader advances torch's global generator
        )
        for images, labels in loader:
            yield images.to(self.device), labels.to(self.device)


class _Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Image files as uint8 (3, size, size): shorter side to 8/7 size, middle cut out, grey ones made RGB."""

    def __init__(self, split: FolderSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from torchvision.datasets.folder import pil_loader
        from torchvision.transforms import functional as F

        path, size = self.split.root / self.split.paths[i], self.split.size
        try:
            image = pil_loader(str(path))
        except OSError as error:
            raise ValueError(f"image file {path} cannot be read ({error}); replace or delete it") from error
        image = F.center_crop(F.resize(image, [size * 8 // 7]), [size, size])
        return F.pil_to_tensor(image), int(self.split.labels[i])


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (B, C, H, W) to float32: scale to [0, 1], subtract `mean`, divide by `std`, a value a channel."""
    mean_, std_ = (torch.tensor(v, device=images.device)[:, None, None] for v in (mean, std))
    return images.float().div_(255).sub_(mean_).div_(std_)


def random_crop_flip(images: Tensor, settings: Augment, generator: torch.Generator | None = None) -> Tensor:
    """Shift and mirror each image of a batch by its own draw from the CPU `generator`.

    Shapes: (B, C, H, W) -> (B, C, H, W), same dtype and device.
    """
    n = len(images)
    offsets = torch.randint(0, 2 * settings.pad + 1, (n, 2), generator=generator)
    flips = torch.rand(n, generator=generator) < (0.5 if settings.flip else 0.0)
    return crop_flip(images, offsets.to(images.device), flips.to(images.device), settings.pad)


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Pad with zeros, cut out the window at `offsets`, mirror where `flips`: one gather, no loop over images.

    Args:
        images: (B, C, H, W).
        offsets: row and column of each window's corner in the padded image, int64 (B, 2) in 0 .. 2 pad.
        flips: bool (B,).
        pad: pixels of zeros on every side.

    Example:
        >>> import torch
        >>> row = torch.tensor([1, 2, 3]).reshape(1, 1, 1, 3)
        >>> crop_flip(row, torch.tensor([[1, 2]]), torch.tensor([True]), pad=1).flatten().tolist()
        [0, 3, 2]
    """
    height, width = images.shape[2:]
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # (B, H)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)  # (B, W)
    index = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)  # (B, H * W) in the padded image
    padded = nn.functional.pad(images, (pad, pad, pad, pad)).flatten(2)
    return padded.gather(2, index[:, None].expand(-1, images.shape[1], -1)).unflatten(2, (height, width))


def stratified(labels: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Split indices so that `n` are chosen and every class has its share of them to within one image.

    The draw orders images by a hash of their index: it needs no seed and no library version can change it.

    Args:
        labels: int64 (N,).
        n: how many to choose, 1 .. N - 1.

    Returns:
        (rest, chosen): sorted indices, int64 (N - n,) and (n,).

    Raises:
        ValueError: `n` outside its range.

    Example:
        >>> import torch
        >>> rest, chosen = stratified(torch.tensor([0, 0, 1, 1]), 2)
        >>> torch.tensor([0, 0, 1, 1])[chosen].tolist()
        [0, 1]
    """
    labels = labels.cpu()
    if not 0 < n < len(labels):
        raise ValueError(f"n must be in 1 .. {len(labels) - 1}, one less than the images there are; got {n}")
    counts = labels.bincount()
    share, remainder = n * counts // len(labels), n * counts % len(labels)
    extra = remainder.argsort(descending=True, stable=True)[: n - int(share.sum())]
    share[extra] += 1
    shuffled = torch.tensor(sorted(range(len(labels)), key=lambda i: hashlib.sha256(b"%d" % i).digest()))
    by_class = [shuffled[labels[shuffled] == c][: int(share[c])] for c in range(len(counts))]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.cat(by_class)] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _parts(tensor: Tensor) -> tuple[Buffer, ...]:
    """A tensor's type and shape, and all its numbers."""
    plain = tensor.detach().cpu().contiguous()
    return f"{plain.dtype} {tuple(plain.shape)}".encode(), plain.view(-1).view(torch.uint8).numpy().data


def _version(tensor: Tensor) -> tuple[int, ...]:
    """Where the numbers are, and how often they were changed in place."""
    return (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)


def _hash(*parts: Buffer) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]
