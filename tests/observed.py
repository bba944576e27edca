"""Networks to be observed as graphs over their channels, and the edges of what is seen."""

import torch
from torch import nn

from graphprune import trace
from graphprune.data import Dataset
from graphprune.rl.observation import Observation, observe
from graphprune.training.splits import Augment, TensorSplit


def dataset(images: torch.Tensor, mean: float = 0.0, std: float = 1 / 255) -> Dataset:
    """uint8 images, by default read as the numbers they are."""
    channels = images.shape[1]
    split = TensorSplit(
        (mean,) * channels, (std,) * channels, Augment(0, False), images.device, torch.zeros(len(images)), images
    )
    return Dataset("hand", split, split, split, 10, tuple(images.shape[1:]))


def noise(*shape: int) -> Dataset:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return dataset(images, 0.5, 0.25)


def unsettled(model: nn.Module) -> nn.Module:
    """Normalisations as training leaves them: no two channels alike."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def by_hand() -> nn.Module:
    """Two channels, batch-normalised; two more without; a classifier that reads two places of each. 1x2 images."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.BatchNorm2d(2, eps=0),
        nn.ReLU(),
        nn.Conv2d(2, 2, 1, bias=False),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    net[0].weight.data = torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    net[1].weight.data, net[1].bias.data = torch.tensor([1.0, -3.0]), torch.tensor([0.5, -1.0])
    net[3].weight.data = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    net[5].weight.data = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    return net


def seen(net: nn.Module, shape: tuple[int, ...], **options: int | None) -> Observation:
    return observe(net, trace(net, torch.zeros(1, *shape)), noise(4, *shape), **options)


def edges(seen: Observation) -> dict[tuple[int, int], float]:
    weights = seen.edge_attr[:, 2] == 0
    pairs = map(tuple, seen.edge_index.T[weights].tolist())
    return dict(zip(pairs, seen.edge_attr[weights, 0].tolist(), strict=True))
