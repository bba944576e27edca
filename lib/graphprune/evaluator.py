"""How good the networks are that many masks leave, before any training: an agent's or a search's question.

The answer for one mask: the network is pruned, its BN statistics are re-estimated on one batch of clean training images
(EagleEye, Li et al. 2020, section 3.2), and it classifies validation images. `MaskEvaluator` gives the same answer in less
time, in one of two ways:

- one at a time: the network is cut without the proof that `prune` repeats for every mask, calibrated, its BN folded into
  the convolutions before it, and the validation images go through in pieces that stay in the processor's cache;
- many at once: the network keeps its full shape, every layer that reads channels sees those of its mask only, and every BN
  takes its statistics from the calibration images of its own mask. One pass, no loop over masks, no smaller products.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from graphprune import layers, movement, runtime, train
from graphprune.copying import named_modules
from graphprune.cutting import cut, kept_classes, kept_places
from graphprune.data import Dataset
from graphprune.graph import ChannelGraph
from graphprune.pruning import check_same, prune
from graphprune.rules import module_base, rule_of

PLAIN = {layers.convolution, layers.linear, layers.batch_norm, layers.channel_select, layers.pooling, layers.reduction}
PLAIN |= {movement.elementwise, movement.flatten, movement.concatenate}
"""What a network may do for the fast ways; in any other, every mask is pruned with proof."""
WEIGHTED = {layers.convolution, layers.linear, layers.batch_norm, layers.channel_select}
MEMORY = 4 * 2**30  # bytes: of the passes that hold many masks
CACHE = 2**19  # elements: 2 MiB of single precision, a core's second cache
CHECKED = 32  # images, of either kind, on which the fast ways are compared with pruning


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
    their order. The fast ways are taken only where the network does nothing but what is in `PLAIN`, and where they agree
    with pruning, in double precision, on two random masks.

    Args:
        model: the traced network; a copy of it is kept, so what happens to it later does not count.
        graph: its `trace`.
        data: `.train` calibrates, `.val` measures; the images that are used are held on the model's device.
        images: how many validation images; None = all.
        calibration: how many training images the BN statistics come from.
        at_once: masks a pass; 1 = one at a time, None = one at a time on a CPU, since a pruned network costs less than a
            whole one and nothing is gained by larger batches (`benchmarks/masks.py`), elsewhere as many as 4 GiB hold,
            at most 256 [not measured on a GPU].
        seed: which training images.

    Attributes:
        at_once: masks a pass, as chosen.
        fallback: why every mask is pruned with proof; empty where it is not.

    Raises:
        ValueError: `images`, `calibration` or `at_once` out of range, or the model fits not the graph or the data.

    >>> evaluator = MaskEvaluator(model, graph, digits)
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
        calibration: int = 128,
        at_once: int | None = None,
        seed: int = 0,
    ) -> None:
        _demand("images", images, 1, len(data.val), "the validation images there are; None takes all")
        _demand("calibration", calibration, 2, len(data.train), "the training images there are; a variance needs 2")
        _demand("at_once", at_once, 1, None, "masks a pass; None chooses")
        check_same(model, graph)
        place = next(model.parameters()).device
        train.check_fits(model, data.val, place)
        self.graph, self._model = graph, copy.deepcopy(model).eval()
        seen, (shown, labels) = (
            next(train.clean_images(data, 1, calibration, seed)).to(place),
            next(data.val.batches(images or len(data.val))),
        )
        self._seen, self._shown, self._labels = _laid_out(seen), _laid_out(shown.to(place)), labels.to(place)
        largest = largest_map(self._model, self._seen[:1])
        self._piece = max(8, CACHE // largest) if place.type == "cpu" else 512
        size = 6 * largest * (len(seen) + len(shown)) * seen.element_size()  # bytes a mask: some maps live side by side
        chosen = 1 if place.type == "cpu" else max(1, min(256, MEMORY // size))
        self.fallback = why_not(self._model, graph)
        self._pairs = [] if self.fallback else foldable(self._model, graph)
        if not self.fallback:
            self.fallback = self._disagreement(together=(at_once or chosen) > 1)
        self.at_once = 1 if self.fallback else at_once or chosen
        self._many = ManyMasks(self._model, graph, len(seen)) if self.at_once > 1 else None

    def __call__(self, kept: Tensor) -> Performance:
        """Accuracy and loss of the networks that the masks leave.

        Args:
            kept: (B, num_atoms) bool, True = kept, on any device.

        Raises:
            ValueError: `kept` has another shape or dtype, or leaves a group without a channel.
        """
        self._check(kept)
        found: list[tuple[float, float]] = []
        for masks in kept.cpu().split(self.at_once):
            with torch.inference_mode():
                logits = self._many(masks, self._seen, self._shown) if self._many else self._alone(masks[0])[None]
                found += zip(*self._measured(logits), strict=True)
        table = torch.tensor(found, dtype=torch.float64).reshape(-1, 2)
        return Performance(table[:, 0].clone(), table[:, 1].clone())

    def _measured(self, logits: Tensor) -> tuple[list[float], list[float]]:
        """(B, n, classes) -> B accuracies and B losses."""
        correct = (logits.argmax(2) == self._labels).double().mean(1)
        labels = self._labels.expand(len(logits), -1)
        losses = F.cross_entropy(logits.flatten(0, 1).double(), labels.flatten(), reduction="none")
        return correct.tolist(), losses.view(labels.shape).mean(1).tolist()

    def _alone(self, mask: Tensor) -> Tensor:
        """(num_atoms,) -> (n, classes)."""
        if self.fallback:
            return pruned(self._model, self.graph, mask, self._seen, self._shown)
        return slim(self._model, self.graph, mask, self._seen, self._shown.split(self._piece), self._pairs)

    def _disagreement(self, together: bool) -> str:
        """Compare the fast ways with pruning on two random masks and few images; empty if they agree."""
        masks, draw = torch.rand(2, self.graph.num_atoms, generator=runtime.seed_generator(0, "masks to check")) < 0.5, 0
        for span in self.graph.slices.values():
            masks[:, span.start + draw % (span.stop - span.start)] = True
            draw += 1
        exact = copy.deepcopy(self._model).double()
        seen, shown = self._seen[:CHECKED].double(), self._shown[:CHECKED].double()
        try:
            with torch.inference_mode():
                right = torch.stack([pruned(exact, self.graph, mask, seen, shown) for mask in masks])
                if together:
                    found = ManyMasks(exact, self.graph, len(seen))(masks, seen, shown)
                else:
                    found = torch.stack([slim(exact, self.graph, mask, seen, (shown,), self._pairs) for mask in masks])
        except Exception as error:  # whatever breaks here is no network for the fast ways
            return f"it fails in double precision ({type(error).__name__}: {error})"
        gap = float((found - right).abs().max() / right.abs().max().clamp(min=1e-300))
        return "" if gap < 1e-6 else f"its outputs differ from the pruned network's, by {gap:.1g} of the largest"

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


# one at a time --------------------------------------------------------------------------------------------------------


def pruned(model: nn.Module, graph: ChannelGraph, mask: Tensor, seen: Tensor, shown: Tensor) -> Tensor:
    """The meaning of it all: prune, re-estimate, look; logits (n, classes) of the images shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="prune removes nothing")
        small = prune(model, graph, graph.unflatten(mask))
    train.calibrate(small, [seen])
    return torch.cat([small(x) for x in shown.split(512)])


