"""Files of pruned networks: of today's format and the first, damaged ones, and networks pruned more than once."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.runs import safe_files, store

DATA = Path(__file__).parent / "data"
FIRST = {  # what the pruned networks said when their files were made, for the pixels 0/64, 1/64 ... 63/64
    "tiny_cnn": [0.232699, 0.054176, 0.042292, 0.052447, -0.466614, 0.051453, 0.404191, 0.516936, 0.348503, 0.094941],
    "resnet8": [-0.123729, 0.066229, -0.12377, 0.062291, 0.083449, 0.023999, 0.094046, 0.067076, 0.044702, 0.088403],
}


def network(name: str = "resnet8", seed: int = 0) -> tuple[nn.Module, ChannelGraph]:
    model = graphprune.models.seeded(name, seed, in_channels=1).eval()
    return model, graphprune.trace(model, torch.zeros(1, 1, 8, 8))


def some(graph: ChannelGraph, seed: int) -> dict[str, Tensor]:
    """About two thirds of the channels, the first always and the second never."""
    generator = torch.Generator().manual_seed(seed)
    keep = {group.name: torch.rand(group.channels, generator=generator) < 0.67 for group in graph.groups}
    for mask in keep.values():
        mask[:2] = torch.tensor([True, False])[: len(mask)]
    return keep


def saved(path: Path, name: str = "resnet8") -> tuple[Path, nn.Module]:
    model, graph = network(name)
    keep = some(graph, 1)
    small = graphprune.prune(model, graph, keep).eval()
    return graphprune.save_pruned(path / f"{name}.safetensors", small, graph, keep), small


def same(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return torch.equal(one.eval()(x), other.eval()(x))


def another_recipe(self: ChannelGraph) -> str:
    return "a hash by a recipe that no file knows"


@pytest.mark.parametrize("name", FIRST)
def test_files_of_the_first_format_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChannelGraph, "fingerprint", another_recipe)
    small = graphprune.load_pruned(DATA / f"pruned_format1_{name}.safetensors", network(name, seed=7)[0]).eval()
    said = small(torch.arange(64.0).reshape(1, 1, 8, 8) / 64)[0]
    torch.testing.assert_close(said, torch.tensor(FIRST[name]), atol=2e-6, rtol=0)


def test_a_file_of_the_first_format_can_be_pruned_on_and_saved_anew(tmp_path: Path) -> None:
    small = graphprune.load_pruned(DATA / "pruned_format1_resnet8.safetensors", network()[0])
    graph = graphprune.trace(small, torch.zeros(1, 1, 8, 8))
    smaller = graphprune.prune(small, graph, some(graph, 1))
    path = graphprune.save_pruned(tmp_path / "a.safetensors", smaller, graph, some(graph, 1))
    assert same(graphprune.load_pruned(path, network(seed=7)[0]), smaller)


def test_files_do_not_depend_on_how_graphs_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, small = saved(tmp_path)
    monkeypatch.setattr(ChannelGraph, "fingerprint", another_recipe)
    monkeypatch.setattr("graphprune.graph.groups.trace", lambda *_: pytest.fail("a graph was built"))
    assert same(graphprune.load_pruned(path, graphprune.models.build("resnet8", in_channels=1)), small)


def test_a_file_says_what_is_kept_by_tensor_and_dimension(tmp_path: Path) -> None:
    model, graph = network("tiny_cnn")
    keep = {"conv1": torch.tensor([True, False, True, False]), "conv3": torch.tensor([False, True, True])}
    small = graphprune.prune(model, graph, keep)
    path = graphprune.save_pruned(tmp_path / "a.safetensors", small, graph, keep)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(small.state_dict())
        about = json.loads(file.metadata()["graphprune"][len("sha256:") + 64 :])
    assert about["format"] == "graphprune-2"
    kept = {(name, dim): (size, about["kept"][number]) for name, dim, size, number in about["cuts"]}
    assert kept["conv1.weight", 0] == (4, [0, 2])
    assert kept["conv3.weight", 0] == (3, [1, 2])
    assert kept["fc.weight", 1] == (3, [1, 2])
    assert kept.keys() == {(site.tensor, site.dim) for site in graph.sites}


@pytest.mark.parametrize("place", ["header", "first weight", "last weight", "length"])
def test_a_single_flipped_bit_is_noticed(tmp_path: Path, place: str) -> None:
    path, _ = saved(tmp_path)
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[{"header": content.index(b"graphprune-2"), "first weight": begin, "last weight": -1, "length": 1}[place]] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"path: .*{path.name} is damaged .*; save the network again"):
        graphprune.load_pruned(path, network()[0])


def test_a_file_that_something_else_wrote_or_a_later_version_is_named(tmp_path: Path) -> None:
    model, _ = network()
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    store.save(tmp_path / "weights.safetensors", model.state_dict(), {"n": 1})
    for name in ("plain", "weights"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors was not written by graphprune\.save_pruned"):
            graphprune.load_pruned(tmp_path / f"{name}.safetensors", model)
    later = safe_files.packed(model.state_dict(), {"format": "graphprune-3"})
    (tmp_path / "later.safetensors").write_bytes(later)
    with pytest.raises(ValueError, match=r"has the format 'graphprune-3'.*update graphprune"):
        graphprune.load_pruned(tmp_path / "later.safetensors", model)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    path, small = saved(tmp_path)
    with pytest.raises(ValueError, match=r"architecture .*: it has no tensor conv1\.weight; build the same one, unpruned"):
        graphprune.load_pruned(path, nn.Sequential(nn.Conv2d(1, 16, 3)))
    with pytest.raises(ValueError, match=r"conv1\.weight has \d+ slices along dimension 0, that one's 16"):
        graphprune.load_pruned(path, small)
    with pytest.raises(ValueError, match=r"conv1\.weight would be \(\d+, 1, 5, 5\) after pruning, and is \(\d+, 1, 3, 3\)"):
        graphprune.load_pruned(path, changed(conv1=nn.Conv2d(1, 16, 5, bias=False)))
    with pytest.raises(ValueError, match=r"more\.weight is in the model alone"):
        graphprune.load_pruned(path, changed(more=nn.Linear(2, 2)))
    first = DATA / "pruned_format1_resnet8.safetensors"
    with pytest.raises(ValueError, match=r"not the architecture .*group 'conv1' has 16 channels, this one's 4 channels"):
        graphprune.load_pruned(first, graphprune.models.build("tiny_cnn", in_channels=1))


def changed(**modules: nn.Module) -> nn.Module:
    model, _ = network()
    for name, module in modules.items():
        setattr(model, name, module)
    return model


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet8", "resnet20a"])
def test_a_network_pruned_twice_loads_from_its_first_class(tmp_path: Path, name: str) -> None:
    model, graph = network(name)
    small = graphprune.prune(model, graph, some(graph, 1))
    again = graphprune.trace(copy.deepcopy(small), torch.zeros(1, 1, 8, 8))
    keep = again.full()
    keep[again.groups[0].name] = some(again, 2)[again.groups[0].name]
    smaller = copy.deepcopy(graphprune.prune(small, again, keep))
    path = graphprune.save_pruned(tmp_path / "a.safetensors", smaller, again, keep)
    loaded = graphprune.load_pruned(path, network(name, seed=7)[0])
    assert same(loaded, smaller)
    assert not same(loaded, small)


def test_what_is_left_of_two_prunings_is_counted_in_the_first_network_s_channels(tmp_path: Path) -> None:
    model, graph = network("tiny_cnn")
    small = graphprune.prune(model, graph, {"conv1": torch.tensor([False, True, True, True]), "conv3": torch.ones(3).bool()})
    again = graphprune.trace(small, torch.zeros(1, 1, 8, 8))
    keep = {"conv1": torch.tensor([True, False, True]), "conv3": torch.tensor([True, True, False])}
    smaller = graphprune.prune(small, again, keep)
    path = graphprune.save_pruned(tmp_path / "a.safetensors", smaller, again, keep)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["graphprune"][len("sha256:") + 64 :])
    kept = {(name, dim): (size, about["kept"][number]) for name, dim, size, number in about["cuts"]}
    assert kept["conv1.weight", 0] == (4, [1, 3])
    assert kept["conv3.weight", 0] == (3, [0, 1])
    expected = {"conv1": torch.tensor([False, True, False, True]), "conv3": torch.tensor([True, True, False])}
    assert same(graphprune.load_pruned(path, model), graphprune.prune(model, graph, expected))


def test_writing_that_is_killed_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = saved(tmp_path)
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(SystemExit):
        saved(tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


class Heads(nn.Module):
    """Attention that is called by keywords, and keeps its sizes as numbers, one of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.widths = 4, [3, 12]
        self.words, self.q, self.k, self.v = nn.Embedding(9, 6), *(nn.Linear(6, 12) for _ in range(3))
        self.out = nn.Linear(12, 9)
        self.out_bias = self.out.bias  # the same tensor by two names

    def forward(self, *, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.words(ids)
        q, k, v = (layer(x).view(*ids.shape, self.heads, self.widths[0]).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return {"logits": self.out(y.transpose(1, 2).reshape(*ids.shape, self.widths[1]))}


def test_a_network_called_by_keywords_is_saved_with_its_counts_of_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, batch = Heads().eval(), {"ids": torch.tensor([[1, 2, 8], [3, 4, 5]]), "mask": torch.ones(1, 1, 3, 3)}
    graph = graphprune.trace(model, **batch)
    small = graphprune.prune(model, graph, {"q": torch.tensor([True, False, True, True]), "parameter": torch.arange(6) < 4})
    path = graphprune.save_pruned(
        tmp_path / "once", small, graph, {"q": torch.tensor([True, False, True, True]), "parameter": torch.arange(6) < 4}
    )
    loaded = graphprune.load_pruned(path, Heads().eval())
    assert (loaded.heads, loaded.widths, loaded.out.in_features) == (3, [3, 9], 9)  # type: ignore[comparison-overlap]
    assert torch.equal(loaded(**batch)["logits"], small(**batch)["logits"])
    again = graphprune.trace(loaded, batch)
    keep = {"q": torch.tensor([False, True, False]), "parameter": torch.arange(4) < 2}
    smaller = graphprune.prune(loaded, again, keep)
    path = graphprune.save_pruned(tmp_path / "twice", smaller, again, keep)
    last = graphprune.load_pruned(path, Heads().eval())
    assert (last.heads, last.widths) == (1, [3, 3])  # type: ignore[comparison-overlap]
    assert torch.equal(last(**batch)["logits"], smaller(**batch)["logits"])


def test_wrong_and_swapped_arguments_are_named(tmp_path: Path) -> None:
    model = graphprune.models.tiny_cnn()
    graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    keep, path = graph.full(), tmp_path / "small.safetensors"
    with pytest.raises(
        TypeError, match=r"^path must be a file's name, got TinyCNN; the arguments are save_pruned\(path, model,"
    ):
        graphprune.save_pruned(model, path, graph, keep)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got ChannelGraph"):
        graphprune.save_pruned(path, graph, model, keep)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^graph must be a ChannelGraph, got dict"):
        graphprune.save_pruned(path, model, keep, graph)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^path must be a file's name, got int"):
        graphprune.save_pruned(5, model, graph, keep)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"^path: there is no folder .*nope; make it first$"):
        graphprune.save_pruned(tmp_path / "nope" / "small.safetensors", model, graph, keep)
    with pytest.raises(IsADirectoryError, match=r"^path: .* is a folder; give a file in it"):
        graphprune.save_pruned(tmp_path, model, graph, keep)
    with pytest.raises(
        TypeError, match=r"^path must be a file's name, got TinyCNN; the arguments are load_pruned\(path, model\)"
    ):
        graphprune.load_pruned(model, path)  # type: ignore[arg-type]
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match="is not a file of graphprune: it holds no safetensors"):
        graphprune.load_pruned(path, model)


def test_a_file_keeps_values_and_the_network_given_the_rest(tmp_path: Path) -> None:
    model = graphprune.models.tiny_cnn(in_channels=1)
    model.conv1.requires_grad_(False)
    small = graphprune.prune_to(model.half(), torch.zeros(1, 1, 8, 8).half(), macs=0.5)
    again = graphprune.load_pruned(small.save(tmp_path / "half.safetensors"), graphprune.models.tiny_cnn(in_channels=1))
    assert again.conv1.weight.dtype == torch.float32
    assert again.conv1.weight.requires_grad
    assert torch.equal(again.conv1.weight, small.network.conv1.weight.float())
