"""The networks themselves: the papers' sizes, what the tiny one computes by hand, blocks and shortcuts."""

import pytest
import torch
from torch import nn

from graphprune.graph.channel_select import ChannelSelect
from graphprune.training import models
from graphprune.training.networks import VGG, BasicBlock, ResNet, TinyCNN, shortcut_a, shortcut_b


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg16", 14_728_266), ("vgg16_025", 924_186), ("resnet18", 11_173_962), ("resnet56", 855_770), ("resnet56a", 853_018)],
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


def test_option_a_is_the_published_padding() -> None:
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    published = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 32 // 4, 32 // 4))
    assert torch.equal(shortcut_a(16, 32, 2)(x), published)


def test_odd_channels_of_option_a_go_behind() -> None:
    select = shortcut_a(2, 5, 2)
    assert isinstance(select, ChannelSelect)
    assert (select.index.tolist(), select.stride) == ([-1, 0, 1, -1, -1], 2)


def test_option_b_is_a_strided_convolution_of_one_pixel_and_bn() -> None:
    conv, bn = shortcut_b(3, 5, 2)
    assert conv.weight.shape == (5, 3, 1, 1)
    assert (conv.stride, conv.bias, bn.num_features) == ((2, 2), None, 5)


@pytest.mark.parametrize(("channels", "stride", "kind"), [(4, 1, nn.Identity), (4, 2, ChannelSelect), (6, 1, ChannelSelect)])
def test_a_block_has_a_shortcut_where_its_shape_changes(channels: int, stride: int, kind: type[nn.Module]) -> None:
    assert type(BasicBlock(4, channels, stride, shortcut_a).shortcut) is kind


def test_a_block_whose_convolutions_are_zero_is_its_shortcut() -> None:
    block = BasicBlock(2, 2, 1, shortcut_a).eval()
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    x = torch.tensor([[[[1.0]], [[-2.0]]]])
    assert block(x).flatten().tolist() == [1.0, 0.0]  # ReLU after the addition


def test_every_stage_but_the_first_halves_the_resolution() -> None:
    net = ResNet([2, 3, 4], blocks=2, num_classes=5)
    strides = [[block.conv1.stride[0] for block in getattr(net, stage)] for stage in net.stages]
    assert strides == [[1, 1], [2, 1], [2, 1]]
    assert net.linear.weight.shape == (5, 4)


@pytest.mark.parametrize("net", [ResNet([2, 3], 1), VGG(), TinyCNN()])
def test_convolutions_start_with_the_variance_that_relus_keep(net: nn.Module) -> None:
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert convs
    for conv in convs:
        if conv.weight.numel() > 10_000:
            assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.05)
        assert conv.bias is None or not conv.bias.any()
