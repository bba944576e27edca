"""models and networks: the papers' sizes, public weights, shortcuts, names, bad input."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune import data, models
from graphprune.graph.channel_select import ChannelSelect
from graphprune.training.networks import ResNet, shortcut_a


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg16", 14_728_266), ("resnet18", 11_173_962), ("resnet56", 855_770), ("resnet56a", 853_018)],
)
def test_parameter_counts_are_the_papers(name: str, count: int) -> None:
    assert parameters(models.build(name)) == count


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet8", "resnet20", "resnet20a", "tiny_cnn"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_networks_take_digits_and_photographs_and_can_be_traced(name: str, shape: tuple[int, int, int]) -> None:
    model = models.seeded(name, 0, num_classes=7, in_channels=shape[0]).eval()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    assert model(x).shape == (2, 7)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("depth", [8, 14, 20, 110])
@pytest.mark.parametrize("option", ["", "a"])
def test_the_depth_in_a_resnets_name_is_its_weight_layers(depth: int, option: str) -> None:
    model = models.build(f"resnet{depth}{option}")
    on_main_path = [path for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([path for path in on_main_path if "shortcut" not in path]) == depth


def test_tiny_cnn_computes_what_its_four_layers_say() -> None:
    model = models.tiny_cnn().eval()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    for bn in (model.bn1, model.bn2, model.bn3):
        nn.init.zeros_(bn.bias)
        nn.init.constant_(bn.weight, (1 + bn.eps) ** 0.5)  # identity with the initial running statistics
    out = model(torch.ones(1, 1, 1, 1))
    # conv1 0.5; conv2 4 * 0.5 * 0.5 = 1, with the skip 1.5; conv3 4 * 1.5 * 0.5 = 3; fc 3 * 3 * 0.5 + 0.5 = 5
    torch.testing.assert_close(out, torch.full((1, 10), 5.0))


# --- the option-A shortcut --------------------------------------------------------------------------------------------


def test_option_a_is_the_published_padding() -> None:
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    published = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 32 // 4, 32 // 4))
    assert torch.equal(shortcut_a(16, 32, 2)(x), published)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=12), st.integers(1, 3), st.integers(1, 7))
def test_channel_select_gathers_channel_by_channel(index: list[int], stride: int, side: int) -> None:
    x = torch.rand(2, 5, side, side + 1)
    out = ChannelSelect(index, stride)(x)
    for channel, source in enumerate(index):
        expected = x[:, source, ::stride, ::stride] if source >= 0 else torch.zeros_like(x[:, 0, ::stride, ::stride])
        assert torch.equal(out[:, channel], expected)


def test_a_zero_channel_stays_zero_beside_infinities() -> None:
    out = ChannelSelect([-1, 0])(torch.full((1, 1, 1, 1), float("inf")))
    assert out.flatten().tolist() == [0.0, float("inf")]


def test_channel_select_has_nothing_to_learn_or_to_store() -> None:
    select = ChannelSelect([0, -1])
    assert parameters(select) == 0
    assert select.state_dict() == {}


@pytest.mark.parametrize("index", [[], [0, -2], [[0]]])
def test_channel_select_refuses_a_bad_index(index: list[int]) -> None:
    with pytest.raises(ValueError, match="index must list input channels"):
        ChannelSelect(index)


def test_channel_select_refuses_a_bad_stride() -> None:
    with pytest.raises(ValueError, match="stride must be at least 1; got 0"):
        ChannelSelect([0], stride=0)


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
        ("vgg61", "unknown model name 'vgg61'; did you mean vgg16"),
        ("resnet19", "did you mean resnet18"),
        ("resnet18a", "unknown model name 'resnet18a'"),
        ("resnet2", "N = 6n \\+ 2"),
        ("torchvision:resnet19", "did you mean torchvision:resnet18"),
        ("timm:resnet55", "unknown model name 'timm:resnet55'; did you mean timm:resnet5"),
        ("timm:hf-hub:someone/something", "unknown model name"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name)


@pytest.mark.parametrize(("argument", "value"), [("num_classes", 0), ("in_channels", -1), ("in_channels", 1.5)])
def test_sizes_below_one_are_refused(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be an integer of at least 1; got {value}"):
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
