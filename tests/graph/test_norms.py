"""Normalisations over channels: found by what they compute, pruned, and equal to a twin written by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.norms import find_norms

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)
WIDTH = 16


class Written(nn.Module):
    """RMSNorm as language models write it, in single precision within."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.gain, self.variance_epsilon = size, nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (1 + self.gain) * y.to(x.dtype)


class Turned(nn.LayerNorm):
    """A layer norm of images (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stream(nn.Module):
    """A residual stream with positions and two blocks, as in a transformer."""

    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, WIDTH), nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.first, self.second, self.last, self.head = Block(norm()), Block(norm()), norm(), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.second(self.first(self.embed(x) + self.place))).mean(1))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "layer norm without parameters": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "root mean square": lambda: nn.RMSNorm(WIDTH, eps=1e-2),
    "root mean square, written out": lambda: Written(WIDTH),
}


def drawn(model: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in model.double().eval().parameters():
        parameter.data.normal_(generator=draw)
    return model


def half(graph: graphprune.ChannelGraph) -> dict[str, Tensor]:
    return {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}


def share(small: nn.Module, model: nn.Module) -> float:
    return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_width_goes_and_the_twin_agrees_forward_and_backward(kind: str) -> None:
    model = drawn(Stream(KINDS[kind]))
    graph = graphprune.trace(model, X, norms="kept")
    assert {group.name: group.channels for group in graph.groups} == {"embed": 16, "first.up": 24, "second.up": 24}
    assert set(graph.frozen) == {"head"}
    keep = half(graph)
    small, twin = graphprune.prune(model, graph, keep), graphprune.masked(model, graph, keep)
    assert share(small, model) < 0.33
    wanted, found = twin(X), small(X)
    assert torch.allclose(found, wanted, rtol=1e-10)
    wanted.square().sum().backward()
    found.square().sum().backward()
    whole = dict(twin.named_parameters())
    for name, parameter in small.named_parameters():
        grad = whole[name].grad
        assert grad is not None
        for dim, size in enumerate(parameter.shape):
            if size != grad.shape[dim]:
                grad = grad.index_select(dim, torch.arange(0, grad.shape[dim], 2))
        assert parameter.grad is not None
        assert float((parameter.grad - grad).abs().max()) <= 1e-6 * float(grad.abs().max())  # `Written` has single precision
    assert "forward" not in vars(small.last)  # an ordinary module
    again = copy.deepcopy(twin)
    again.head.weight.data.zero_()
    assert torch.equal(twin(X), wanted)  # a copy of the twin is its own
    counts = torch.tensor([[int(mask.sum()) for mask in keep.values()]])
    cost = graphprune.cost(small, X)
    assert [int(total) for total in graphprune.CostModel(graph, X).of_counts(counts)] == [cost.macs, cost.params]


def test_the_twin_is_the_layer_norm_of_the_kept_channels() -> None:
    model = drawn(nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 2)))
    graph = graphprune.trace(model, X, norms="kept")
    kept = torch.tensor([True, False, True, True, False, True])
    y = model[0](X)
    mean = (y * kept).sum(-1, keepdim=True) / 4
    variance = ((y - mean).square() * kept).sum(-1, keepdim=True) / 4
    y = (y - mean) / (variance + 1e-5).sqrt() * model[1].weight + model[1].bias  # type: ignore[operator]
    wanted = model[2](y * kept)
    for network in (graphprune.masked(model, graph, {"0": kept}), graphprune.prune(model, graph, {"0": kept})):
        assert torch.allclose(network(X), wanted, rtol=1e-10, atol=1e-12)
    assert small_shape(graphprune.prune(model, graph, {"0": kept})) == (4,)


def small_shape(model: nn.Module) -> Any:
    return model[1].normalized_shape  # type: ignore[index]


def test_by_default_the_width_of_a_layer_norm_stays_and_the_reason_names_the_remedy() -> None:
    model = drawn(Stream(KINDS["layer norm"]))
    graph = graphprune.trace(model, X)
    assert {group.name for group in graph.groups} == {"first.up", "second.up"}
    assert graph.frozen["embed"] == "LayerNorm 'first.norm' normalises over it (norms=\"kept\" prunes it)"
    assert graph.norms == ()
    with pytest.raises(ValueError, match="norms='some': must be one of 'whole', 'kept'"):
        graphprune.trace(model, X, norms="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [1e-2, None])
def test_a_root_mean_square_makes_up_for_what_is_gone(eps: float | None, tmp_path: Any) -> None:
    """In a network with zeros, x / sqrt(sum x^2 / D + eps) w; by default the pruned one gives the same."""
    model = drawn(Stream(lambda: nn.RMSNorm(WIDTH, eps=eps)))
    graph = graphprune.trace(model, X)
    keep = half(graph)
    keep["embed"] = torch.arange(WIDTH) < 4
    small = graphprune.prune(model, graph, keep)
    assert torch.equal(small.last.weight, 2 * model.last.weight[:4])  # sqrt(16 / 4)
    assert small.last.eps == (None if eps is None else 4e-2)
    twin = graphprune.masked(model, graph, keep)
    assert type(twin.last).forward is nn.RMSNorm.forward
    assert torch.equal(twin.last.weight[:4], model.last.weight[:4])
    assert torch.allclose(small(X), twin(X), rtol=1e-10)
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep)
    loaded = graphprune.load_pruned(path, Stream(lambda: nn.RMSNorm(WIDTH, eps=eps)).double())
    assert torch.equal(loaded(X), small(X))
    assert loaded.last.eps == small.last.eps
    twice = graphprune.trace(small, X)
    smaller = graphprune.prune(small, twice, half(twice))
    assert torch.allclose(smaller(X), graphprune.masked(small, twice, half(twice))(X), rtol=1e-10)


def test_a_pruned_layer_norm_is_saved_and_loaded(tmp_path: Any) -> None:
    model = drawn(Stream(KINDS["layer norm without parameters"]))
    graph = graphprune.trace(model, X, norms="kept")
    small = graphprune.prune(model, graph, half(graph))
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, half(graph))
    loaded = graphprune.load_pruned(path, Stream(KINDS["layer norm without parameters"]).double())
    assert torch.equal(loaded(X), small(X))
    assert loaded.last.normalized_shape == (8,)


def test_norms_of_images_and_a_group_norm_of_one_group() -> None:
    for norm in (Turned(6), nn.GroupNorm(1, 6)):
        layers = nn.Conv2d(3, 6, 3), norm, nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        model, image = drawn(nn.Sequential(*layers)), X.reshape(1, 3, 5, 8)
        assert set(graphprune.trace(model, image).full()) == {"2"}
        graph = graphprune.trace(model, image, norms="kept")
        assert {group.name: group.channels for group in graph.groups} == {"0": 6, "2": 4}
        keep = half(graph)
        small, twin = graphprune.prune(model, graph, keep), graphprune.masked(model, graph, keep)
        assert torch.allclose(small(image), twin(image), rtol=1e-10)


def test_a_group_norm_of_groups_goes_by_groups_as_before() -> None:
    layers = nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    model, image = drawn(nn.Sequential(*layers)), X.reshape(1, 3, 5, 8)
    one, other = graphprune.trace(model, image), graphprune.trace(model, image, norms="kept")
    assert one.groups == other.groups
    assert one.groups[0].channels == 4


def test_a_norm_within_heads_leaves_whole_heads_to_go() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.up, self.norm, self.down = 4, nn.Linear(8, 12), nn.LayerNorm(3), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(x).view(x.shape[0], x.shape[1], self.heads, 3)
            return self.down(self.norm(y).flatten(2)).mean(1)

    model = drawn(Heads())
    graph = graphprune.trace(model, X, norms="kept")
    assert {group.name: group.channels for group in graph.groups} == {"up": 4}
    small, twin = (make(model, graph, half(graph)) for make in (graphprune.prune, graphprune.masked))
    assert torch.allclose(small(X), twin(X), rtol=1e-10)
    assert small.norm.normalized_shape == (3,)


class Scaled(nn.Module):
    """What is no normalisation: it does not mix channels, or twice the input is twice the output."""

    def __init__(self, size: int, softmax: bool = False) -> None:
        super().__init__()
        self.weight, self.softmax = nn.Parameter(torch.ones(size)), softmax

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x.softmax(-1) if self.softmax else x.sign())


def test_a_normalisation_is_known_by_what_it_does() -> None:
    norms = Written(7), Turned(7), nn.LayerNorm(7), nn.GroupNorm(1, 7), nn.LayerNorm([7, 7]), nn.GroupNorm(7, 14)
    others = Scaled(7), Scaled(7, softmax=True), nn.BatchNorm2d(7), nn.PReLU(7), nn.Linear(7, 7), nn.Identity()
    assert find_norms(nn.Sequential(*norms, *others)) == {"0": -1, "1": 1, "2": -1, "3": 1}


def test_graphs_that_are_pruned_in_another_way_have_another_fingerprint() -> None:
    model = Stream(lambda: nn.RMSNorm(WIDTH))
    one, other = graphprune.trace(model, X.float()), graphprune.trace(model, X.float(), norms="kept")
    assert one.groups == other.groups
    assert one.fingerprint() != other.fingerprint()


class Tokens(nn.Module):
    """A class token in front of the others, and places for many of them."""

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(8, width), nn.LayerNorm(width), nn.Linear(width, 2)
        self.token = nn.Parameter(torch.rand(1, 1, width))
        self.places = nn.Parameter(torch.rand(1, places, width)) if places else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1)
        return self.head(self.norm(y if self.places is None else y + self.places)[:, 0])


@pytest.mark.parametrize(("width", "places"), [(4, 0), (256, 301)])
def test_a_class_token_and_large_position_embeddings_follow_down_to_one_channel(width: int, places: int) -> None:
    model = Tokens(width, places).double().eval()
    x = torch.randn(1, places - 1 if places else 5, 8, dtype=torch.double)
    assert graphprune.trace(model, x).groups == ()
    graph = graphprune.trace(model, x, norms="kept")
    assert {group.name: group.channels for group in graph.groups} == {"embed": width}
    for left in (1, width // 2):
        keep = {"embed": torch.arange(width) < left}
        small, twin = graphprune.prune(model, graph, keep), graphprune.masked(model, graph, keep)
        assert small.token.shape == (1, 1, left)
        assert torch.allclose(small(x), twin(x), rtol=1e-10)


def test_a_layer_norm_among_other_things_stays_in_either_case() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(nn.functional.layer_norm(self.up(x), (6,)))

    for norms in ("whole", "kept"):
        graph = graphprune.trace(Mixed().double(), X, norms=norms)  # type: ignore[arg-type]
        assert graph.groups == ()
        assert graph.frozen["up"].endswith('(norms="kept" prunes it in a module that does nothing else)')
