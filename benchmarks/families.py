"""Small networks of other packages, by name: what they are called with, and which of their outputs count.

Hugging Face's are made of small configurations, with random weights: nothing is downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Case = tuple[nn.Module, Any, dict[str, Any]]
"""A network; its example; what else `graphprune.trace` takes."""

IMAGE = {"num_labels": 10}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**IMAGE, **WIDE, "image_size": 32, "patch_size": 8}
TEXT = {**WIDE, "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 3, "pad_token_id": 0}
KEYS = {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "use_cache": False}
STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1]}

IMAGES: Mapping[str, dict[str, Any]] = {
    "resnet": {**IMAGE, **STAGES, "embedding_size": 16, "layer_type": "basic"},
    "regnet": {**IMAGE, **STAGES, "embedding_size": 16, "groups_width": 8},
    "convnext": {**IMAGE, **STAGES, "num_stages": 2},
    "convnextv2": {**IMAGE, **STAGES, "num_stages": 2},
    "mobilenet_v1": {**IMAGE, "depth_multiplier": 0.25},
    "mobilenet_v2": {**IMAGE, "depth_multiplier": 0.35},
    "efficientnet": {
        **IMAGE,
        **{"width_coefficient": 0.25, "depth_coefficient": 0.3, "image_size": 32, "hidden_dim": 320, "num_hidden_layers": 16},
    },
    "vit": VISION,
    "deit": VISION,
    "vit_msn": VISION,
    "beit": VISION,
    "dinov2": {**VISION, "mlp_ratio": 2},
    "swin": {
        **IMAGE,
        **{"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": 32, "patch_size": 4},
    },
    "poolformer": {
        **IMAGE,
        **{"hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2]},
        "padding": [2, 1],
    },
    "segformer": {
        **IMAGE,
        **{"hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2]},
        **{"num_attention_heads": [2, 4], "sr_ratios": [2, 1], "mlp_ratios": [2, 2]},
    },
    "mobilevit": {
        **IMAGE,
        **{"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 32, 32, 64], "image_size": 64},
        "num_attention_heads": 4,
    },
}
TEXTS: Mapping[str, dict[str, Any]] = {
    "bert": TEXT,
    "roberta": TEXT,
    "electra": {**TEXT, "embedding_size": 32},
    "albert": {**TEXT, "embedding_size": 16},
    "distilbert": {
        **{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 40, "num_labels": 3},
        "max_position_embeddings": 32,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 40, "n_positions": 32, "num_labels": 3, "pad_token_id": 0},
    "opt": {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32, "use_cache": False},
    "gpt_neox": {**TEXT, "use_cache": False},
    "llama": {**TEXT, **KEYS},
    "mistral": {**TEXT, **KEYS},
    "qwen2": {**TEXT, **KEYS},
    "gemma": {**TEXT, **KEYS},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 40, "num_labels": 3},
}
HUGGING_FACE = [*IMAGES, *TEXTS, "wav2vec2", "hubert", "whisper", "audio-spectrogram-transformer"]


def hugging_face(kind: str) -> Case:
    """A small network of `transformers`, for classification."""
    import transformers

    torch.manual_seed(0)
    auto: Callable[..., Any] = transformers.AutoConfig.for_model
    if kind in IMAGES:
        config = auto(kind, **IMAGES[kind])
        size = IMAGES[kind].get("image_size", 32)
        x: Tensor = torch.randn(2, 3, size, size)
        auto_model = transformers.AutoModelForImageClassification
        model = transformers.DeiTForImageClassification(config) if kind == "deit" else auto_model.from_config(config)
        return model, {"pixel_values": x}, {"outputs": ["logits"]}
    if kind in TEXTS:
        config = auto(kind, **TEXTS[kind])
        ids = torch.randint(3, 40, (2, 12))
        if kind == "t5":
            ids[:, -1], config.decoder_start_token_id = config.eos_token_id, 0
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, {"outputs": ["logits"]}
    audio = {**WIDE, "num_labels": 4}
    if kind in ("wav2vec2", "hubert"):
        sound = {"conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2}
        place = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16}
        config = auto(kind, **audio, **sound, **place, mask_time_prob=0.0)
        given = {"input_values": torch.randn(2, 400)}
    elif kind == "whisper":
        sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "num_mel_bins": 16}
        config = auto(kind, **sizes, max_source_positions=20, num_labels=4, classifier_proj_size=16)
        given = {"input_features": torch.randn(2, 16, 40)}
    else:
        config = auto(kind, **audio, patch_size=8, frequency_stride=8, time_stride=8, max_length=32, num_mel_bins=16)
        given = {"input_values": torch.randn(2, 32, 16)}
    return transformers.AutoModelForAudioClassification.from_config(config), given, {"outputs": ["logits"]}


# other packages -------------------------------------------------------------------------------------------------------

SEGMENTATION = {"unet": "Unet", "fpn": "FPN", "unet++": "UnetPlusPlus", "deeplabv3+": "DeepLabV3Plus"}


def ultralytics(kind: str) -> Case:
    """A detector or classifier, all that it returns."""
    from ultralytics.nn.tasks import ClassificationModel, DetectionModel

    if kind.endswith("cls"):
        return ClassificationModel(f"{kind}.yaml", nc=10, verbose=False), torch.randn(1, 3, 64, 64), {}
    return DetectionModel(f"{kind}.yaml", nc=10, verbose=False), torch.randn(1, 3, 64, 64), {}


def segmentation_models(kind: str) -> Case:
    import segmentation_models_pytorch

    made = getattr(segmentation_models_pytorch, SEGMENTATION[kind])("resnet18", encoder_weights=None, classes=3)
    return made, torch.randn(1, 3, 64, 64), {}


class Detector(nn.Module):
    """A detector of torchvision without what selects and joins boxes by their scores."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.heads = nn.ModuleList([model.head] if hasattr(model, "head") else [model.rpn.head])
        roi = getattr(model, "roi_heads", None)
        self.box = nn.Sequential(roi.box_head, roi.box_predictor) if roi is not None else None

    def forward(self, x: Tensor) -> list[Any]:
        features = list(self.backbone(x).values())
        found: list[Any] = [self.heads[0](features)]
        if self.box is not None:  # each map stands for one region
            found += [self.box(nn.functional.adaptive_avg_pool2d(part, 7)) for part in features]
        return found


