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
    assert torch.allclose(loaded(x, PATH), saved(x, PATH), atol=1e-5)


def test_a_pruned_network_takes_fewer_bytes_and_is_read_back(tmp_path: Path):
    saved, x = network(Uniform(8)), torch.rand(3, 64)
    whole = packed.save(tmp_path / "net", saved)
    for _, layer in packed.quantized_layers(saved):
        with torch.no_grad():
            layer.weight.masked_fill_(layer.weight.abs() < layer.weight.abs().quantile(0.9), 0.0)
    count = 64 * 256 + 256 * 32
    saving = whole - packed.save(tmp_path / "net", saved)
    assert saving == pytest.approx(count - count / 8 - count / 10, abs=300)  # names of two tensors in place of one
    assert torch.allclose(packed.load(tmp_path / "net", network(Uniform(8), seed=1))(x, PATH), saved(x, PATH), atol=1e-5)


def test_files_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"packed\.save writes one"):
        packed.load(tmp_path / "none", network(Uniform(8)))
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        packed.load(tmp_path / "text", network(Uniform(8)))
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="no packed network"):
        packed.load(tmp_path / "other", network(Uniform(8)))
    packed.save(tmp_path / "net", network(Uniform(8)))
    with pytest.raises(ValueError, match="does not fit the network"):
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
