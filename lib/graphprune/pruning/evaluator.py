"""How good the networks are that many masks leave, before any training: an agent's or a search's question.

The answer for one mask: the network is pruned, its BN statistics are re-estimated on one batch of clean training images
(EagleEye, Li et al. 2020, section 3.2), and it classifies validation images. `MaskEvaluator` gives the same answer in less
time, in one of two ways:

- one at a time: the network is cut without the proof that `prune` repeats for every mask;
- many at once: see `graphprune.pruning.many_masks`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model
from graphprune.graph.cutting import cut, kept_places
from graphprune.graph.parts import named_modules
from graphprune.graph.rules import data_movement, layers, normalisation
from graphprune.graph.rules.elementwise import elementwise
from graphprune.graph.rules.operation import tensors
from graphprune.graph.rules.table import module_base, rule_of
from graphprune.pruning.channels import check_same, prune
from graphprune.pruning.many_masks import ManyMasks
from graphprune.runs import runtime, store
from graphprune.runs.description import described
from graphprune.training import train
from graphprune.training.data import Dataset
from graphprune.training.objective import CLASSIFICATION, plain

WEIGHTED = {layers.convolution, layers.linear, normalisation.batch_norm, layers.channel_select}
PLAIN = WEIGHTED | {layers.pooling, layers.reduction}
PLAIN |= {elementwise, data_movement.flatten, data_movement.concatenate}
"""What a network may do if a mask is not to be proven: operations that treat every channel alike, or read all of them."""
MEMORY = 4 * 2**30  # bytes: of the passes that hold many masks
CACHE = 2**19  # elements: 2 MiB of single precision, a core's second cache
CHECKED = 32  # images, of either kind, on which many at once are compared with pruning


@dataclass(frozen=True, eq=False)
class Performance:
    """Of the networks that B masks leave, on the validation images, without any training.

    Attributes:
        accuracy: (B,) float64, the share of images classified correctly.
        loss: (B,) float64, the mean cross-entropy in nats.
    """

    accuracy: Tensor
    loss: Tensor


class MaskEvaluator:
    """How good the networks left by many masks are, without training: BN statistics re-estimated, then validation images.

    A mask's result is that of `prune`, `train.reestimate_bn(small, data, batches=1, batch_size=calibration, seed=seed)` and
    `train.evaluate` on the first `images` of `data.val`, up to rounding. It depends neither on the other masks nor on
    their order. A network that does anything but what is in `PLAIN` is pruned with proof for every mask; many masks at once
    are moreover compared with pruning, on two random masks in double precision, before they are trusted.

    Args:
        model: the traced network; a copy of it is kept, so what happens to it later does not count.
        graph: its `trace`.
        data: `.train` calibrates, `.val` measures; the images that are used are held on the model's device.
        images: how many validation images; None = all.
        calibration: how many training images the BN statistics come from; 128 unless given, or all where there are fewer.
        at_once: masks a pass; 1 = one at a time. None = one at a time on a CPU, where the whole network with many masks took
            twice the time of a pruned one (ResNet-8, 8x8 pixels) to seven times (ResNet-20, 32x32), see benchmarks/masks.py;
            elsewhere as many as 4 GiB hold, at most 256 [not measured on a GPU].
        seed: which training images.

    Attributes:
        at_once: masks a pass, as chosen.
        fallback: why every mask is pruned with proof; empty where it is not.

    Raises:
        ValueError: `images`, `calibration` or `at_once` out of range, or the model fits not the graph or the data.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> evaluator = MaskEvaluator(model, graph, graphprune.data.load("digits"))
    >>> evaluator(torch.ones(1, graph.num_atoms, dtype=torch.bool)).accuracy.shape
    torch.Size([1])
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        data: Dataset,
        *,
        images: int | None = None,
        calibration: int | None = None,
        at_once: int | None = None,
        seed: int = 0,
    ) -> None:
        _demand("images", images, 1, len(data.val), "the validation images there are; None takes all")
        _demand("calibration", calibration, 2, len(data.train), "the training images there are; a variance needs 2")
        _demand("at_once", at_once, 1, float("inf"), "masks a pass; None chooses")
        check_same(model, graph)
        place = next(model.parameters()).device
        train.check_fits(model, data.val, place)
        self.graph, self._model = graph, copy_model(model).eval()
        self._objective = data.objective
        seen = next(train.clean_images(data, 1, calibration or min(128, len(data.train)), seed)).to(place)
        shown, labels = (part.to(place) for part in next(data.val.batches(images or len(data.val))))
        self._seen, self._shown, self._labels = _laid_out(seen), _laid_out(shown), labels
        self.fallback = why_not(self._model, graph)
        largest, on_cpu = largest_map(self._model, seen[:1]), place.type == "cpu"
        self._piece = max(8, CACHE // largest) if on_cpu and not self.fallback else 512
        if at_once is None:
            size = 6 * largest * (len(seen) + len(shown)) * seen.element_size()  # bytes a mask: several maps live side by side
            at_once = 1 if on_cpu else max(1, min(256, MEMORY // size))
        if at_once > 1 and not self.fallback:
            self.fallback = self._disagreement()
        self.at_once = 1 if self.fallback else at_once
        self._many = ManyMasks(self._model, graph, len(seen)) if self.at_once > 1 else None

    @property
    def digest(self) -> str:
        """What its answers depend on beside the network: the images."""
        images = [self._seen, self._shown, self._labels]
        return store.digest(images if self._objective == CLASSIFICATION else [*images, described(self._objective)])

    def __call__(self, kept: Tensor) -> Performance:
        """Accuracy and loss of the networks that the masks leave.

        Args:
            kept: (B, num_atoms) bool, True = kept, on any device.

        Raises:
            ValueError: `kept` has another shape or dtype, or leaves a group without a channel.
        """
        self._check(kept)
        found: list[tuple[float, float]] = []
        for start in range(0, len(kept), self.at_once):
            masks = kept[start : start + self.at_once].cpu()
            with torch.inference_mode():
                logits = self._many(masks, self._seen, self._shown) if self._many else self._alone(masks[0])[None]
                found += zip(*self._measured(logits), strict=True)
        table = torch.tensor(found, dtype=torch.float64).reshape(-1, 2)
        return Performance(table[:, 0].clone(), table[:, 1].clone())

    def network(self, kept: Tensor) -> nn.Module:
        """The network that one mask leaves, as it is judged: pruned, BN statistics re-estimated, in evaluation mode.

        Args:
            kept: (num_atoms,) bool, True = kept.

        Raises:
            ValueError: as `__call__`.
        """
        self._check(kept[None])
        small = pruned(self._model, self.graph, kept.cpu())
        train.calibrate(small, [self._seen])
        return small.eval()

    def _measured(self, logits: Tensor) -> tuple[list[float], list[float]]:
        """(B, n, classes) -> B accuracies and B losses."""
        if self._objective != CLASSIFICATION:
            sums = [self._objective.sums(outputs, self._labels) for outputs in logits]
            return tuple([float(part[i]) / len(self._labels) for part in sums] for i in (1, 0))  # type: ignore[return-value]
        correct, log_p = logits.argmax(2) == self._labels, F.log_softmax(logits.double(), 2)
        losses = -log_p[:, torch.arange(len(self._labels)), self._labels]  # (B, n)
        return correct.double().mean(1).tolist(), losses.mean(1).tolist()

    def _alone(self, mask: Tensor) -> Tensor:
        """(num_atoms,) -> logits (n, classes)."""
        small = pruned(self._model, self.graph, mask) if self.fallback else cut(self._model, kept_places(self.graph, mask))
        train.calibrate(small, [self._seen])
        outputs = [plain(small(x)) for x in self._shown.split(self._piece)]
        if not isinstance(outputs[0], Tensor):
            raise TypeError(
                f"model returns a {type(outputs[0]).__name__}: wrap it in a module that returns the tensor that counts"
            )
        return torch.cat(outputs)

    def _disagreement(self) -> str:
        """Compare many at once with pruning, on two random masks and few images, in double precision; empty if they agree."""
        masks = torch.rand(2, self.graph.num_atoms, generator=runtime.seed_generator(0, "masks to check")) < 0.5
        for span in self.graph.slices.values():
            masks[:, span.start] = True
        exact = copy_model(self._model).double()
        seen, shown = self._seen[:CHECKED].double(), self._shown[:CHECKED].double()
        try:
            with torch.inference_mode():
                found = ManyMasks(exact, self.graph, len(seen))(masks, seen, shown)
                right = torch.empty_like(found)
                for logits, mask in zip(right, masks, strict=True):
                    small = pruned(exact, self.graph, mask)
                    train.calibrate(small, [seen])
                    logits.copy_(small(shown))
        except Exception as error:  # whatever breaks here is no network for many at once
            return f"it fails in double precision ({type(error).__name__}: {error})"
        gap = float((found - right).abs().max() / right.abs().max())
        return "" if gap < 1e-6 else f"hidden channels change its outputs, by {gap:.1g} of the largest"

    def _check(self, kept: Tensor) -> None:
        atoms = self.graph.num_atoms
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.ndim != 2 or kept.shape[1] != atoms:
            got = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise ValueError(f"kept must be a bool tensor of shape (B, {atoms}), one column an atom, got {got}")
        for name, span in self.graph.slices.items():
            empty = ~kept[:, span].any(1)
            if bool(empty.any()):
                row = int(empty.nonzero()[0])
                raise ValueError(f"kept[{row}] keeps no channel of group {name!r}: at least one must stay")


def pruned(model: nn.Module, graph: ChannelGraph, mask: Tensor) -> nn.Module:
    """`prune`, which may also be asked to remove nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="prune removes nothing")
        return prune(model, graph, graph.unflatten(mask), check=False)


# which networks -------------------------------------------------------------------------------------------------------


def why_not(model: nn.Module, graph: ChannelGraph) -> str:
    """Why every mask must be pruned with proof; empty where it need not be."""
    if graph.skeleton is None:
        return "the graph has no trace"
    modules = named_modules(model)
    for path, module in modules.items():
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module_base(module) is not _BatchNorm):
            return f"{path} keeps no running statistics, or is a normalisation of its own kind"
    for node in graph.skeleton.nodes:
        if not node.op.startswith("call_"):
            continue
        op: Any = modules[str(node.target)] if node.op == "call_module" else node.target
        rule = rule_of(op)
        if rule not in PLAIN:
            return f"{node.name} does what only pruning knows of"
        if rule in WEIGHTED and node.op != "call_module":
            return f"{node.name} is a function with weights, no module"
        if rule is layers.convolution and not (module_base(op) is nn.Conv2d and op.groups in (1, op.in_channels)):
            return f"{node.name} is grouped, transposed or not in two dimensions"
    return ""


def largest_map(model: nn.Module, image: Tensor) -> int:
    """The most numbers that a module puts out for one image, (1, C, H, W)."""
    sizes, probed = [image.numel()], copy_model(model)
    for module in probed.modules():
        module.register_forward_hook(lambda _module, _inputs, out: sizes.extend(part.numel() for part in tensors(out)))
    with torch.inference_mode():
        probed(image)
    return max(sizes)


def _laid_out(images: Tensor) -> Tensor:
    """Channels last where a CPU gains by it: ResNet-20 at 32x32 pixels, not ResNet-8 at 8x8; torch lays out (B, C, H, W) so."""
    last = images.ndim == 4 and images.device.type == "cpu" and images.shape[-1] * images.shape[-2] >= 256
    return images.contiguous(memory_format=torch.channels_last) if last else images


def _demand(name: str, value: int | None, least: int, most: float, remedy: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bounds = f"{least} to {most}" if most < float("inf") else f"at least {least}"
        raise ValueError(f"{name}={value!r}: must be a whole number, {bounds} ({remedy})")
