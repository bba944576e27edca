"""Whole numbers in few bytes, files, and the int8 kernel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from three_nodes import PATH
from torch import nn

from graphprune.compression import packed
from graphprune.compression.a2q import A2Q
from graphprune.compression.packed import Int8Linear, pack, pack_sparse, unpack, unpack_sparse, use_int8
from graphprune.compression.quantized_network import quantize
from graphprune.compression.quantizer import Uniform
from graphprune.compression.sparse_features import to_csr
from graphprune.runs.runtime import import_pyg

import_pyg()
from torch_geometric.nn import GCNConv, GINConv  # noqa: E402


def test_two_numbers_of_four_bits_share_a_byte():
    assert pack(torch.tensor([[1, 2], [-8, 7]]), 4).tolist() == [1 + 16 * 2, 8 + 16 * 7]
    assert pack(torch.tensor([5]), 3 + 1).tolist() == [5]
    assert pack(torch.tensor([-128, 127]), 8).dtype == torch.int8
    assert pack(torch.tensor([-129]), 9).dtype == torch.int16


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(2, 16), values=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=0, max_size=9))
def test_what_is_packed_is_unpacked(bits: int, values: list[int]):
    half = 2 ** (bits - 1)
    numbers = torch.tensor([(value + half) % (2 * half) - half for value in values], dtype=torch.int64)
    assert unpack(pack(numbers, bits), numbers.shape, bits).tolist() == numbers.tolist()


@pytest.mark.parametrize(("kept", "bytes_"), [(2, 2 + 1), (16, 8), (10, 2 + 5), (12, 8)])  # of 16 places in 4 bits
def test_sparse_numbers_take_a_bit_for_each_place_where_that_is_less(kept: int, bytes_: int):
    numbers = torch.zeros(2, 8, dtype=torch.int32)
    numbers.view(-1)[:kept] = torch.arange(-4, kept - 4).clamp(max=7).where(torch.arange(kept) != 4, 7).int()
    found = pack_sparse(numbers, 4)
    assert sum(part.nbytes for part in found.values()) == bytes_
    assert unpack_sparse(found, numbers.shape, 4).tolist() == numbers.tolist()


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="from 1 to 8, beyond bits=4"):
        pack(torch.tensor([1, 8]), 4)


def network(scheme: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 32))
    return quantize(GINConv(model), scheme, torch.rand(3, 64), PATH).eval()


@pytest.mark.parametrize(("bits", "bytes_"), [(4, (64 * 256 + 256 * 32) // 2), (8, 64 * 256 + 256 * 32)])
def test_a_file_has_the_bytes_of_its_weights_and_little_else(tmp_path: Path, bits: int, bytes_: int):
    size = packed.save(tmp_path / "net.safetensors", network(Uniform(bits)))
    assert size == (tmp_path / "net.safetensors").stat().st_size
    floats = 4 * (256 + 32 + 4 * 256)  # biases and batch normalisation
    assert bytes_ + floats < size < bytes_ + floats + 2500  # names and shapes


@pytest.mark.parametrize("scheme", [Uniform(4), Uniform(8), Uniform(12), A2Q(4)])
def test_a_loaded_network_computes_what_the_saved_one_did(tmp_path: Path, scheme: Any):
    saved, x = network(scheme), torch.rand(3, 64)
    packed.save(tmp_path / "net", saved)
    loaded = packed.load(tmp_path / "net", network(scheme, seed=1))
    assert torch.equal(loaded(x, PATH), saved(x, PATH))


def test_a_pruned_network_takes_fewer_bytes_and_is_read_back(tmp_path: Path):
    saved, x = network(Uniform(8)), torch.rand(3, 64)
    whole = packed.save(tmp_path / "net", saved)
    for _, layer in packed.quantized_layers(saved):
        with torch.no_grad():
            layer.weight.masked_fill_(layer.weight.abs() < layer.weight.abs().quantile(0.9), 0.0)
    count = 64 * 256 + 256 * 32
    saving = whole - packed.save(tmp_path / "net", saved)
    assert saving == pytest.approx(count - count / 8 - count / 10, abs=300)  # names of two tensors in place of one
    assert torch.equal(packed.load(tmp_path / "net", network(Uniform(8), seed=1))(x, PATH), saved(x, PATH))


def linear(scheme: Any, weight: torch.Tensor) -> nn.Module:
    """A quantized layer with this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return quantize(layer, scheme, torch.eye(weight.shape[1])).eval()


TIES = torch.tensor([[7.0, 0.5, 1.5, 2.5, -0.5, -2.5, 3.5, 4.5]])
HALF_STEPS = torch.arange(-254, 255).float()[None] * 0.0037


