"""data and splits: sizes, fixed stratified splits, crops against torchvision's, bad input."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as F

from graphprune import data
from graphprune.training import splits
from graphprune.training.splits import Augment, TensorSplit, crop_flip, normalise, random_crop_flip, stratified


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def cifar10() -> data.Dataset:
    return data.load("cifar10", device="cpu")


@pytest.fixture(scope="module")
def photos() -> data.Dataset:
    return data.load("imagefolder:imagenette_mini", device="cpu", size=64)


def images_of(split: splits.Split) -> torch.Tensor:
    assert isinstance(split, TensorSplit)
    return split.images


# --- splits -----------------------------------------------------------------------------------------------------------


def test_digits_are_sklearns_split_in_three(digits: data.Dataset) -> None:
    from sklearn.datasets import load_digits

    parts = [digits.train, digits.val, digits.test]
    assert [len(part) for part in parts] == [1137, 300, 360]
    assert (digits.num_classes, digits.input_shape, digits.augment) == (10, (1, 8, 8), Augment(pad=1, flip=False))
    together = torch.cat([images_of(part) for part in parts])
    assert (together.dtype, int(together.max())) == (torch.uint8, 240)
    ours = sorted((together // 15).flatten(1).tolist())
    assert ours == sorted(load_digits().images.reshape(1797, 64).astype(int).tolist())  # every image exactly once


def test_digits_mean_and_std_normalise_them(digits: data.Dataset) -> None:
    x = torch.cat([x for x, _ in digits.train.batches(500)])
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.data())
def test_a_stratified_choice_is_exact_and_fair_to_one_image(labels: list[int], draw: st.DataObject) -> None:
    n = draw.draw(st.integers(1, len(labels) - 1))
    rest, chosen = stratified(torch.tensor(labels), n)
    assert len(chosen) == n
    assert sorted([*rest.tolist(), *chosen.tolist()]) == list(range(len(labels)))
    for c in set(labels):
        fair = n * labels.count(c) / len(labels)
        assert abs([labels[i] for i in chosen.tolist()].count(c) - fair) < 1


def test_a_stratified_choice_never_changes() -> None:
    assert stratified(torch.arange(12) % 3, 6)[1].tolist() == [3, 4, 8, 9, 10, 11]


@pytest.mark.parametrize("n", [0, 4, -1])
def test_a_stratified_choice_of_all_or_none_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n must be in 1 \.\. 3.*got {n}"):
        stratified(torch.tensor([0, 0, 1, 1]), n)


@pytest.mark.data("mnist", "fashion_mnist")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_and_fashion_mnist(name: str) -> None:
    loaded = data.load(name, device="cpu")
    assert [len(part) for part in (loaded.train, loaded.val, loaded.test)] == [55_000, 5_000, 10_000]
    assert (loaded.num_classes, loaded.input_shape) == (10, (1, 28, 28))
    whole = (loaded.train.labels.bincount() + loaded.val.labels.bincount()) * 5_000 / 60_000
    assert float((loaded.val.labels.bincount() - whole).abs().max()) < 1
    pixels = torch.cat([images_of(loaded.train), images_of(loaded.val)]).double() / 255
    assert float(pixels.mean()) == pytest.approx(loaded.mean[0], abs=1e-4)
    assert float(pixels.std()) == pytest.approx(loaded.std[0], abs=1e-4)


@pytest.mark.data("cifar10")
def test_cifar10_is_torchvisions(cifar10: data.Dataset) -> None:
    root = next(path for path in data.runtime.data_dirs() if (path / "cifar-10-batches-py").is_dir())
    reference = torchvision.datasets.CIFAR10(root, train=False)
    assert [len(part) for part in (cifar10.train, cifar10.val, cifar10.test)] == [45_000, 5_000, 10_000]
    assert cifar10.val.labels.bincount().tolist() == [500] * 10
    assert torch.equal(images_of(cifar10.test).permute(0, 2, 3, 1), torch.from_numpy(reference.data))
    assert cifar10.test.labels.tolist() == reference.targets
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    )
    x, _ = next(cifar10.test.batches(4))
    assert torch.equal(x, torch.stack([transform(reference[i][0]) for i in range(4)]))


@pytest.mark.data("cifar10")
def test_public_weights_leave_half_of_the_test_images_to_choose_on(cifar10: data.Dataset) -> None:
    ours = cifar10.for_public_weights()
    assert [len(part) for part in (ours.train, ours.val, ours.test)] == [50_000, 5_000, 5_000]
    assert ours.val.labels.bincount().tolist() == ours.test.labels.bincount().tolist() == [500] * 10
    keys = [{image.numpy().tobytes() for image in images_of(part)} for part in (ours.val, ours.test, cifar10.test)]
    assert len(keys[0] & keys[1]) == 0
    assert keys[0] | keys[1] == keys[2]
    assert ours.fingerprint() != cifar10.fingerprint()


def test_public_weights_are_for_cifar10_only(digits: data.Dataset) -> None:
    with pytest.raises(ValueError, match=r"for_public_weights\(\) needs data.load\('cifar10'\).*'digits'"):
        digits.for_public_weights()


# --- batches and augmentation -----------------------------------------------------------------------------------------


def test_batches_hold_every_image_once_in_order(digits: data.Dataset) -> None:
    batches = list(digits.val.batches(128))
    assert [len(y) for _, y in batches] == [128, 128, 44]
    assert torch.equal(torch.cat([y for _, y in batches]), digits.val.labels)
    expected = (images_of(digits.val).float() / 255 - 0.2873) / 0.3539
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), expected)
    assert [len(y) for _, y in digits.val.batches(128, limit=130)] == [128, 2]


def test_shuffled_batches_are_a_permutation_fixed_by_the_generator(digits: data.Dataset) -> None:
    def run(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = list(digits.train.batches(256, shuffle=True, augment=True, generator=generator(seed)))
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    (x1, y1), (x2, y2), (_, y3) = run(1), run(1), run(2)
    assert torch.equal(x1, x2)
    assert torch.equal(y1, y2)
    assert not torch.equal(y1, y3)
    assert torch.equal(y1.bincount(), digits.train.labels.bincount())


def test_reading_batches_leaves_the_global_generator_alone(digits: data.Dataset) -> None:
    before = torch.get_rng_state()
    list(digits.val.batches(100, shuffle=True, augment=True, generator=generator()))
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(0, 4), st.integers(0, 10_000))
def test_the_crop_is_torchvisions_image_by_image(channels: int, height: int, width: int, pad: int, seed: int) -> None:
    g = generator(seed)
    images = torch.randint(0, 256, (5, channels, height, width), generator=g, dtype=torch.uint8)
    offsets = torch.randint(0, 2 * pad + 1, (5, 2), generator=g)
    flips = torch.rand(5, generator=g) < 0.5
    ours = crop_flip(images, offsets, flips, pad)
    for image, (top, left), flip, got in zip(images, offsets.tolist(), flips.tolist(), ours, strict=True):
        expected = F.crop(F.pad(image, [pad] * 4), top, left, height, width)
        assert torch.equal(got, F.hflip(expected) if flip else expected)


def test_every_shift_and_both_flips_are_drawn_equally_often() -> None:
    n = 9_000
    image = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(n, 1, 3, 3)
    drawn = random_crop_flip(image, Augment(pad=1, flip=True), generator())
    kinds, counts = drawn.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 18
    assert int((counts - n / 18).abs().max()) < 5 * (n / 18) ** 0.5  # five standard deviations of a count
    assert len(random_crop_flip(image, Augment(pad=1, flip=False), generator()).flatten(1).unique(dim=0)) == 9


def test_normalisation_is_totensor_and_normalize() -> None:
    images = torch.randint(0, 256, (3, 3, 5, 5), dtype=torch.uint8, generator=generator())
    expected = [F.normalize(F.to_tensor(F.to_pil_image(i)), data.IMAGENET_MEAN, data.IMAGENET_STD) for i in images]
    assert torch.equal(normalise(images, data.IMAGENET_MEAN, data.IMAGENET_STD), torch.stack(expected))


def test_batches_refuse_bad_arguments_before_any_work(digits: data.Dataset) -> None:
    with pytest.raises(ValueError, match="batch_size=0: must be at least 1"):
        digits.val.batches(0)
    with pytest.raises(ValueError, match="limit=-3: must be at least 1"):
        digits.val.batches(8, limit=-3)
    with pytest.raises(ValueError, match="generator must be a CPU"):
        digits.val.batches(8, shuffle=True)
    with pytest.raises(ValueError, match="generator must be a CPU"):
        digits.val.batches(8, augment=True)


def test_the_fingerprint_follows_the_content(digits: data.Dataset) -> None:
    assert digits.fingerprint() == data.load("digits", device="cpu").fingerprint()
    other = images_of(digits.val).clone()
    other[0, 0, 0, 0] += 1
    assert isinstance(digits.val, TensorSplit)
    assert replace(digits, val=replace(digits.val, images=other)).fingerprint() != digits.fingerprint()


def test_the_example_has_the_shape_of_an_input(digits: data.Dataset) -> None:
    assert torch.equal(digits.example(3), torch.zeros(3, 1, 8, 8))


# --- image folders ----------------------------------------------------------------------------------------------------


@pytest.mark.data("imagenette_mini")
def test_an_image_folder_streams_rgb_batches(photos: data.Dataset) -> None:
    assert [len(part) for part in (photos.train, photos.val, photos.test)] == [180, 20, 100]
    assert (photos.num_classes, photos.input_shape) == (10, (3, 64, 64))
    assert photos.val.labels.bincount().tolist() == [2] * 10
    batches = list(photos.test.batches(64))
    assert [tuple(x.shape) for x, _ in batches] == [(64, 3, 64, 64), (36, 3, 64, 64)]
    assert torch.equal(torch.cat([y for _, y in batches]), photos.test.labels)
    assert isinstance(photos.train, splits.FolderSplit)
    assert isinstance(photos.val, splits.FolderSplit)
    assert not set(photos.train.paths) & set(photos.val.paths)


@pytest.mark.data("imagenette_mini")
def test_an_image_folder_is_augmented_by_the_generator_alone(photos: data.Dataset) -> None:
    state = torch.get_rng_state()
    x1, y1 = next(photos.val.batches(20, shuffle=True, augment=True, generator=generator(3)))
    x2, y2 = next(photos.val.batches(20, shuffle=True, augment=True, generator=generator(3)))
    assert torch.equal(x1, x2)
    assert torch.equal(y1, y2)
    assert not torch.equal(x1, next(photos.val.batches(20))[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.data("imagenette_mini")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_read_what_one_process_reads(photos: data.Dataset) -> None:
    assert isinstance(photos.test, splits.FolderSplit)
    many = replace(photos.test, paths=photos.test.paths * 11, labels=photos.test.labels.repeat(11))
    batches = list(many.batches(100))
    (x, y), repeats = next(photos.test.batches(100)), len(batches)
    assert repeats == 11
    assert all(torch.equal(x, other) and torch.equal(y, labels) for other, labels in batches)


def make_folder(root: Path, *, train: dict[str, int], val: dict[str, int]) -> Path:
    for part, classes in (("train", train), ("val", val)):
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                grey = torch.full((1, 12, 20), 10 * i, dtype=torch.uint8)
                F.to_pil_image(grey).save(root / part / name / f"{i}.png")
    return root


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, train={"a": 6, "b": 6}, val={"a": 2, "b": 1})
    loaded = data.load(f"imagefolder:{folder}", device="cpu", size=8)
    x, y = next(loaded.test.batches(3))
    grey = torch.tensor([0.0, 10.0, 0.0])
    expected = normalise(grey.to(torch.uint8)[:, None, None, None].expand(3, 3, 8, 8), loaded.mean, loaded.std)
    assert torch.equal(x, expected)
    assert y.tolist() == [0, 0, 1]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, train={"a": 6, "b": 6}, val={"a": 1, "b": 1})
    (folder / "val" / "b" / "0.png").write_bytes(b"no image")
    loaded = data.load(f"imagefolder:{folder}", device="cpu", size=8)
    with pytest.raises(ValueError, match=r"val/b/0\.png cannot be read"):
        list(loaded.test.batches(2))


def test_bad_image_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder with train/CLASS"):
        data.load(f"imagefolder:{tmp_path}")
    odd = make_folder(tmp_path / "odd", train={"a": 6, "b": 6}, val={"a": 1})
    with pytest.raises(ValueError, match=r"must hold the same classes; only one of them has \['b'\]"):
        data.load(f"imagefolder:{odd}")
    few = make_folder(tmp_path / "few", train={"a": 2, "b": 3}, val={"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"needs 10 images or more.*got 5"):
        data.load(f"imagefolder:{few}")
    (few / "val" / "b" / "0.png").unlink()
    with pytest.raises(ValueError, match="every class folder needs an image"):
        data.load(f"imagefolder:{few}")


# --- bad input and where data is looked up ----------------------------------------------------------------------------


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown data set name 'cifar'; choose from digits, mnist"):
        data.load("cifar")
    with pytest.raises(ValueError, match="size must be at least 8, for imagefolder:PATH only; got size=32, name='digits'"):
        data.load("digits", size=32)


def test_missing_data_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_DATA", str(tmp_path / "named"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        data.load("cifar100")
    message = str(raised.value)
    assert f"{tmp_path / 'named' / 'cifar-100-python'}, {tmp_path / 'data' / 'cifar-100-python'}" in message
    assert f"torchvision.datasets.CIFAR100('{tmp_path / 'data'}', download=True)" in message
    with pytest.raises(FileNotFoundError, match="elsewhere") as raised:
        data.load("mnist", root=tmp_path / "elsewhere")
    assert "named" not in str(raised.value)  # an explicit root is the only place


@pytest.mark.parametrize(("name", "file"), [("cifar10", "test_batch"), ("mnist", "raw/t10k-images-idx3-ubyte")])
def test_corrupted_data_is_named_and_never_unpickled(tmp_path: Path, name: str, file: str) -> None:
    path = tmp_path / data.LAYOUTS[name].folder / file
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({"data": "anything"}))
    with pytest.raises(ValueError, match=rf"incomplete or corrupted \(.*{file}.*\); delete it, then fetch it with"):
        data.load(name, root=tmp_path)


def test_cifar100_is_read_from_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small folder in CIFAR-100's own format; its checksums stand in for the published ones."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    listed = {}
    for name, n in (("train", 200), ("test", 100)):
        pixels = torch.randint(0, 256, (n, 3072), dtype=torch.uint8, generator=generator(n)).numpy()
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": [i % 100 for i in range(n)]}))
        listed[name] = [[name, data._md5(folder / name)]]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    meta = {"filename": "meta", "key": "fine_label_names", "md5": data._md5(folder / "meta")}
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", listed["train"])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", listed["test"])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "meta", meta)
    monkeypatch.setitem(data.LAYOUTS, "cifar100", replace(data.LAYOUTS["cifar100"], num_val=100))
    loaded = data.load("cifar100", root=tmp_path, device="cpu")
    assert (len(loaded.train), len(loaded.val), len(loaded.test), loaded.num_classes) == (100, 100, 100, 100)
    assert loaded.val.labels.bincount().tolist() == [1] * 100
    assert images_of(loaded.test)[0, 1, 0].tolist() == pixels[0, 1024:1056].tolist()  # green's first row
