"""How well the classes stand apart in a pruned network's features, before any training.

BN statistics are re-estimated on training images, as in EagleEye (Li et al. 2020); of the same images' features, what the
last linear layer reads, each class's mean is taken; and validation images are classified by the nearest mean [ours]. The
linear layer itself, which fine-tuning mends first, has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.encoders.ranker import Ranker
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model
from graphprune.pruning import importance
from graphprune.pruning.window import Score
from graphprune.ranking.proxies import score_each
from graphprune.runs import runtime
from graphprune.training import train
from graphprune.training.data import Dataset


@dataclass(frozen=True, eq=False)
class ClassMeans(Ranker):
    """Validation accuracy of the nearest class mean, after BN statistics are re-estimated and without any training.

    Takes a network for every configuration, some 50 ms on one core for ResNet-20 and digits; `distilled.Distilled` is
    taught by it and needs none.

    Attributes:
        data: `.train` calibrates and gives the means, `.val` measures.
        images: training images, at most; without augmentation.
        seed: which.
    """

    data: Dataset
    images: int = 512
    seed: int = 0

    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        whole, scores = copy_model(model).eval(), importance.l1(model, graph)
        place, generator = next(model.parameters()).device, runtime.seed_generator(self.seed, "class means")
        known = [part.to(place) for part in next(self.data.train.batches(self.images, shuffle=True, generator=generator))]
        asked = [part.to(place) for part in next(self.data.val.batches(len(self.data.val)))]
        name = classifier(graph, model)

        def apart(small: nn.Module) -> float:
            train.calibrate(small, [known[0]])
            guess = nearest(features(small, name, known[0]), known[1], features(small, name, asked[0]))
            return (guess == asked[1]).double().mean().item()

        return score_each(whole, graph, apart, scores)


def classifier(graph: ChannelGraph, model: nn.Module) -> str:
    """The path of the last linear layer.

    Raises:
        ValueError: the network has none.
    """
    modules = dict(model.named_modules())
    names = [node.name for node in graph.nodes if isinstance(modules.get(node.name), nn.Linear)]
    if not names:
        raise ValueError("model: has no linear layer, whose inputs are the features; use another ranker")
    return names[-1]


@torch.no_grad()
def features(net: nn.Module, name: str, images: Tensor) -> Tensor:
    """What the linear layer at `name` reads, (B, C, H, W) -> (B, d)."""
    seen: list[Tensor] = []
    hook = net.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    try:
        net(images)
    finally:
        hook.remove()
    return seen[0]


def nearest(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """The class whose mean is nearest: features (N, d) with labels (N,) and features (B, d) -> (B,) classes.

    >>> import torch
    >>> nearest(torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([5, 5, 7]), torch.tensor([[4.0], [6.0]])).tolist()
    [5, 7]
    """
    classes, member = labels.unique(return_inverse=True)
    sums = known.new_zeros(len(classes), known.shape[1]).double().index_add_(0, member, known.double())
    means = sums / member.bincount()[:, None]
    return classes[torch.cdist(asked.double(), means).argmin(1)]
