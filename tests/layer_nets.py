"""Networks written as layers and a forward, and the proof that every way of pruning them is honoured."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import graphprune

IMAGE = torch.zeros(2, 3, 8, 8)


class Net(nn.Module):
    """Layers by name and a forward that is given."""

    def __init__(self, forward: Callable[["Net", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def groups(model: nn.Module, x: Tensor | tuple[Tensor, ...] = IMAGE) -> dict[str, tuple[int, tuple[str, ...]]]:
    """name -> (channels, layers), after the proof that random and extreme `keep`s are honoured in float64."""
    model = randomised(model)
    graph = graphprune.trace(model, x)
    check_every_keep(model, graph, x)
    return {group.name: (group.channels, group.layers) for group in graph.groups}


def randomised(model: nn.Module) -> nn.Module:
    """Float64, evaluation mode, and normalisation statistics that hide nothing."""
    torch.manual_seed(0)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and module.weight is not None:
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return model


def check_every_keep(model: nn.Module, graph: graphprune.ChannelGraph, x: Tensor | tuple[Tensor, ...]) -> None:
    inputs = tuple(torch.randn(t.shape, dtype=torch.double) for t in (x if isinstance(x, tuple) else (x,)))
    for share in (0.0, 0.3, 0.7):
        keep = {group.name: torch.rand(group.channels) < share for group in graph.groups}
        for mask in keep.values():
            mask[int(torch.randint(1, len(mask), ()))] = True
            mask[0] = False
        small = graphprune.prune(model, graph, keep) if keep else model
        with torch.no_grad():
            whole, part = graphprune.masked(model, graph, keep)(*inputs), small(*inputs)
        for a, b in zip(*([o.values() if isinstance(o, dict) else [o] for o in (whole, part)]), strict=True):
            assert a.shape == b.shape
            assert float((a - b).abs().max()) <= 1e-10 * float(a.abs().max())