def torchvision_tasks(kind: str) -> Case:
    import torchvision

    plain = {"weights": None, "weights_backbone": None, "num_classes": 5}
    if kind in torchvision.models.list_models(module=torchvision.models.segmentation):
        return torchvision.models.get_model(kind, **plain), torch.randn(1, 3, 64, 64), {}
    size = 320 if kind.startswith("ssd") else 128
    return Detector(torchvision.models.get_model(kind, **plain)), torch.randn(1, 3, size, size), {}


def monai(kind: str) -> Case:
    from monai.networks import nets

    x = torch.randn(1, 1, 32, 32)
    if kind == "unet":
        return nets.UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2), num_res_units=2, norm="batch"), x, {}
    return nets.SegResNet(2, init_filters=16, in_channels=1, out_channels=2), x, {}


class Sound(nn.Module):
    """Convolutions over a wave form, then an LSTM if wanted."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        sizes = (1, 32, 32, 64)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv1d(a, b, 9, stride=4), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(sizes))
        )
        self.memory = nn.LSTM(64, 16, batch_first=True, bidirectional=True) if recurrent else None
        self.head = nn.Linear(32 if recurrent else 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x).transpose(1, 2)
        return self.head((self.memory(y)[0] if self.memory else y).mean(1))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head((self.body(first) - self.body(second)).abs())


def own(kind: str) -> Case:
    if kind == "siamese":
        return Siamese(), (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)), {}
    return Sound(kind == "lstm"), torch.randn(2, 1, 800), {}


def geometric(kind: str) -> Case:
    """Three layers over a small graph, of PyTorch Geometric."""
    from torch_geometric.nn import models

    model = getattr(models, kind)(8, 32, num_layers=3, out_channels=4, **({"heads": 4} if kind == "GAT" else {}))
    edges = torch.randint(0, 12, (2, 40), generator=torch.Generator().manual_seed(0))
    return model, (torch.randn(12, 8), edges), {}


PACKAGES: Mapping[str, tuple[Callable[[str], Case], list[str]]] = {
    "transformers": (hugging_face, HUGGING_FACE),
    "ultralytics": (ultralytics, ["yolov8n", "yolo11n", "yolo11n-cls"]),
    "smp": (segmentation_models, [*SEGMENTATION]),
    "torchvision": (
        torchvision_tasks,
        [
            *["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"],
            *["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large"],
        ],
    ),
    "monai": (monai, ["unet", "segresnet"]),
    "own": (own, ["sound", "lstm", "siamese"]),
    "pyg": (geometric, ["GIN", "GCN", "GraphSAGE", "GAT"]),
}


def build(name: str) -> Case:
    """A network by "package:name", random weights, always the same."""
    package, kind = name.split(":")
    torch.manual_seed(0)
    return PACKAGES[package][0](kind)


def names() -> list[str]:
    return [f"{package}:{kind}" for package, (_, kinds) in PACKAGES.items() for kind in kinds]
