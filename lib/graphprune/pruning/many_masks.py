"""Many masks of a network in one pass: no loop over masks, no smaller products.

The network keeps its full shape, every layer that reads channels sees those of its mask only, and every BN takes its
statistics from the calibration images of its own mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.channel_select import ChannelSelect
from graphprune.graph.copies import copy_model
from graphprune.graph.parts import named_modules


class ManyMasks:
    """A network in its full shape that carries many masks through one pass.

    Pruned channels are still computed, and then hidden from every layer that reads them: x_b <- x_b * m_b for mask b. The
    weights stay the same for all masks, so that the images of all of them are one batch; of each mask's images the first
    `calibration` give its BN statistics.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, calibration: int) -> None:
        self.net, self.graph = copy_model(model).eval(), graph
        self.stays = torch.empty(0)  # (B, classes + 1) of the pass under way
        modules, place = named_modules(self.net), next(self.net.parameters()).device
        for site in graph.sites:
            reader = modules[site.tensor.rpartition(".")[0]]
            if site.dim == 1 and isinstance(reader, nn.Conv2d | nn.Linear | ChannelSelect) and bool((site.atoms >= 0).any()):
                reader.register_forward_pre_hook(self._hiding(site.atoms.to(place)))
        for path, module in modules.items():
            if isinstance(module, _BatchNorm):
                self.net.set_submodule(path, SplitNorm(module, self, calibration))

    def __call__(self, masks: Tensor, seen: Tensor, shown: Tensor) -> Tensor:
        """(B, num_atoms) -> logits (B, n, classes) of the images shown."""
        self.stays = seen.new_ones(len(masks), self.graph.num_classes + 1)  # frozen classes and -1 always stay
        self.stays[:, : self.graph.num_atoms] = masks.to(self.stays)
        x = torch.cat([seen, shown]).repeat(len(masks), *[1] * (seen.ndim - 1))
        return self.net(x).unflatten(0, (len(masks), -1))[:, len(seen) :]

    def _hiding(self, atoms: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
        def hide(reader: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            rows = inputs[0].unflatten(0, (len(self.stays), -1))  # (B, images, C, H, W), or (B, images, ..., C) of a Linear
            shape = [1] * rows.ndim
            shape[0], shape[-1 if isinstance(reader, nn.Linear) else 2] = len(self.stays), len(atoms)
            return (rows * self.stays[:, atoms].view(shape)).flatten(0, 1)

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
        self.eps, self.calibration, self.masks = bn.eps, calibration, masks

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(0, (len(self.masks.stays), -1))  # (B, images, C, H, W)
        seen, places = rows[:, : self.calibration], [1, *range(3, rows.ndim)]
        variance, mean = torch.var_mean(seen, places, correction=1, keepdim=True)  # (B, 1, C, 1, 1)
        n, shape = seen.numel() // mean.numel(), (-1, *[1] * (rows.ndim - 3))
        share = x.new_ones(rows.shape[1]).view(-1, 1, *shape[1:])
        share[: self.calibration] = (n - 1) / n
        a = (variance * share + self.eps).rsqrt() * self.gamma.view(shape)  # (B, images, C, 1, 1)
        return torch.addcmul(self.beta.view(shape) - mean * a, rows, a).flatten(0, 1)
