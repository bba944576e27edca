"""A network read as a chain: what it computes, which layers are scored, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from tiny_programs import conv, fc, images
from torch import Tensor, nn

from graphprune import models
from graphprune.neurons import replay
from graphprune.neurons.bounds import propagate
from graphprune.neurons.chain import Chain
from graphprune.neurons.reading import read


def kinds(chain: Chain) -> list[str]:
    return [type(op).__name__ for op in chain.operations]


def test_the_layers_of_a_linear_network():
    chain = read(fc(0, 2, 3, 4, 2), images(0, 1, 2))
    assert kinds(chain) == ["Affine", "Score", "Affine", "Score", "Affine"]
    assert [(score.layer, score.channels, score.gated) for score in chain.scored] == [("0", 3, True), ("2", 4, True)]


def test_bn_is_folded_by_the_exact_program_alone():
    net, x = conv(0, nn.AvgPool2d(2)), images(0, 1, 1, 5, 5)
    assert kinds(read(net, x, "exact"))[:3] == ["Affine", "Score", "Affine"]
    published = read(net, x, "published")
    assert kinds(published)[:5] == ["Affine", "Score", "Affine", "Relu", "Affine"]
    assert [score.gated for score in published.scored] == [False, True]


@pytest.mark.parametrize("program", ["exact", "published"])
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (fc(1, 3, 4, 2), (3,)),
        (conv(1, nn.MaxPool2d(2)), (1, 5, 5)),
        (conv(2, nn.AvgPool2d(4, 3, padding=1)), (1, 5, 5)),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(2, 2)),
            (1, 5, 5),
        ),
        (models.seeded("vgg16", 0, in_channels=1), (1, 8, 8)),
    ],
)
def test_all_scores_one_replay_the_network(net, shape, program):
    x = images(1, 2, *shape)
    chain = read(net, x, program)
    bounds = propagate(chain, x.double(), 1e-5, program)
    logits = replay.values(chain, bounds, x.double(), replay.ones(chain))[-1]
    expected = net.double().eval()(x.double())
    net.float()
    assert torch.allclose(logits, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), r"layer '1' \(Tanh\(\)\) is not supported"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1)), "layer '3'"),
        (nn.Sequential(nn.Linear(3, 2)), "no hidden layer to score"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)), "track_running_stats"),
    ],
)
def test_what_is_not_supported_is_named(net, message):
    with pytest.raises(ValueError, match=message):
        read(net.eval(), images(0, 2, 3))


def test_a_skip_and_a_functional_relu_are_no_chain():
    with pytest.raises(ValueError, match=r"layer 'bn1'|does not read the output of the layer before it"):
        read(models.tiny_cnn(), images(0, 1, 1, 8, 8))

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    with pytest.raises(ValueError, match="layer 'b' does not read the output of the layer before it"):
        read(Functional(), images(0, 1, 3))


class Between(nn.Module):
    """A linear layer, something done to its outputs `h` and inputs `x`, and a linear layer."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)  # some networks' hidden units are silent on the images
        self.a, self.relu, self.b, self.between = nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.relu(self.a(x)), x))


@pytest.mark.parametrize(
    "between",
    [
        lambda h, x: nn.functional.relu(h, inplace=True),  # changes nothing on these images, and is there
        lambda h, x: h.add_(x),
        lambda h, x: h.mul_(0.5),
        lambda h, x: h + x,
    ],
)
def test_an_operation_between_layers_is_no_chain_in_place_or_not(between):
    with pytest.raises(ValueError, match=r"layer 'b' does not read the output of the layer before it.*as nn\.Sequential makes"):
        read(Between(between), images(0, 2, 3))


@pytest.mark.parametrize("between", [lambda h, x: (h.data.mul_(2), h)[1], lambda h, x: h.t()])
def test_what_no_tensor_tells_of_is_seen_in_the_outputs(between):
    with pytest.raises(ValueError, match=r"give other outputs than it does.*as nn\.Sequential makes"):
        read(Between(between), images(0, 3, 3))


def test_outputs_and_images_that_are_changed_are_no_chain():
    class Scaled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mul_(2)

    class Centred(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - 1)

    layers = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)
    with pytest.raises(ValueError, match="are not those of its last layer"):
        read(Scaled(*layers), images(0, 2, 3))
    with pytest.raises(ValueError, match="layer '0' does not read the images as they are"):
        read(Centred(*layers), images(0, 2, 3))


def test_a_relu_in_place_and_a_functional_flatten_are_taken_and_the_images_stay():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.a, self.b = nn.ReLU(inplace=True), nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(self.relu(x.flatten(1))))

    x = images(0, 2, 1, 2, 2).double()
    before = x.clone()
    with torch.inference_mode():
        assert kinds(read(Flat(), x)) == ["Flatten", "Relu", "Affine", "Score", "Affine"]
    assert torch.equal(x, before)


def test_images_that_do_not_fit_and_unknown_programs_are_refused():
    with pytest.raises(ValueError, match=r"images of shape \(1, 4\)"):
        read(fc(0, 3, 4, 2), images(0, 1, 4))
    with pytest.raises(ValueError, match="program='big-M'"):
        read(fc(0, 3, 4, 2), images(0, 1, 3), "big-M")
