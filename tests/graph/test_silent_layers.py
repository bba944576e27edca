"""Every layer that stays has a reason."""

import torch
import torch.nn.functional as F
from layer_nets import IMAGE, conv, head
from torch import Tensor, nn

import graphprune


class Branches(nn.Module):
    """A branch on a size, an optional input, parameters that are read without their modules' forward, and a second method."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.large, self.b, self.given, self.out = conv(3, 6), conv(6, 6), conv(6, 8), nn.Linear(2, 6), nn.Linear(8, 4)
        self.shift, self.read = nn.ParameterList([torch.zeros(8)]), nn.Linear(8, 8)
        self.drawn = nn.ModuleDict({"used": nn.Linear(8, 4), "idle": nn.Linear(8, 4)})

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        y = self.a(x)
        if x.shape[-1] > 8:
            y = self.large(y)
        if given is not None:
            y = y + self.given(given)[:, :, None, None]
        y = F.linear(self.b(y).mean((2, 3)) + self.shift[0], self.read.weight, self.read.bias)
        return self.out(y) + self.drawn["used"](y)


def test_layers_that_the_example_does_not_run_are_told() -> None:
    idle = "the example input does not run it; it stays as it is, and fails on pruned channels if another call runs it: "
    idle += "give an example that takes this branch"
    frozen = graphprune.trace(Branches(), IMAGE).frozen
    assert {layer for layer, reason in frozen.items() if reason == idle} == {"large", "given", "drawn.idle"}
    frozen = graphprune.trace(Branches(), (torch.zeros(1, 3, 9, 9), torch.zeros(1, 2))).frozen
    assert {layer for layer, reason in frozen.items() if reason == idle} == {"drawn.idle"}


class Silent(nn.Module):
    """Layers of which no operation says that they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.wide, self.steps, self.cell = nn.Linear(8, 12), nn.GRU(12, 6, batch_first=True), nn.GRUCell(6, 6)
        self.out, self.tied = nn.Linear(6, 8), nn.Linear(8, 5, bias=False)
        self.tied.weight, self.again = self.words.weight, self.steps

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        y = self.steps(self.wide(self.mix(y, y, y, need_weights=False)[0]))[0]
        return self.tied(self.out(self.cell(y[:, -1])))


def test_every_layer_that_stays_has_a_reason() -> None:
    graph = graphprune.trace(Silent(), torch.zeros(2, 3, dtype=torch.long))
    assert [group.layers for group in graph.groups] == [("wide",)]
    assert graph.frozen == {
        "out": "MultiheadAttention 'mix' is not a known operation",
        "tied": "its channels are the network's output",
        "words": "MultiheadAttention 'mix' is not a known operation",
        "mix": "MultiheadAttention 'mix' is not a known operation",
        "steps": "a recurrent layer's own state stays, for each step reads all of it",
        "cell": "GRUCell 'cell' is not a known operation",
    }
    first = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), conv(6, 4), head(4))
    assert graphprune.trace(first, IMAGE).frozen["0"] == "it passes on channels that stay"
