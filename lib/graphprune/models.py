"""Networks by name: the paper's VGG-16 and ResNets, ResNets with public CIFAR-10 weights, torchvision's and timm's.

Every network here is built from modules (no functional layers), so a tracer sees each layer by its path, and ends in
adaptive pooling, so that one definition takes 8x8 digits as well as 32x32 photographs.
"""

import difflib
import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphprune import runtime

PUBLIC_WEIGHTS = {  # the eight hex digits are the start of the file's sha256
    "resnet20a": "resnet20-12fca82f.th",
    "resnet32a": "resnet32-d509ac18.th",
    "resnet44a": "resnet44-014dd654.th",
    "resnet56a": "resnet56-4bfd9763.th",
}
PUBLIC_SOURCE = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
NAMES = ("vgg16", "resnet18", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", *PUBLIC_WEIGHTS, "tiny_cnn")


class ChannelSelect(nn.Module):
    """Gather input channels by index, with zeros where the index is -1; no weights.

    The option-A shortcut (He et al. 2016, "Deep residual learning for image recognition", section 3.3) is one of these:
    it strides, and pads the missing channels with zeros. As a module whose index can be shortened it survives pruning.

    Args:
        index: for every output channel the input channel it copies, or -1 for a channel of zeros.
        stride: spatial step; 2 keeps every second row and column.

    Shapes:
        (B, in, H, W) -> (B, len(index), ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: an index below -1, an empty index, or a stride below 1.

    Example:
        >>> ChannelSelect([-1, 1])(torch.tensor([3.0, 5.0]).reshape(1, 2, 1, 1)).flatten().tolist()
        [0.0, 5.0]
    """

    index: Tensor

    def __init__(self, index: Sequence[int] | Tensor, stride: int = 1) -> None:
        super().__init__()
        index = torch.as_tensor(index, dtype=torch.int64).clone()
        if index.ndim != 1 or index.numel() == 0 or int(index.min()) < -1:
            raise ValueError(f"index must list input channels, -1 for a channel of zeros; got {index.tolist()}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1; got {stride}")
        self.register_buffer("index", index, persistent=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride].index_select(1, self.index.clamp(min=0))
        return x.masked_fill((self.index < 0)[:, None, None], 0)

    def extra_repr(self) -> str:
        return f"out_channels={self.index.numel()}, stride={self.stride}"


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
    """VGG-16 for small images: 13 convolutions with bias and BN, one linear layer (14,728,266 parameters)."""

    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0 = halve the resolution

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in self.widths:
            if width:
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


def tiny_cnn(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """A four-layer network with one skip, small enough to check its graph by hand.

    Shapes: (B, in_channels, H, W) -> (B, num_classes).

    Example:
        >>> tiny_cnn()(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    return TinyCNN(num_classes, in_channels)


def build(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build an untrained network; its initial weights come from torch's global generator (see `seeded`).

    Args:
        name: "vgg16" and "resnet18" (as in SACP: 3x3 stem, no max-pool); "resnetN" with N = 6n + 2 (He et al. 2016,
            section 4.2, with option-B shortcuts: "resnet56" is SACP's, "resnet8" suits 8x8 digits); "resnetNa" the same
            with option-A shortcuts, as the public weights have; "tiny_cnn"; "torchvision:NAME"; "timm:NAME".
        num_classes: outputs.
        in_channels: channels of the input image.

    Shapes: the network maps (B, in_channels, H, W) -> (B, num_classes).

    Raises:
        ValueError: a name that is not known, or a size below 1.
        ImportError: a "timm:" name where timm is not installed.

    Example:
        >>> sum(p.numel() for p in build("resnet56").parameters())
        855770
    """
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{argument} must be an integer of at least 1; got {value!r}")
    if name.startswith("torchvision:"):
        return _torchvision(name.removeprefix("torchvision:"), num_classes, in_channels)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), num_classes, in_channels)
    if name == "vgg16":
        return VGG(num_classes, in_channels)
    if name == "resnet18":
        return ResNet((64, 128, 256, 512), 2, shortcut_b, num_classes, in_channels)
    if name == "tiny_cnn":
        return TinyCNN(num_classes, in_channels)
    depth = re.fullmatch(r"resnet(\d+)(a?)", name)
    if depth is None or int(depth[1]) < 8 or (int(depth[1]) - 2) % 6:
        rest = ", any resnetN or resnetNa with N = 6n + 2, torchvision:NAME, timm:NAME"
        raise ValueError(_unknown(name, NAMES, f"choose from {', '.join(NAMES)}{rest}"))
    shortcut = shortcut_a if depth[2] else shortcut_b
    return ResNet((16, 32, 64), (int(depth[1]) - 2) // 6, shortcut, num_classes, in_channels)


def seeded(name: str, seed: int, **sizes: int) -> nn.Module:
    """`build(name, **sizes)` with initial weights from `seed`; torch's global generator is left as it was.

    Example:
        >>> torch.equal(seeded("resnet8", 1).conv1.weight, seeded("resnet8", 1).conv1.weight)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(name, **sizes)


def _unknown(name: str, choices: Iterable[str], remedy: str) -> str:
    close = difflib.get_close_matches(name, list(choices), n=3)
    return f"unknown model name {name!r}; " + (f"did you mean {' or '.join(close)}? " if close else "") + remedy


def _torchvision(name: str, num_classes: int, in_channels: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        choices = [f"torchvision:{known_name}" for known_name in known]
        raise ValueError(_unknown(f"torchvision:{name}", choices, "see torchvision.models.list_models()"))
    with warnings.catch_warnings():  # googlenet and inception_v3 announce a change of their initial weights
        warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
        model = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    if in_channels != 3:
        _replace_stem(model, in_channels)
    return model


def _replace_stem(model: nn.Module, in_channels: int) -> None:
    """Swap the first convolution for a fresh one that reads `in_channels` channels."""
    path, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels != 3 or old.groups != 1:
        raise ValueError(
            f"in_channels={in_channels}: the first convolution {path!r} reads {old.in_channels} channels, not 3"
        )
    same: dict[str, Any] = {
        n: getattr(old, n) for n in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    model.set_submodule(path, nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **same))


def _timm(name: str, num_classes: int, in_channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"name='timm:{name}' needs timm: pip install timm") from error
    if not timm.is_model(name):  # also keeps out names that would be fetched from a hub
        choices = [f"timm:{known_name}" for known_name in timm.list_models()]
        raise ValueError(_unknown(f"timm:{name}", choices, "see timm.list_models()"))
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)


def load_public(name: str, root: str | Path | None = None) -> nn.Module:
    """A ResNet with the public CIFAR-10 weights of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2), in eval mode.

    They saw all 50,000 training images, normalised with ImageNet's mean and standard deviation, and reach 91.73 /
    92.63 / 93.10 / 93.39 % on the 10,000 test images (resnet20a / 32a / 44a / 56a).

    Args:
        name: "resnet20a", "resnet32a", "resnet44a" or "resnet56a".
        root: data folder that holds weights/NAME.th; else `$GRAPHPRUNE_DATA`, then data/.

    Raises:
        ValueError: a name without public weights, or a file that is not the published one.
        FileNotFoundError: no such file; says where it was looked for and how to get it.

    Example:
        >>> load_public("resnet20a").linear  # doctest: +SKIP
        Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in PUBLIC_WEIGHTS:
        raise ValueError(_unknown(name, PUBLIC_WEIGHTS, f"public weights exist for {', '.join(PUBLIC_WEIGHTS)}"))
    path = _weights_file(PUBLIC_WEIGHTS[name], root)
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.split("-")[1]):
        raise ValueError(f"weights file {path} is corrupted (its sha256 is not the one in its name); {_fetch(path)}")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = build(name)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()


def _weights_file(file: str, root: str | Path | None) -> Path:
    folders = [Path(root)] if root is not None else runtime.data_dirs()
    paths = [folder / "weights" / file for folder in folders]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no weights file {file}: looked for {', '.join(map(str, paths))}; {_fetch(paths[-1])}")
    return found


def _fetch(path: Path) -> str:
    return f"fetch it with: curl -L --create-dirs -o {path} {PUBLIC_SOURCE}/{path.name}"