@pytest.mark.parametrize(
    ("scheme", "weight"),
    [
        *((Uniform(bits), torch.randn(64, 64, generator=torch.Generator().manual_seed(bits))) for bits in range(2, 17)),
        *((Uniform(8), HALF_STEPS * scale) for scale in (1.0, 0.7, 1e-9, 1e7)),
        *((Uniform(4), TIES), (A2Q(4), TIES), (A2Q(4), TIES * 1e-7), (Uniform(8), torch.zeros(2, 2))),
    ],
)
def test_every_weight_is_loaded_as_it_was_used(tmp_path: Path, scheme: Any, weight: torch.Tensor):
    saved = linear(scheme, weight)
    packed.save(tmp_path / "net", saved)
    loaded = packed.load(tmp_path / "net", linear(scheme, torch.ones(weight.shape)))
    assert torch.equal(loaded.of_weight(loaded.weight), saved.of_weight(saved.weight))


def test_whether_learned_grids_are_unsigned_is_in_the_file(tmp_path: Path):
    x = torch.linspace(0, 1, 12).view(3, 4)
    saved, other = (quantize(nn.Linear(4, 2), A2Q(4), sample).eval() for sample in (x, x - 0.5))
    packed.save(tmp_path / "net", saved)
    for z in (x, 2 * x):
        assert torch.equal(packed.load(tmp_path / "net", other)(z), saved(z))
    assert not other.entering.unsigned


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(8, Uniform(8)), (8, Uniform(6)), (8, Uniform(12)), (6, Uniform(4)), (10, Uniform(4)), (6, A2Q(4)), (8, A2Q(4, groups=8))],
)
@pytest.mark.parametrize("saved", [Uniform(4), Uniform(7), A2Q(4)])
def test_a_file_of_other_bits_or_shapes_is_refused(tmp_path: Path, saved: Any, width: int, scheme: Any):
    packed.save(tmp_path / "net", linear(saved, torch.ones(16, 8)))
    with pytest.raises(ValueError, match="no packed layers with the names, shapes and bits of this network"):
        packed.load(tmp_path / "net", linear(scheme, torch.ones(16, width)))


def test_a_layer_under_two_names_is_packed_once_and_a_weight_of_two_layers_is_refused(tmp_path: Path):
    def twice() -> nn.Module:
        layer = nn.Linear(64, 64)
        return quantize(nn.Sequential(layer, nn.ReLU(), layer), Uniform(8), torch.randn(5, 64)).eval()

    saved, x = twice(), torch.randn(3, 64)
    assert 64 * 64 < packed.save(tmp_path / "net", saved) < 64 * 64 + 4 * 64 + 1000
    assert torch.equal(packed.load(tmp_path / "net", twice())(x), saved(x))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="layer '1' shares its weight"):
        packed.save(tmp_path / "net", quantize(tied, Uniform(8), torch.randn(5, 4)))


def test_the_text_that_tells_files_apart_takes_no_byte(tmp_path: Path):
    """The header's text had 19 characters in this place before, and the sizes in the reports hold it."""
    packed.save(tmp_path / "net", linear(Uniform(8), torch.ones(2, 2)))
    header = (tmp_path / "net").read_bytes()[8:].split(b"}")[0].decode()
    assert len(header.partition('"kind":"')[2].partition('"')[0]) == len("graphprune packed 1")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_pass_the_simulated_layer_and_are_refused_by_the_integer_kernel(bad: float):
    layer, x = linear(Uniform(8), torch.ones(1, 2)), torch.tensor([[bad, 1.0], [0.0, 1.0]])
    assert torch.equal(layer(x).nan_to_num(nan=9.0), torch.tensor([[bad], [1.0]]).nan_to_num(nan=9.0))
    with pytest.raises(ValueError, match="NaN or infinite"):
        use_int8(layer)(x)


def test_a_network_of_one_layer_runs_on_the_integer_kernel():
    assert isinstance(use_int8(linear(Uniform(8), torch.ones(2, 2))), Int8Linear)


def test_files_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"packed\.save writes one"):
        packed.load(tmp_path / "none", network(Uniform(8)))
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        packed.load(tmp_path / "text", network(Uniform(8)))
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="no packed layers"):
        packed.load(tmp_path / "other", network(Uniform(8)))
    packed.save(tmp_path / "net", network(Uniform(8)))
    with pytest.raises(ValueError, match="no packed layers with the names, shapes and bits of this network"):
        packed.load(tmp_path / "net", network(A2Q()))
    with pytest.raises(ValueError, match="no layer is quantized"):
        packed.save(tmp_path / "net", nn.Linear(2, 2))


def test_the_integer_kernel_computes_what_the_simulated_layer_does():
    torch.manual_seed(0)
    conv = GCNConv(64, 32)
    x = torch.randn(3, 64)
    simulated = quantize(conv, Uniform(8), x, PATH).eval()
    real = use_int8(simulated)
    assert isinstance(real.conv.lin, Int8Linear)
    assert real.conv.lin.weight.dtype == torch.int8
    for inputs in (x, 3 * x, to_csr(x)):  # beyond the range as well
        assert torch.allclose(real(inputs, PATH), simulated(inputs, PATH), atol=1e-4)


@pytest.mark.parametrize("scheme", [Uniform(4), A2Q(4)])
def test_layers_of_other_bits_are_named(scheme: Any):
    with pytest.raises(ValueError, match=r"layer 'conv\.nn\.0' is not quantized to 8 bits"):
        use_int8(network(scheme))
