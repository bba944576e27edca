"""Data sets by name, or one's own: small ones whole on the device, others streamed; fixed stratified splits.

Splits depend on nothing but the data set, so no run's seed moves an image from one to another: `train` to fit, `val` to
choose, `test` to report once.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphprune.runs import runtime
from graphprune.training.dataset import Dataset
from graphprune.training.objective import Objective
from graphprune.training.own_data import from_dataset, from_loaders, from_tensors
from graphprune.training.splits import Augment, FolderSplit, TensorSplit, stratified

__all__ = ["Augment", "Dataset", "Objective", "from_dataset", "from_loaders", "from_tensors", "load"]


def __dir__() -> list[str]:
    return __all__


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Arrays = tuple[Tensor, Tensor, Tensor, Tensor]  # train images uint8 (N, C, H, W), train labels (N,), test images, labels


@dataclass(frozen=True)
class FileLayout:
    """What is known of a data set before it is read: its folder, its torchvision class, its pixel statistics."""

    folder: str
    loader: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    num_val: int


# CIFAR is normalised by ImageNet's statistics because the public weights are.
LAYOUTS = {
    "digits": FileLayout("", "", (0.2873,), (0.3539,), Augment(1, False), 300),
    "mnist": FileLayout("MNIST", "MNIST", (0.1307,), (0.3081,), Augment(2, False), 5_000),
    "fashion_mnist": FileLayout("FashionMNIST", "FashionMNIST", (0.2860,), (0.3530,), Augment(2, False), 5_000),
    "cifar10": FileLayout("cifar-10-batches-py", "CIFAR10", IMAGENET_MEAN, IMAGENET_STD, Augment(4, True), 5_000),
    "cifar100": FileLayout("cifar-100-python", "CIFAR100", IMAGENET_MEAN, IMAGENET_STD, Augment(4, True), 5_000),
}
IDX_MD5 = {  # torchvision checks the archives only, not the files unpacked from them
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def load(
    name: str, root: str | Path | None = None, device: str | torch.device | None = None, *, size: int | None = None
) -> Dataset:
    """Load a data set by name.

    | name | images | train / val / test |
    |---|---|---|
    | digits | 8x8 grey, scikit-learn's (no file needed), values 0..16 stored as 0..240 | 1,137 / 300 / 360 |
    | mnist, fashion_mnist | 28x28 grey | 55,000 / 5,000 / 10,000 |
    | cifar10, cifar100 | 32x32 colour, ImageNet mean and std | 45,000 / 5,000 / 10,000 |
    | imagefolder:PATH | streamed from PATH/train/CLASS/*, PATH/val/CLASS/* (as ImageNet) | 90 % / 10 % of train; val |

    Args:
        name: as above; PATH is taken as it is, else below the data folders.
        root: data folder in torchvision's layout; else `$GRAPHPRUNE_DATA`, then data/.
        device: where small sets are held and batches appear; else `runtime.device()`.
        size: side of an image folder's images in pixels (224); for no other data set.

    Raises:
        ValueError: a name that is not known, a file that is corrupted, a folder without the layout above.
        FileNotFoundError: the data is nowhere; names the command that fetches it.

    Example:
        >>> load("digits").num_classes
        10
    """
    on = runtime.device(None if device is None else str(device))
    if size is not None and (size < 8 or not name.startswith("imagefolder:")):
        raise ValueError(f"size must be at least 8, for imagefolder:PATH only; got size={size}, name={name!r}")
    folders = [Path(root)] if root is not None else runtime.data_dirs()
    if name.startswith("imagefolder:"):
        return _image_folder(name, folders, on, size or 224)
    if name not in LAYOUTS:
        raise ValueError(f"unknown data set name {name!r}; choose from {', '.join(LAYOUTS)}, imagefolder:PATH")
    layout = LAYOUTS[name]
    images, labels, test_images, test_labels = _digits() if name == "digits" else _torchvision(layout, folders)
    rest, chosen = stratified(labels, layout.num_val)
    whole = TensorSplit(layout.mean, layout.std, layout.augment, on, labels.to(on), images.to(on))
    test = replace(whole, images=test_images.to(on), labels=test_labels.to(on))
    shape = (images.shape[1], images.shape[2], images.shape[3])
    return Dataset(name, whole.take(rest), whole.take(chosen), test, int(labels.max()) + 1, shape)


def _digits() -> Arrays:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images * 15).to(torch.uint8)[:, None]  # exact: 16 levels of grey, 16 * 15 = 240
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    rest, test = stratified(labels, 360)
    return images[rest], labels[rest], images[test], labels[test]


def _torchvision(layout: FileLayout, folders: list[Path]) -> Arrays:
    import torchvision

    root = next((folder for folder in folders if (folder / layout.folder).is_dir()), None)
    if root is None:
        looked = ", ".join(str(folder / layout.folder) for folder in folders)
        raise FileNotFoundError(f"no {layout.loader} data: looked for {looked}; {_fetch(layout, folders[-1])}")
    loader = getattr(torchvision.datasets, layout.loader)
    bad = [file for file, md5 in _checksums(loader, layout).items() if _md5(root / file) != md5]
    if bad:
        what = f"{root / layout.folder} is incomplete or corrupted ({', '.join(bad)})"
        raise ValueError(f"{what}; delete it, then {_fetch(layout, root)}")
    # CIFAR's files are pickles: torchvision, too, unpickles them only after their MD5s have matched.
    return *_tensors(loader(root, train=True)), *_tensors(loader(root, train=False))


def _checksums(loader: Any, layout: FileLayout) -> dict[str, str]:
    if layout.folder.startswith("cifar"):
        files = [*loader.train_list, *loader.test_list, (loader.meta["filename"], loader.meta["md5"])]
        return {f"{layout.folder}/{file}": md5 for file, md5 in files}
    return {file: md5 for file, md5 in IDX_MD5.items() if file.startswith(f"{layout.folder}/")}


def _tensors(part: Any) -> tuple[Tensor, Tensor]:
    images = torch.as_tensor(part.data)  # (N, H, W) grey or (N, H, W, 3)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(part.targets, dtype=torch.int64)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ""


def _fetch(layout: FileLayout, root: Path) -> str:
    code = f"import torchvision; torchvision.datasets.{layout.loader}({str(root)!r}, download=True)"
    return f'fetch it with: python -c "{code}"'


def _image_folder(name: str, folders: list[Path], device: torch.device, size: int) -> Dataset:
    from torchvision.datasets import ImageFolder

    given = Path(name.removeprefix("imagefolder:")).expanduser()
    candidates = [given, *(folder / given for folder in folders)]
    root = next((path for path in candidates if (path / "train").is_dir() and (path / "val").is_dir()), None)
    if root is None:
        looked = ", ".join(dict.fromkeys(map(str, candidates)))
        raise FileNotFoundError(f"name={name!r}: no folder with train/CLASS/* and val/CLASS/* images; looked for {looked}")
    try:
        train, test = ImageFolder(str(root / "train")), ImageFolder(str(root / "val"))
    except FileNotFoundError as error:
        raise ValueError(f"name={name!r}: every class folder needs an image; {error}") from error
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"name={name!r}: train/ and val/ must hold the same classes; only one of them has {odd}")
    if len(train) < 10:
        raise ValueError(f"name={name!r}: train/ needs 10 images or more, a tenth is for validation; got {len(train)}")
    augment = Augment(size // 8, True)

    def split(folder: Any, index: Tensor | None = None) -> FolderSplit:
        samples = folder.samples if index is None else [folder.samples[i] for i in index.tolist()]
        labels = torch.tensor([label for _, label in samples])
        paths = tuple(Path(path).relative_to(root).as_posix() for path, _ in samples)
        return FolderSplit(IMAGENET_MEAN, IMAGENET_STD, augment, device, labels, root, paths, size)

    rest, chosen = stratified(torch.tensor(train.targets), len(train) // 10)
    return Dataset(name, split(train, rest), split(train, chosen), split(test), len(train.classes), (3, size, size))
