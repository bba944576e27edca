"""Networks by name: the paper's VGG-16 and ResNets, ResNets with public CIFAR-10 weights, those of other packages."""

import difflib
import hashlib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from graphprune.graph.channel_select import ChannelSelect
from graphprune.runs import runtime
from graphprune.runs.checks import at_least
from graphprune.training.networks import VGG, ResNet, TinyCNN, shortcut_a, shortcut_b

__all__ = ["NAMES", "PUBLIC_WEIGHTS", "ChannelSelect", "build", "load_huggingface", "load_public", "seeded", "tiny_cnn"]


def __dir__() -> list[str]:
    return __all__


PUBLIC_WEIGHTS = {  # the eight hex digits are the start of the file's sha256
    "resnet20a": "resnet20-12fca82f.th",
    "resnet32a": "resnet32-d509ac18.th",
    "resnet44a": "resnet44-014dd654.th",
    "resnet56a": "resnet56-4bfd9763.th",
}
PUBLIC_SOURCE = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
NAMES = ("vgg16", "resnet18", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", *PUBLIC_WEIGHTS, "tiny_cnn")


def tiny_cnn(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """A four-layer network with one skip, small enough to check its graph by hand.

    Shapes: (B, in_channels, H, W) -> (B, num_classes).

    Example:
        >>> import torch
        >>> tiny_cnn()(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    return TinyCNN(num_classes, in_channels)


def build(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build an untrained network; its initial weights come from torch's global generator (see `seeded`).

    Args:
        name: "vgg16" and "resnet18" (as in SACP: 3x3 stem, no max-pool); "vgg16_025", VGG-16 with a quarter of the
            channels, or another share in hundredths; "resnetN" with N = 6n + 2 (He et al. 2016, section 4.2, with
            option-B shortcuts: "resnet56" is SACP's, "resnet8" suits 8x8 digits); "resnetNa" the same with option-A
            shortcuts, as the public weights have; "tiny_cnn"; "torchvision:NAME"; "timm:NAME"; "hf:NAME", an
            image classifier of Hugging Face by the `config.json` in a folder or on their hub (outputs: `.logits`).
        num_classes: outputs.
        in_channels: channels of the input image.

    Shapes: the network maps (B, in_channels, H, W) -> (B, num_classes).

    Raises:
        ValueError: a name that is not known, or a size below 1.
        ImportError: a "timm:" or "hf:" name where timm or transformers is not installed.

    Example:
        >>> sum(p.numel() for p in build("resnet56").parameters())
        855770
    """
    at_least(1, num_classes=num_classes, in_channels=in_channels)
    if name.startswith("torchvision:"):
        return _torchvision(name.removeprefix("torchvision:"), num_classes, in_channels)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), num_classes, in_channels)
    if name.startswith("hf:"):
        return _huggingface("from_config", name.removeprefix("hf:"), num_classes, in_channels)
    if share := re.fullmatch(r"vgg16(?:_(?!000)(\d{3}))?", name):
        return VGG(num_classes, in_channels, int(share[1] or 100) / 100)
    if name == "resnet18":
        return ResNet((64, 128, 256, 512), 2, shortcut_b, num_classes, in_channels)
    if name == "tiny_cnn":
        return TinyCNN(num_classes, in_channels)
    depth = re.fullmatch(r"resnet(\d+)(a?)", name)
    if depth is None or int(depth[1]) < 8 or (int(depth[1]) - 2) % 6:
        rest = ", vgg16_025, any resnetN or resnetNa with N = 6n + 2, torchvision:NAME, timm:NAME, hf:NAME"
        raise ValueError(_unknown(name, NAMES, f"choose from {', '.join(NAMES)}{rest}"))
    shortcut = shortcut_a if depth[2] else shortcut_b
    return ResNet((16, 32, 64), (int(depth[1]) - 2) // 6, shortcut, num_classes, in_channels)


def seeded(name: str, seed: int, **sizes: int) -> nn.Module:
    """`build(name, **sizes)` with initial weights from `seed`; torch's global generator is left as it was.

    Example:
        >>> import torch
        >>> torch.equal(seeded("resnet8", 1).conv1.weight, seeded("resnet8", 1).conv1.weight)
        True
    """
    with runtime.seeded(seed):
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
        raise ValueError(f"in_channels={in_channels}: the first convolution {path!r} reads {old.in_channels} channels, not 3")
    same: dict[str, Any] = {n: getattr(old, n) for n in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
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


def load_huggingface(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """An image classifier of Hugging Face with the weights that are stored with it, in eval mode.

    Layers whose stored weights have other sizes, such as the head where the classes are others, get new ones: transformers
    says which. Weights are read as safetensors alone.

    Args:
        name: a folder that `save_pretrained` wrote, or a model on their hub.
        num_classes: outputs.
        in_channels: channels of the input image.

    Raises:
        ValueError: there is no such model, it has no weights as safetensors, or it is no image classifier.
        ImportError: transformers is not installed.

    Example:
        >>> load_huggingface("microsoft/resnet-18", num_classes=10)  # doctest: +SKIP
        ResNetForImageClassification(...)
    """
    return _huggingface("from_pretrained", name, num_classes, in_channels).eval()


def _huggingface(how: Literal["from_config", "from_pretrained"], name: str, num_classes: int, in_channels: int) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise ImportError(f"name='hf:{name}' needs transformers: pip install transformers") from error
    try:
        config = AutoConfig.from_pretrained(name, num_labels=num_classes)
        config.num_channels = in_channels
        if how == "from_config":
            return AutoModelForImageClassification.from_config(config)
        return AutoModelForImageClassification.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        wanted = "a folder with an image classifier's config.json, or the name of one on Hugging Face's hub"
        raise ValueError(f"name='hf:{name}': must be {wanted}; {str(error).splitlines()[0]}") from error


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
