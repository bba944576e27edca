"""Real removal against the zeroed twin, and pruned networks that survive a round trip."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.budget import Budget

NAMES = ["tiny_cnn", "vgg16", "resnet18", "resnet56", "resnet20a", "resnet32a", "resnet44a", "resnet56a"]


def network(name: str) -> tuple[nn.Module, ChannelGraph, Tensor]:
    """A float64 network with random BN statistics, its graph and a batch."""
    torch.manual_seed(1)
    channels = 1 if name == "tiny_cnn" else 3
    model = graphprune.models.build(name, in_channels=channels).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    x = torch.randn(2, channels, 32, 32, dtype=torch.double)
    return model, graphprune.trace(model, x), x


def random_keep(graph: ChannelGraph, share: float, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    keep = {group.name: torch.rand(group.channels, generator=draw) < share for group in graph.groups}
    for mask in keep.values():
        mask[1], mask[0] = True, False
    return keep


@pytest.mark.parametrize("name", NAMES)
def test_pruned_and_masked_agree_in_float64(name: str) -> None:
    model, graph, x = network(name)
    for share in (0.1, 0.6):
        keep = random_keep(graph, share)
        with torch.no_grad():
            masked, small = graphprune.masked(model, graph, keep)(x), graphprune.prune(model, graph, keep)(x)
        assert float((masked - small).abs().max()) <= 1e-10 * float(masked.abs().max())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_any_keep_of_the_tiny_network(flags: list[bool]) -> None:
    model, graph, x = network("tiny_cnn")
    flags[0], flags[1], flags[4] = True, False, True
    keep = graph.unflatten(torch.tensor(flags))
    small = graphprune.prune(model, graph, keep)
    with torch.no_grad():
        torch.testing.assert_close(small(x), graphprune.masked(model, graph, keep)(x), rtol=0, atol=1e-12)
    assert small.conv1.out_channels == small.conv2.out_channels == sum(flags[:4])
    assert small.fc.in_features == sum(flags[4:])


def test_masked_is_not_the_full_network() -> None:
    model, graph, x = network("tiny_cnn")
    with torch.no_grad():
        assert float((graphprune.masked(model, graph, random_keep(graph, 0.5))(x) - model(x)).abs().max()) > 1e-3


def test_the_model_is_untouched_and_the_small_one_trains() -> None:
    model, graph, x = network("resnet20a")
    before = copy.deepcopy(model.state_dict())
    small = graphprune.prune(model, graph, random_keep(graph, 0.5)).train()
    small(x).square().sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in small.parameters())


def test_frozen_parameters_are_pruned_and_stay_frozen() -> None:
    model, graph, _ = network("tiny_cnn")
    model.requires_grad_(False)
    small = graphprune.prune(model, graph, random_keep(graph, 0.5))
    assert small.conv1.out_channels < 4
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_nothing_to_remove_is_said() -> None:
    model, graph, _ = network("tiny_cnn")
    with pytest.warns(UserWarning, match="prune removes nothing: keep"):
        graphprune.prune(model, graph, graph.full())


def test_rounding_up_gives_back_the_strongest() -> None:
    model, graph, x = network("resnet20a")
    keep = random_keep(graph, 0.4)
    rounded = graphprune.round_keep(model, graph, keep, 8, macs=1)
    small = graphprune.prune(model, graph, rounded)
    widths = {name: module.out_channels for name, module in small.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths.values())
    assert sum(widths.values()) < sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    first = keep["conv1"]
    kept = (model.conv1.weight[:, None] == small.conv1.weight[None]).flatten(2).all(-1).any(1)
    assert bool(kept[first].all())  # all that was asked for, and more
    same = graphprune.prune(model, graph, graphprune.round_keep(model, graph, keep, 2))
    assert torch.equal(graphprune.prune(model, graph, keep, round_to=2)(x), same(x))
    with pytest.raises(ValueError, match="round_to=0: must be at least 1"):
        graphprune.prune(model, graph, keep, round_to=0)


def test_rounding_that_would_undo_the_request_is_refused() -> None:
    model, graph, _ = network("tiny_cnn")
    with pytest.raises(ValueError, match=r"multiple=4 .* leaves 1\.0000 of the multiply-adds, more"):
        graphprune.prune(model, graph, random_keep(graph, 0.5), round_to=4)


def two_layers() -> tuple[nn.Module, ChannelGraph]:
    """Two groups of 8 on one pixel: k1 + k1 k2 + 2 k2 multiply-adds, 88 in all."""
    layers = (nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    model = nn.Sequential(*layers)
    return model, graphprune.trace(model, torch.zeros(1, 1, 1, 1))


def first(a: int, b: int) -> dict[str, Tensor]:
    return {"0": torch.arange(8) < a, "2": torch.arange(8) < b}


@pytest.mark.parametrize(
    ("kept", "macs", "rounded"),
    [
        ((3, 7), None, (4, 4)),  # 38 multiply-adds; 4 and 4 leave 28, 4 and 8 leave 52
        ((3, 7), 0.6, (4, 8)),  # 52 of 88 are 0.591
        ((3, 7), 0.59, (4, 4)),
        ((7, 5), None, (8, 4)),  # 52: 8 and 4 leave 48; the second group is farther from 8, and both leave 88
        ((5, 7), None, (4, 8)),  # 54: 4 and 8 leave 52
        ((8, 4), None, (8, 4)),
        ((5, 5), 1, (8, 8)),
        ((4, 4), 1, (4, 4)),  # never more than the next multiple
    ],
)
def test_rounding_keeps_within_the_budget(kept: tuple[int, int], macs: float | None, rounded: tuple[int, int]) -> None:
    model, graph = two_layers()
    found = graphprune.round_keep(model, graph, first(*kept), 4, macs=macs)
    assert tuple(int(mask.sum()) for mask in found.values()) == rounded


def test_a_budget_that_no_multiple_meets_is_said() -> None:
    model, graph = two_layers()
    remedy = r"more than the 0\.3000 of macs; use a smaller one, or round_keep\(\.\.\., macs=0\.3182\)"
    with pytest.raises(ValueError, match=r"multiple=4 \(prune.s round_to\): one in every group leaves 0\.3182 .*" + remedy):
        graphprune.round_keep(model, graph, first(3, 7), 4, macs=0.3)
    assert graphprune.round_keep(model, graph, first(3, 7), 4, macs=0.3182)["2"].sum() == 4
    with pytest.raises(ValueError, match=r"more than the 0\.0455 of keep"):
        graphprune.round_keep(model, graph, first(1, 1), 4)
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"macs={wrong}: must be a share of the unpruned network's multiply-adds"):
            graphprune.round_keep(model, graph, first(3, 7), 4, macs=wrong)


def test_rounding_follows_the_callers_scores() -> None:
    """The channel that comes back is the best of the pruned ones, those that go are the worst of the kept."""
    model, graph = two_layers()
    scores = {"0": torch.tensor([1.0, 1, 1, 0, 0, 0, 2, 9]), "2": torch.tensor([7.0, 6, 5, 4, 30, 20, 10, 99])}
    found = graphprune.round_keep(model, graph, first(3, 7), 4, scores=scores)
    assert found["0"].int().tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    assert found["2"].int().tolist() == [1, 0, 0, 0, 1, 1, 1, 0]
    other = graphprune.round_keep(model, graph, first(3, 7), 4, scores={name: -value for name, value in scores.items()})
    assert other["0"].int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert other["2"].int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="scores has no entry for group '2'"):
        graphprune.round_keep(model, graph, first(3, 7), 4, scores={"0": scores["0"]})


def test_whole_blocks_go_from_the_group_whose_channels_matter_least() -> None:
    """Of 8 and 8 one block must go, 48 or 52 of 88: the one whose weakest channel is smaller next to its group's mean."""
    model, graph = two_layers()
    even, steep = torch.ones(8), torch.arange(8.0)
    for scores, counts in (((even, steep), (8, 4)), ((1000 * steep, even), (4, 8))):
        named = dict(zip(("0", "2"), scores, strict=True))
        found = graphprune.round_keep(model, graph, first(8, 8), 4, scores=named, macs=0.6)
        assert tuple(int(mask.sum()) for mask in found.values()) == counts


