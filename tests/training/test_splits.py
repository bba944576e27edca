"""Splits by themselves: what their fingerprints hold, and how few files are read to look at one image."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from graphprune import data, train
from graphprune.training import splits
from graphprune.training.splits import Augment, FolderSplit, TensorSplit

CPU = torch.device("cpu")


def tensors(n: int = 1000) -> TensorSplit:
    images = torch.randint(256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    return TensorSplit((0.5,), (0.25,), Augment(1, False), CPU, torch.arange(n) % 10, images)


def folder(root: Path, n: int = 12) -> FolderSplit:
    from torchvision.transforms import functional as F

    paths = tuple(f"{i % 2}/{i}.png" for i in range(n))
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(exist_ok=True)
        F.to_pil_image(torch.full((1, 9, 9), 10 * (i % 20), dtype=torch.uint8)).save(root / path)
    labels = torch.arange(n) % 2
    return FolderSplit(data.IMAGENET_MEAN, data.IMAGENET_STD, Augment(1, True), CPU, labels, root, paths, 8)


@pytest.mark.parametrize("image", [0, 1, 2, 501, 999])
def test_every_pixel_counts(image: int) -> None:
    split = tensors()
    other = split.images.clone()
    other[image, 0, 3, 3] ^= 1
    assert replace(split, images=other).fingerprint() != split.fingerprint()


def test_a_pixel_changed_in_place_counts() -> None:
    split = tensors()
    before = split.fingerprint()
    split.images[501, 0, 3, 3] ^= 1
    changed = split.fingerprint()
    split.labels[3] += 1
    assert len({before, changed, split.fingerprint()}) == 3


def test_the_order_labels_shape_normalisation_and_augmentation_count() -> None:
    split = tensors()
    others = [
        split.take(torch.arange(1000).flip(0)),
        split.take(torch.arange(999)),
        replace(split, labels=split.labels.flip(0)),
        replace(split, images=split.images.view(1000, 1, 2, 8)),
        replace(split, mean=(0.4,)),
        replace(split, std=(0.2,)),
        replace(split, augment=Augment(1, True)),
    ]
    assert len({part.fingerprint() for part in [split, *others]}) == 8
    assert split.take(torch.arange(1000)).fingerprint() == split.fingerprint()


def test_pixels_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    split = tensors()
    before = split.fingerprint()
    monkeypatch.setattr(splits, "_hash", lambda *_: pytest.fail("hashed again"))
    assert split.fingerprint() == before


def test_a_split_on_no_images_has_a_fingerprint() -> None:
    assert tensors(0).fingerprint() != tensors(1).fingerprint()


def test_every_file_counts_by_name_size_and_time(tmp_path: Path) -> None:
    split = folder(tmp_path, 600)
    fresh = replace(split)
    assert fresh.fingerprint() == split.fingerprint()
    file = tmp_path / split.paths[301]
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    later = replace(split).fingerprint()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    larger = replace(split).fingerprint()
    assert len({split.fingerprint(), later, larger, replace(split, size=16).fingerprint()}) == 4


def test_one_image_of_a_folder_is_looked_at_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, opened = folder(tmp_path, 1200), []
    read = splits._Files.__getitem__
    monkeypatch.setattr(splits._Files, "__getitem__", lambda self, i: opened.append(i) or read(self, i))
    loader = torch.utils.data.DataLoader

    def without_workers(*args: object, num_workers: int = 0, **options: object) -> object:
        assert num_workers == 0, "processes were started for one image"
        return loader(*args, num_workers=num_workers, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", without_workers)
    train.check_fits(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), split, CPU)
    assert opened == [0]