def slim(
    model: nn.Module,
    graph: ChannelGraph,
    mask: Tensor,
    seen: Tensor,
    pieces: tuple[Tensor, ...],
    pairs: list[tuple[str, str]],
) -> Tensor:
    """The same without the proof, and with BN folded: w' = a w, b' = a (b - mean) + beta, a = gamma / sqrt(var + eps)."""
    small = cut(model, kept_places(graph, mask))
    train.calibrate(small, [seen])
    for first, second in pairs:
        conv, bn = small.get_submodule(first), small.get_submodule(second)
        assert isinstance(conv, nn.Conv2d) and isinstance(bn, _BatchNorm)
        assert bn.running_mean is not None and bn.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(  # type: ignore[assignment]
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        small.set_submodule(second, nn.Identity())
    return torch.cat([small(x) for x in pieces])


def foldable(model: nn.Module, graph: ChannelGraph) -> list[tuple[str, str]]:
    """The convolutions whose output only a BN layer reads, with that layer; both are called once."""
    modules = named_modules(model)
    nodes = [node for node in nodes_of(graph) if node.op == "call_module"]
    calls = Counter(id(modules[str(node.target)]) for node in nodes)
    found = []
    for node in nodes:
        conv, readers = modules[str(node.target)], list(node.users)
        if not isinstance(conv, nn.Conv2d) or len(readers) != 1 or readers[0].op != "call_module":
            continue
        bn = modules[str(readers[0].target)]
        if isinstance(bn, _BatchNorm) and calls[id(conv)] == calls[id(bn)] == 1:
            found.append((str(node.target), str(readers[0].target)))
    return found


# many at once ---------------------------------------------------------------------------------------------------------


class ManyMasks:
    """A network in its full shape that carries many masks through one pass.

    Pruned channels are still computed, and then hidden from every layer that reads them: x_b <- x_b * m_b for mask b. The
    weights stay the same for all masks, so that the images of all of them are one batch.

    Args:
        model: a network for which `why_not` is empty.
        graph: its trace.
        calibration: how many of a mask's images come first and give its BN statistics.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, calibration: int) -> None:
        self.net, self.graph = copy.deepcopy(model).eval(), graph
        self.stays = torch.empty(0)  # (B, classes + 1) of the pass under way
        modules, place = named_modules(self.net), next(self.net.parameters()).device
        for site in graph.sites:
            if site.dim == 1 and bool((site.atoms >= 0).any()):
                reader = modules[site.tensor.rpartition(".")[0]]
                reader.register_forward_pre_hook(self._hiding(site.atoms.to(place)))
        for path, module in modules.items():
            if isinstance(module, _BatchNorm):
                self.net.set_submodule(path, SplitNorm(module, self, calibration))

    def __call__(self, masks: Tensor, seen: Tensor, shown: Tensor) -> Tensor:
        """(B, num_atoms) -> logits (B, n, classes) of the images shown."""
        classes = torch.stack([kept_classes(self.graph, mask) for mask in masks])
        self.stays = classes.to(seen)
        x = torch.cat([seen, shown]).repeat(len(masks), *[1] * (seen.ndim - 1))
        return self.net(x).unflatten(0, (len(masks), -1))[:, len(seen) :]

    def _hiding(self, atoms: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
        def hide(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            mask = self.stays[:, atoms]  # (B, C)
            rows = inputs[0].unflatten(0, (len(mask), -1))  # (B, images, C, H, W) or (B, images, C)
            return (rows * mask[:, None].unflatten(2, (-1, *[1] * (rows.ndim - 3)))).flatten(0, 1)

        return hide


class SplitNorm(nn.Module):
    """Batch normalisation of each mask's images by the statistics of its calibration images: one multiply-add.

    As torch does, the calibration images themselves are divided by the biased deviation, the others by the unbiased one.
    """

    def __init__(self, bn: _BatchNorm, masks: ManyMasks, calibration: int) -> None:
        super().__init__()
        assert bn.running_var is not None
        self.gamma = bn.weight if bn.affine else torch.ones_like(bn.running_var)
        self.beta = bn.bias if bn.affine else torch.zeros_like(bn.running_var)
        self.eps, self.calibration, self.masks = bn.eps, calibration, [masks]

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(0, (len(self.masks[0].stays), -1))  # (B, images, C, H, W)
        seen, places = rows[:, : self.calibration], [1, *range(3, rows.ndim)]
        variance, mean = torch.var_mean(seen, places, correction=1, keepdim=True)  # (B, 1, C, 1, 1)
        n, shape = seen.numel() // mean.numel(), (-1, *[1] * (rows.ndim - 3))
        share = x.new_ones(rows.shape[1]).view(-1, 1, *shape[1:])
        share[: self.calibration] = (n - 1) / n
        a = (variance * share + self.eps).rsqrt() * self.gamma.view(shape)  # (B, images, C, 1, 1)
        return torch.addcmul(self.beta.view(shape) - mean * a, rows, a).flatten(0, 1)


# which networks -------------------------------------------------------------------------------------------------------


def why_not(model: nn.Module, graph: ChannelGraph) -> str:
    """Why the fast ways are not for this network; empty if they are."""
    if graph.skeleton is None:
        return "the graph has no trace"
    modules = named_modules(model)
    for path, module in modules.items():
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module_base(module) is not _BatchNorm):
            return f"{path} keeps no running statistics, or is a normalisation of its own kind"
    for node in nodes_of(graph):
        op = modules[str(node.target)] if node.op == "call_module" else node.target
        rule = rule_of(op)
        if rule not in PLAIN:
            return f"{node.name} does what only pruning knows of"
        if rule in WEIGHTED and node.op != "call_module":
            return f"{node.name} is a function with weights, no module"
        if rule is layers.convolution and not (module_base(op) is nn.Conv2d and op.groups in (1, op.in_channels)):
            return f"{node.name} is grouped, transposed or not in two dimensions"
    return ""


def nodes_of(graph: ChannelGraph) -> list[fx.Node]:
    assert graph.skeleton is not None
    return [node for node in graph.skeleton.nodes if node.op.startswith("call_")]


def largest_map(model: nn.Module, image: Tensor) -> int:
    """The most numbers that a module puts out for one image, (1, C, H, W)."""
    sizes, probed = [image.numel()], copy.deepcopy(model)

    def note(_module: nn.Module, _inputs: object, out: object) -> None:
        if isinstance(out, Tensor):
            sizes.append(out.numel())

    for module in probed.modules():
        module.register_forward_hook(note)
    with torch.inference_mode():
        probed(image)
    return max(sizes)


def _laid_out(images: Tensor) -> Tensor:
    """Channels last where a CPU gains by it: 1.5 times faster at 32x32 pixels, no faster at 8x8 (ResNets)."""
    last = images.device.type == "cpu" and images.shape[-1] * images.shape[-2] >= 256
    return images.contiguous(memory_format=torch.channels_last) if last else images


def _demand(name: str, value: int | None, least: int, most: int | None, remedy: str) -> None:
    if value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        bounds = f"{least} to {most}" if most is not None else f"at least {least}"
        raise ValueError(f"{name}={value!r}: must be a whole number, {bounds} ({remedy})")