@pytest.mark.parametrize("name", ["resnet20a", "vgg16"])
def test_a_network_at_half_the_multiply_adds_stays_there_when_rounded(name: str) -> None:
    model, graph, x = network(name)
    costs = graphprune.CostModel(graph, x)
    order = torch.rand(1, graph.num_atoms, generator=torch.Generator().manual_seed(0))
    kept = Budget(costs, 0.5).fit(order)
    rounded = graphprune.round_keep(model, graph, graph.unflatten(kept[0]), 8)
    assert all(int(mask.sum()) % 8 == 0 for mask in rounded.values())
    assert 0.45 < float(Budget(costs, 0.5).shares(graph.flatten(rounded)[None])) <= 0.5


def test_a_network_without_a_group_is_said() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    graph = graphprune.trace(model, torch.zeros(1, 1, 2, 2))
    with pytest.warns(UserWarning, match="prune removes nothing: the graph offers no group; graph.frozen says"):
        graphprune.prune(model, graph, {})


def test_round_to_holds_for_grouped_convolutions() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3, groups=2), nn.Conv2d(32, 32, 3, groups=32)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
    )
    graph = graphprune.trace(model, torch.zeros(1, 3, 8, 8))
    keep = {group.name: torch.arange(group.channels) < 3 for group in graph.groups}
    small = graphprune.prune(model, graph, graphprune.round_keep(model, graph, keep, 4, macs=1))
    assert {name: len(mask) for name, mask in keep.items()} == {"0": 8, "1": 16}
    assert [small[i].out_channels for i in range(3)] == [8, 8, 8]  # 4 positions in each of 2 groups
    assert (small[1].groups, small[2].groups) == (2, 8)


