"""The networks themselves: SACP's VGG-16 and ResNets, option-A ResNets, a tiny one to check by hand.

All are built from modules (no functional layers), so a tracer sees each layer by its path, and end in adaptive
pooling, so that one definition takes 8x8 digits as well as 32x32 photographs.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from graphprune.graph.channel_select import ChannelSelect


def shortcut_a(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option A: stride, and pad the new channels with zeros, half of them on either side."""
    before = (out_channels - in_channels) // 2
    after = out_channels - in_channels - before
    return ChannelSelect([-1] * before + list(range(in_channels)) + [-1] * after, stride)


def shortcut_b(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B: 1x1 convolution and BN."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


Shortcut = Callable[[int, int, int], nn.Module]  # in_channels, out_channels, stride


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `shortcut` is used where the shape changes, else identity."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else shortcut(in_channels, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for small images: 3x3 stem without max-pool, one stage of `blocks` basic blocks per width."""

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        shortcut: Shortcut = shortcut_b,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.stages = [f"layer{i + 1}" for i in range(len(widths))]
        channels = widths[0]
        for stage, width in zip(self.stages, widths, strict=True):
            layers = []
            for b in range(blocks):
                stride = 2 if b == 0 and stage != "layer1" else 1
                layers.append(BasicBlock(channels, width, stride, shortcut))
                channels = width
            self.add_module(stage, nn.Sequential(*layers))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)
        _init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.linear(self.flatten(self.pool(x)))


class VGG(nn.Module):
    """VGG-16 for small images: 13 convolutions with bias and BN, one linear layer (14,728,266 parameters).

    Args:
        share: of the channels of every convolution, above 0; 0.25 gives 924,186 parameters.
    """

    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0 = halve the resolution

    def __init__(self, num_classes: int = 10, in_channels: int = 3, share: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for full in self.widths:
            if full:
                width = round(share * full)
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            else:  # ceil_mode changes nothing at 32x32 and lets 8x8 digits through all five
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)
        _init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.pool(self.features(x))))


class TinyCNN(nn.Module):
    """Four layers and one skip: conv1 and conv2 are added up (4 coupled channels), conv3 has 3, fc reads them."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(3)
        self.relu3 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(3, num_classes)
        _init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)) + x)
        x = self.relu3(self.bn3(self.conv3(x)))
        return self.fc(self.flatten(self.pool(x)))


def _init(model: nn.Module) -> None:
    """He et al. 2015, "Delving deep into rectifiers", section 2.2: weights that keep the variance through ReLUs."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
