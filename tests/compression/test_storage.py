"""Files of pruned networks come back bit for bit; what runs sparse computes the same; memory by hand."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as packed
from torch import nn

from graphprune.compression import graph_data, networks, recipes, storage
from graphprune.compression.weight_pruning import prune_globally
from graphprune.pruning import weight_masks

KARATE = graph_data.load("karate")


def pruned(model: str, sparsity: float) -> nn.Module:
    net = networks.build(model, KARATE, recipes.find("karate", model), seed=0)
    return weight_masks.apply(net, prune_globally(net, sparsity)).eval()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("model", ["gcn", "gin", "gat", "sage"])
def test_a_stored_network_comes_back_bit_for_bit(model: str, sparsity: float, tmp_path: Path) -> None:
    small = pruned(model, sparsity)
    path = storage.save(tmp_path / "net.safetensors", small)
    other = networks.build(model, KARATE, recipes.find("karate", model), seed=9)
    found = storage.load(path, other).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in small.state_dict().items())
    assert path.stat().st_size == len(storage.pack(small))


def test_a_weight_takes_the_smallest_of_three_forms() -> None:
    """64 x 64 float32 weights: 16,384 bytes dense; as a bitmap 512 + 4 each; as rows 256 + 6 each."""
    sizes = {}
    for kept in (4000, 2000, 100):
        layer = nn.Linear(64, 64, bias=False)
        with torch.no_grad():
            layer.weight.fill_(1.0).flatten()[kept:] = 0
        sizes[kept] = sum(value.numel() * value.element_size() for value in _tensors(storage.pack(layer)).values())
    assert sizes == {4000: 16384, 2000: 512 + 4 * 2000, 100: 256 + 6 * 100}


def _tensors(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(content)


def test_theory_counts_values_and_a_file_counts_places_too() -> None:
    small = pruned("gcn", 0.5)
    assert storage.count_theoretical_bytes(small) == 4 * (288 + 16 + 2)
    assert len(storage.pack(small)) > storage.count_theoretical_bytes(small)


def test_zeros_alone_save_nothing_in_an_ordinary_file() -> None:
    whole, small = (packed(dict(pruned("gcn", share).state_dict())) for share in (0.0, 0.9))
    assert len(whole) == len(small)


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_a_file_that_is_no_such_network_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        storage.load(path, pruned("gcn", 0.5))
    with pytest.raises(FileNotFoundError, match=r"storage.save writes one"):
        storage.load(tmp_path / "none", pruned("gcn", 0.5))


def test_a_file_of_other_layers_is_refused(tmp_path: Path) -> None:
    path = storage.save(tmp_path / "net.safetensors", pruned("gcn", 0.5))
    with pytest.raises(ValueError, match="no layers with the names, types and shapes of this network"):
        storage.load(path, pruned("sage", 0.5))


@pytest.mark.parametrize("model", ["gcn", "gin", "gat", "sage"])
def test_csr_weights_compute_the_same(model: str) -> None:
    small = pruned(model, 0.9)
    (batch,) = KARATE.batches("test", 1)
    sparse = storage.with_sparse_weights(small)
    assert any(isinstance(layer, storage.SparseLinear) for layer in sparse.modules())
    with torch.no_grad():
        assert torch.allclose(sparse(*batch.inputs), small(*batch.inputs), rtol=0, atol=1e-6)


def test_peak_memory_counts_what_lives_at_the_same_time() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert storage.measure_peak_memory(net, (torch.zeros(10, 4),)) == 4 * 10 * (8 + 8)  # both sides of the ReLU


def sparse(layer: nn.Module, share: float) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape) * (torch.rand(layer.weight.shape) < share))
    return layer


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])  # rows, bitmap, dense
@pytest.mark.parametrize("shape", [(120, 16), (50, 32), (16, 100)])
def test_a_file_of_other_shapes_is_refused_and_nothing_is_written(share: float, shape: tuple[int, int], tmp_path: Path) -> None:
    path = storage.save(tmp_path / "net", nn.Sequential(nn.Linear(3, 3), sparse(nn.Linear(100, 16, bias=False), share)))
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(*shape, bias=False))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="no layers with the names, types and shapes of this network"):
        storage.load(path, other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_file_of_another_type_of_numbers_is_refused(tmp_path: Path) -> None:
    path = storage.save(tmp_path / "net", nn.Linear(4, 4))
    with pytest.raises(ValueError, match="no layers with the names, types"):
        storage.load(path, nn.Linear(4, 4).double())


def test_what_tells_shapes_apart_takes_no_byte() -> None:
    """The header's text had 27 characters in this place before, and the sizes in the reports hold it."""
    header = storage.pack(nn.Linear(100, 16))[8:].split(b"}")[0].decode()
    assert len(header.partition('"kind":"')[2].partition('"')[0]) == len("graphprune sparse weights 1")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize(
    "make", [lambda: nn.Conv1d(64, 32, 5), lambda: nn.Conv2d(8, 32, 3), lambda: nn.ConvTranspose2d(8, 32, 3)]
)
def test_a_convolution_comes_back_bit_for_bit(share: float, make: Callable[[], nn.Module], tmp_path: Path) -> None:
    layer = sparse(make(), share)
    found = storage.load(storage.save(tmp_path / "net", layer), make())
    assert torch.equal(found.weight, layer.weight)
    assert ("weight:columns" in _tensors(storage.pack(layer))) == (share < 0.02)


def test_weights_that_layers_share_are_stored_once(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
        net[1].weight = net[0].weight
        return net

    net = tied()
    found = storage.load(storage.save(tmp_path / "net", net), tied())
    assert torch.equal(found[0].weight, net[0].weight)
    assert found[0].weight is found[1].weight
    assert 4 * 64 * 64 < len(storage.pack(net)) < 4 * 64 * 64 + 500
    with pytest.raises(ValueError, match="no layers with the names"):  # its layers do not share
        storage.load(tmp_path / "net", nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)))


def test_linear_layers_of_any_network_multiply_by_csr_weights() -> None:
    x, shared = torch.randn(3, 4), nn.Linear(4, 4)
    named = nn.Sequential(OrderedDict(first=shared, act=nn.ReLU(), again=shared))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    for net in (nn.Linear(4, 4), named, tied):
        found = storage.with_sparse_weights(net)
        assert not any(isinstance(layer, nn.Linear) for layer in found.modules())
        assert torch.allclose(found(x), net(x), atol=1e-6)


def test_convolutions_stay_dense_and_alone_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3, 2))
    found = storage.with_sparse_weights(net)
    assert [type(layer).__name__ for layer in found] == ["Conv2d", "Flatten", "SparseLinear"]
    with pytest.raises(ValueError, match=r"of 0\.weight none is the weight of a linear layer"):
        storage.with_sparse_weights(net[:1])


def test_views_of_weights_and_inputs_are_not_what_a_pass_makes() -> None:
    assert storage.measure_peak_memory(nn.Linear(100, 10, bias=False), (torch.zeros(1, 100),)) == 4 * 10
    halves = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 50)), nn.Linear(50, 3))
    assert storage.measure_peak_memory(halves, (torch.zeros(7, 10, 10),)) == 4 * 7 * 2 * 3
