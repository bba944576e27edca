"""Data of one's own reach training, search and game; what is missing or does not fit is said in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

import graphprune
from graphprune.train import Recipe
from graphprune.training.data import Dataset, from_dataset, from_loaders, from_tensors

RECIPE = Recipe(epochs=1, lr=0.05, batch_size=16)
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.rand(48, 1, 8, 8, generator=GENERATOR), torch.arange(48) % 3
PARTS = {"train": slice(0, 32), "val": slice(32, 40), "test": slice(40, 48)}
TENSORS = {kind: (X[part], Y[part]) for kind, part in PARTS.items()}
SETS = {kind: TensorDataset(*pair) for kind, pair in TENSORS.items()}


def net(outputs: int = 3) -> nn.Module:
    return graphprune.models.seeded("tiny_cnn", 0, num_classes=outputs, in_channels=1)


WAYS = {
    "tensors": lambda: from_tensors(**TENSORS, device="cpu"),
    "arrays": lambda: from_tensors(**{k: (x.numpy(), y.numpy()) for k, (x, y) in TENSORS.items()}, device="cpu"),
    "data sets": lambda: from_dataset(**SETS, device="cpu"),
    "loaders": lambda: from_loaders(**{k: DataLoader(part, 5, shuffle=True) for k, part in SETS.items()}, device="cpu"),
    "batches": lambda: from_loaders(**{k: list(DataLoader(part, 5)) for k, part in SETS.items()}, device="cpu"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_trains_alike(way: str) -> None:
    own = WAYS[way]()
    assert isinstance(own, Dataset)
    assert (len(own.train), len(own.val), len(own.test), own.num_classes, own.input_shape) == (32, 8, 8, 3, (1, 8, 8))
    model, right = net(), net()
    history = graphprune.train.fit(model, own, RECIPE, seed=0, device="cpu", validate=True)
    assert history == graphprune.train.fit(right, WAYS["tensors"](), RECIPE, seed=0, device="cpu", validate=True)
    assert all(a.equal(b) for a, b in zip(model.parameters(), right.parameters(), strict=True))
    assert graphprune.train.evaluate(model, own.test) == graphprune.train.evaluate(right, WAYS["tensors"]().test)


def test_own_data_go_through_importance_search_and_game(tmp_path: Path) -> None:
    own, model = WAYS["data sets"](), net()
    graph = graphprune.trace(model, own.example())
    assert graphprune.importance.taylor(model, graph, own)["conv3"].shape == (3,)
    sizes = {"n_train": 32, "epochs": 1, "n_candidates": 50, "m": 2, "k": 1, "n_jobs": 1}
    result = graphprune.search.sacp(model, graph, own, min_ratio=0.3, light=RECIPE, full=RECIPE, folder=tmp_path, **sizes)
    assert result.best["accuracy_test"] * 8 == pytest.approx(round(result.best["accuracy_test"] * 8))
    env = graphprune.PruningEnv(model, graph, own, 0.5, calibration=16)
    assert env.observation_space.contains(env.reset(seed=0)[0])


def blobs(images: Tensor) -> Tensor:
    """Several labels an image: which of its two halves is bright."""
    return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1).gt(0.5).float()


def both_right(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs > 0) == targets.bool()).all(1).float()


def test_several_labels_an_image_with_a_loss_and_a_metric_of_ones_own(tmp_path: Path) -> None:
    pairs = {kind: (x, blobs(x)) for kind, (x, _) in TENSORS.items()}
    own = from_tensors(**pairs, loss=F.binary_cross_entropy_with_logits, metric=both_right, device="cpu")
    model = net(2)
    graphprune.train.fit(model, own, RECIPE, seed=0, device="cpu")
    found = graphprune.train.evaluate(model, own.val)
    with torch.inference_mode():
        outputs = model(pairs["val"][0])
    assert found.loss == pytest.approx(float(F.binary_cross_entropy_with_logits(outputs, pairs["val"][1])))
    assert found.accuracy == pytest.approx(float(both_right(outputs, pairs["val"][1]).mean()))
    graph = graphprune.trace(model, own.example())
    sizes = {"n_train": 32, "epochs": 1, "n_candidates": 50, "m": 2, "k": 1, "n_jobs": 1}
    result = graphprune.search.sacp(model, graph, own, min_ratio=0.3, light=RECIPE, full=RECIPE, folder=tmp_path, **sizes)
    assert result.best["accuracy_test"] == graphprune.train.evaluate(result.model, own.test).accuracy
    game = graphprune.environment.game(model, graph, own, 0.5, calibration=16)
    judged = game.evaluator(game.settle(game.start(1).kept))
    small = game.prune(game.settle(game.start(1).kept)[0])
    by_hand = graphprune.train.evaluate(small, own.val)
    assert float(judged.loss) == pytest.approx(by_hand.loss, abs=1e-5)
    assert float(judged.accuracy) == by_hand.accuracy


def test_a_class_for_every_pixel() -> None:
    masks = (X[:, 0] > 0.5).long()
    own = from_tensors(train=(X[:32], masks[:32]), val=(X[32:], masks[32:]), device="cpu")
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    history = graphprune.train.fit(model, own, Recipe(epochs=3, lr=0.05, batch_size=8), seed=0, device="cpu", validate=True)
    found = graphprune.train.evaluate(model, own.val)
    with torch.inference_mode():
        share = (model(X[32:]).argmax(1) == masks[32:]).float().mean()
    assert found.accuracy == pytest.approx(float(share), abs=1e-6) == history[-1]["accuracy_val"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert graphprune.prune_to(model, own.example(), macs=0.5, data=own).after.macs > 0


def test_samples_of_hugging_face_and_images() -> None:
    class Rows:
        """What `datasets` gives: dictionaries with PIL images, and features that know the number of classes."""

        class _Feature:
            num_classes = 5

        def __init__(self) -> None:
            self.features = {"image": None, "label": self._Feature()}

        def __len__(self) -> int:
            return 8

        def __getitem__(self, i: int) -> dict[str, object]:
            return {"image": Image.fromarray(np.full((8, 8, 3), 51 * (i % 5), np.uint8)), "label": i % 5}

    own = from_dataset({"train": Rows(), "validation": Rows()}, device="cpu")
    assert repr(own) == "Dataset('own': train 8, val 8, no test; inputs 3 x 8 x 8; 5 outputs)"
    x, y = next(own.train.batches(3))
    assert x[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 0.4])
    assert y.tolist() == [0, 1, 2]
    doubled = from_dataset(Rows(), transform=lambda image: torch.full((2,), 2.0), augment=lambda x: x + 1, device="cpu")
    assert next(doubled.train.batches(1))[0].tolist() == [[3.0, 3.0]]


def test_loaders_of_subsets_and_streams() -> None:
    class Stream(IterableDataset[tuple[Tensor, Tensor]]):
        def __iter__(self):
            yield from zip(X[:8], Y[:8], strict=True)

    part = from_loaders(DataLoader(SETS["train"], 4, sampler=SubsetRandomSampler([4, 2])), num_classes=3, device="cpu")
    assert next(part.train.batches(2))[0].equal(X[[4, 2]])
    assert len(from_loaders(DataLoader(Subset(SETS["train"], range(6)), 4), num_classes=3, device="cpu").train) == 6
    assert len(from_loaders(DataLoader(Stream(), 4), device="cpu").train) == 8
    with pytest.raises(ValueError, match="train: the loader's WeightedRandomSampler would not be obeyed"):
        from_loaders(DataLoader(SETS["train"], 4, sampler=WeightedRandomSampler([1.0] * 32, 5)))


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"train must be \(inputs, targets\), two tensors or arrays, got Tensor"):
        from_tensors(train=X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"train: inputs and targets must be .* got \(48, 1, 8, 8\) and \(3,\)"):
        from_tensors(train=(X, Y[:3]))
    with pytest.raises(ValueError, match="val: an input and its target have shapes"):
        from_tensors(train=(X, Y), val=(X[:, :, :4], Y))
    with pytest.raises(ValueError, match=r"targets of type torch.float32 are no classes: give loss="):
        from_tensors(train=(X, blobs(X)))
    with pytest.raises(TypeError, match="train must be a data set with samples by number"):
        from_dataset(iter([]))
    with pytest.raises(ValueError, match="train: the data set has no sample"):
        from_dataset([])
    with pytest.raises(TypeError, match="an input is a str: give transform="):
        from_dataset([("a", 1)])
    alone = from_tensors(train=TENSORS["train"], device="cpu")
    model = net()
    with pytest.raises(ValueError, match="data has no val split"):
        graphprune.train.evaluate(model, alone)
    with pytest.raises(ValueError, match="data has no val split"):
        graphprune.train.fit(model, alone, RECIPE, seed=0, validate=True)
    graph = graphprune.trace(model, alone.example())
    with pytest.raises(ValueError, match="data has no val split"):
        graphprune.search.sacp(model, graph, alone, min_ratio=0.3, light=RECIPE, full=RECIPE, folder=tmp_path)
    with pytest.raises(ValueError, match="data has no val split"):
        graphprune.PruningEnv(model, graph, alone, 0.5)
    with pytest.raises(ValueError, match="build it with num_classes=3"):
        graphprune.train.evaluate(net(2), from_dataset(SETS["train"], SETS["val"], device="cpu"))


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(ValueError, match="val: classes are numbered from 0, and a target is -1; number them anew"):
        from_tensors(train=(X, Y), val=(X, Y - 1), device="cpu")
    free = from_tensors(train=(X, Y - 1), loss=lambda outputs, targets: F.cross_entropy(outputs, targets, ignore_index=-1))
    assert len(free.train) == 48
