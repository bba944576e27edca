"""Networks by name, with a seed, and with public weights; bad names and sizes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from graphprune import data, models
from graphprune.training.networks import ResNet


@pytest.mark.parametrize("depth", [8, 14, 20, 110])
@pytest.mark.parametrize("option", ["", "a"])
def test_the_depth_in_a_resnets_name_is_its_weight_layers(depth: int, option: str) -> None:
    model = models.build(f"resnet{depth}{option}")
    on_main_path = [path for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([path for path in on_main_path if "shortcut" not in path]) == depth


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "timm:mobilenetv3_small_050"])
@pytest.mark.filterwarnings("ignore::FutureWarning:timm")
def test_torchvision_and_timm_names_honour_both_sizes(name: str) -> None:
    model = models.build(name, num_classes=7, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


def test_a_replaced_stem_keeps_everything_but_its_input() -> None:
    grey, colour = (models.build("torchvision:resnet18", in_channels=n).conv1 for n in (1, 3))
    assert grey.weight.shape == (64, 1, 7, 7)
    assert (grey.stride, grey.padding, grey.bias) == (colour.stride, colour.padding, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg16_000", "unknown model name 'vgg16_000'; did you mean vgg16"),
        ("vgg61", "unknown model name 'vgg61'; did you mean vgg16"),
        ("resnet19", "did you mean resnet18"),
        ("resnet18a", "unknown model name 'resnet18a'"),
        ("resnet2", "N = 6n \\+ 2"),
        ("torchvision:resnet19", "did you mean torchvision:resnet18"),
        ("timm:resnet55", "unknown model name 'timm:resnet55'; did you mean timm:resnet5"),
        ("timm:hf-hub:someone/something", "unknown model name"),
        ("hf:./no/such/folder", "name='hf:./no/such/folder': must be a folder with an image classifier's config.json"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name)


@pytest.mark.parametrize(("argument", "value"), [("num_classes", 0), ("in_channels", -1), ("in_channels", 1.5)])
def test_sizes_below_one_are_refused(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument}={value}: must be"):
        models.build("resnet8", **{argument: value})


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (models.seeded("resnet8", seed, in_channels=1) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert isinstance(first, ResNet)
    assert isinstance(other, ResNet)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


# --- public weights ---------------------------------------------------------------------------------------------------


@pytest.mark.data("cifar10", "weights")
def test_public_resnet20_classifies_91_73_percent_of_cifar10s_test_images() -> None:
    model = models.load_public("resnet20a")
    assert not model.training
    with torch.inference_mode():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.load("cifar10", device="cpu").test.batches(500))
    assert abs(right / 100 - 91.73) <= 0.01


@pytest.mark.data("weights")
@pytest.mark.parametrize("name", models.PUBLIC_WEIGHTS)
def test_every_public_file_loads(name: str) -> None:
    assert float(models.load_public(name).bn1.running_var.sum()) != 16.0  # not the initial statistics


def test_missing_weights_say_where_they_were_looked_for_and_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        models.load_public("resnet20a", root=tmp_path)
    path = tmp_path / "weights" / "resnet20-12fca82f.th"
    assert f"looked for {path}; fetch it with: curl -L --create-dirs -o {path} https://github.com/" in str(raised.value)


def test_corrupted_weights_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights" / "resnet20-12fca82f.th"
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"resnet20-12fca82f\.th is corrupted.*fetch it with: curl"):
        models.load_public("resnet20a", root=tmp_path)


def test_networks_without_public_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'resnet20'; did you mean resnet20a.*public weights exist for resnet20a, "):
        models.load_public("resnet20")