def test_another_model_is_refused() -> None:
    _, graph, _ = network("resnet20a")
    with pytest.raises(ValueError, match=r"model is not the network that was traced: .* trace this model again"):
        graphprune.prune(graphprune.models.build("resnet20a", in_channels=1), graph, random_keep(graph, 0.5))


def test_a_pruned_network_can_be_pruned_again() -> None:
    model, graph, x = network("resnet20a")
    small = graphprune.prune(model, graph, random_keep(graph, 0.7))
    again = graphprune.trace(small, x)
    keep = random_keep(again, 0.7, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(graphprune.prune(small, again, keep)(x), graphprune.masked(small, again, keep)(x))


def test_save_and_load_in_a_fresh_process(tmp_path: Path) -> None:
    model, graph, x = network("resnet20a")
    keep = random_keep(graph, 0.4)
    small = graphprune.prune(model, graph, keep)
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep)
    full = graphprune.save_pruned(tmp_path / "full.safetensors", model, graph, graph.full())
    assert path.stat().st_size < full.stat().st_size / 2
    torch.save(x, tmp_path / "x.pt")
    script = f"""
import torch, graphprune
small = graphprune.load_pruned({str(path)!r}, graphprune.models.build("resnet20a").double()).eval()
torch.save(small(torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)).detach(), {str(tmp_path / "y.pt")!r})
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), small(x).detach())


def test_bad_files_are_named(tmp_path: Path) -> None:
    model, graph, _ = network("tiny_cnn")
    keep = random_keep(graph, 0.5)
    with pytest.raises(ValueError, match=r"model does not fit keep: conv1\.weight should have"):
        graphprune.save_pruned(tmp_path / "a.safetensors", model, graph, keep)
    assert list(tmp_path.iterdir()) == []
    path = graphprune.save_pruned(tmp_path / "a.safetensors", graphprune.prune(model, graph, keep), graph, keep)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        graphprune.load_pruned(tmp_path / "b.safetensors", model)
    with pytest.raises(ValueError, match="model is not the architecture"):
        graphprune.load_pruned(path, graphprune.models.build("resnet8", in_channels=1))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is damaged"):
        graphprune.load_pruned(path, model)


def test_swapped_arguments_are_named() -> None:
    model = graphprune.models.tiny_cnn()
    graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    keep = graph.full()
    for call in (graphprune.prune, graphprune.masked, lambda *given: graphprune.round_keep(*given, 2)):
        with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got ChannelGraph; give the network itself$"):
            call(graph, model, keep)
        with pytest.raises(TypeError, match=r"^graph must be a ChannelGraph, got dict; give what trace\("):
            call(model, keep, graph)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()))


def test_the_groups_that_make_a_difference_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mlp()
    graph = graphprune.trace(model, torch.zeros(1, 4))
    keep = {name: torch.arange(8) >= 3 for name in graph.slices}
    monkeypatch.setattr(Mlp, "forward", lambda self, x: self.c(self.b(self.a(x).relu()) * self.b.out_features))
    with pytest.raises(
        ValueError, match=r"not its masked twin: output 0 differs by \S+ of \S+\. .*ignore=\['b'\]\), and please rep"
    ):
        graphprune.prune(model, graph, keep)
    assert graphprune.prune(model, graph, keep | {"b": torch.ones(8).bool()}).a.out_features == 5
    monkeypatch.setattr(Mlp, "forward", lambda self, x: self.c(self.b(self.a(x).relu()) * torch.rand(self.b.out_features)))
    with pytest.raises(ValueError, match=r"Its forward draws random numbers, .*ignore=\['b'\]\); prune\(\.\.\., check=False\)"):
        graphprune.prune(model, graph, keep)


def test_nothing_to_remove_names_the_rounding_that_was_asked_for() -> None:
    model, graph, _ = network("tiny_cnn")
    with pytest.warns(UserWarning, match="keep holds every channel after rounding to multiples of 4; graph.frozen"):
        graphprune.prune(model, graph, graph.full(), round_to=4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_a_pruned_network_can_be_scripted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = graphprune.trace(model, x)
    small = graphprune.prune(model, graph, keep := random_keep(graph, 0.5))
    twice = graphprune.prune(small, again := graphprune.trace(small, x), random_keep(again, 0.9))
    loaded = graphprune.load_pruned(graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep), model)
    for net in (small, twice, loaded):
        assert torch.jit.script(net)(x).equal(net(x))
