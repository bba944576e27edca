"""Rankers that look at the pruned networks themselves, before any training, one network after the other.

    Recalibrated   BN statistics re-estimated, then validation accuracy or loss (EagleEye, Li et al. 2020)
    SynFlow        the flow through all weights (Tanaka et al. 2020, arXiv 2006.05467)
    Naswot         how differently images are coded by the ReLUs (Mellor et al. 2021, arXiv 2006.04647)

The last two were made for networks at their initial weights; here the weights are those that pruning leaves of a trained
network [our reading].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from graphprune.encoders.ranker import Ranker
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model
from graphprune.graph.cutting import cut, kept_places
from graphprune.pruning import importance
from graphprune.pruning.evaluator import MaskEvaluator, pruned, why_not
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.window import Score
from graphprune.runs.runtime import evaluating, progress
from graphprune.training import train
from graphprune.training.data import Dataset

aten: Any = torch.ops.aten
RELUS = {aten.relu.default, aten.relu_.default}
LEAST = 1e-6  # an eigenvalue of K_H below counts as that: two images of one code would make the determinant 0


@dataclass(frozen=True, eq=False)
class Recalibrated(Ranker):
    """Validation accuracy, or minus the loss, after BN statistics are re-estimated and before any training.

    Attributes:
        data: `.train` calibrates, `.val` measures.
        measure: "accuracy" or "loss".
        images, calibration, seed: as `MaskEvaluator` takes them.
    """

    data: Dataset
    measure: Literal["accuracy", "loss"] = "accuracy"
    images: int | None = None
    calibration: int | None = None
    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        scores = importance.l1(model, graph)
        evaluate = MaskEvaluator(model, graph, self.data, images=self.images, calibration=self.calibration, seed=self.seed)

        def measured(indices: Tensor) -> Tensor:
            found = evaluate(kept_masks(graph, indices, scores))
            return found.accuracy if self.measure == "accuracy" else -found.loss

        return measured


@dataclass(frozen=True)
class SynFlow(Ranker):
    """The log of the flow through all weights, log sum |theta . dR/dtheta| (Abdelfattah et al. 2021, arXiv 2101.08134).

    R is the sum of the outputs for an input of ones, all parameters replaced by their absolute values and BN bypassed, as in
    the authors' code; summed are the weights of convolutions and linear layers. In double precision, and the log [our
    choice], as the sum grows like the product of all widths.
    """

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        absolute = linearise(model)
        ones = _ones(absolute, graph)
        return score_each(absolute, graph, lambda small: flow(small, ones).log().item(), importance.l1(model, graph))


@dataclass(frozen=True, eq=False)
class Naswot(Ranker):
    """log |det K_H| of the ReLUs' codes of a minibatch (Mellor et al. 2021): large where images are told apart.

    c_i holds for image i which of all N_A rectified units are above 0, and K_H[i, j] = N_A - Hamming(c_i, c_j). BN takes
    the minibatch's own statistics, as in the authors' code, whose networks are in training mode.

    Attributes:
        data: `.train` gives the images, without augmentation.
        images: of the minibatch; 128 in the paper.
        seed: which images.
    """

    data: Dataset
    images: int = 128
    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        batch = next(train.clean_images(self.data, 1, self.images, self.seed)).to(next(model.parameters()).device)
        return score_each(model, graph, lambda small: log_det(codes(small, batch)), importance.l1(model, graph))


def linearise(model: nn.Module) -> nn.Module:
    """A copy in double precision with absolute parameters, whose BN layers let everything through.

    Raises:
        ValueError: a BN layer keeps no running statistics.
    """
    twin = copy_model(model).double().eval()
    for parameter in twin.parameters():
        parameter.data.abs_()
    for path, layer in twin.named_modules():
        if isinstance(layer, _BatchNorm):
            if layer.running_mean is None or layer.running_var is None:
                raise ValueError(f"model: {path} keeps no running statistics, so it cannot be bypassed in evaluation mode")
            layer.running_mean.zero_()
            layer.running_var.fill_(1 - layer.eps)
            if layer.affine:
                layer.weight.data.fill_(1)
                layer.bias.data.zero_()
    return twin


def flow(net: nn.Module, ones: tuple[Tensor, ...]) -> Tensor:
    """sum |theta . dR/dtheta| over the weights of convolutions and linear layers; net: as `linearise` makes it -> ()."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, _ConvNd | nn.Linear)]
    with evaluating(net), torch.enable_grad():
        out = net(*ones)
        gradients = torch.autograd.grad(out.sum(), weights, allow_unused=True)
    parts = [(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
    return torch.stack(parts).sum().detach()


def _ones(model: nn.Module, graph: ChannelGraph) -> tuple[Tensor, ...]:
    """One input of ones, of the shape the graph was traced with."""
    like = next(model.parameters())
    return tuple(like.new_ones(1, *given.shape[1:]) for given in graph.example)


class _Codes(TorchDispatchMode):
    """Which outputs of every ReLU are above 0, in modules and functions alike."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.found.append((out > 0).flatten(1))
        return out


def codes(net: nn.Module, images: Tensor) -> Tensor:
    """Which of the rectified units are above 0, (B, ...) -> (B, N_A) bool; BN normalising by their own statistics.

    The network is left in that mode, its running statistics moved.

    Raises:
        ValueError: the network has no ReLU.
    """
    for layer in net.modules():
        layer.train(isinstance(layer, _BatchNorm))
    with _Codes() as mode, torch.no_grad():
        net(images)
    if not mode.found:
        raise ValueError("model: has no ReLU, whose codes are compared; use another ranker")
    return torch.cat(mode.found, 1)


def log_det(active: Tensor) -> float:
    """log |det K_H| of codes, (B, N_A) bool; eigenvalues below `LEAST` count as that."""
    on, off = active.double(), (~active).double()
    eigenvalues = torch.linalg.eigvalsh(on @ on.T + off @ off.T)
    return eigenvalues.clamp_min(LEAST).log().sum().item()


def score_each(model: nn.Module, graph: ChannelGraph, score: Callable[[nn.Module], float], scores: importance.Scores) -> Score:
    """Score the networks that the best channels by `scores` leave of a model; cut without proof where that is safe."""
    proven = bool(why_not(model, graph))

    def scored(indices: Tensor) -> Tensor:
        masks, found = kept_masks(graph, indices, scores).cpu(), []
        for mask in progress(masks, "networks scored"):
            small = pruned(model, graph, mask) if proven else cut(model, kept_places(graph, mask))
            found.append(score(small))
        return torch.tensor(found, dtype=torch.float64)

    return scored
