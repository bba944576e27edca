"""Products in bfloat16 on a CPU without its instructions: the same numbers as torch's own, by float32 kernels."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import graphprune
from graphprune.training import mixed_precision as module
from graphprune.training.mixed_precision import Widened, mixed_precision
from graphprune.training.recipe import Recipe

CPU = torch.device("cpu")


class Seen(TorchDispatchMode):
    """The types of what convolutions get."""

    def __init__(self):
        super().__init__()
        self.types = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in str(func):
            self.types.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def whole(*shape, seed=0):
    """Small whole numbers: exact in bfloat16, as are their products, so that the order of a sum does not matter."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize(("product", "shapes"), [
    (lambda x, w: F.conv2d(x, w, padding=1), [(2, 3, 5, 5), (4, 3, 3, 3)]),
    (lambda x, w: F.conv2d(x, w, stride=2, groups=3), [(2, 3, 5, 5), (6, 1, 3, 3)]),
    (F.linear, [(2, 6), (4, 6), (4,)]),
    (torch.mm, [(2, 6), (6, 3)]),
    (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
])  # fmt: skip
def test_whole_numbers_give_the_same_bits_as_torch(product, shapes):
    def asked():
        given = [whole(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
        out = product(*given)
        out.sum().backward()
        return [out, *(value.grad for value in given)]

    expected = asked()
    with Widened():
        found = asked()
    for mine, torchs in zip(found, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert torch.equal(mine, torchs)


def test_a_network_differs_by_rounding_alone():
    torch.manual_seed(0)
    model, x = graphprune.models.build("resnet8", in_channels=1).eval(), torch.randn(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = model(x)
        with Widened():
            found = model(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert (found - expected).abs().max() <= 0.03 * expected.abs().max()  # bfloat16 has 8 bits


@pytest.mark.parametrize(("precision", "instructions", "type_"), [
    ("bfloat16", False, torch.float32), ("bfloat16", True, torch.bfloat16), ("float32", False, torch.float32),
])  # fmt: skip
def test_kernels_are_float32_where_the_cpu_has_no_others(precision, instructions, type_, monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16", lambda: instructions)
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    with Seen() as seen, mixed_precision(CPU, precision):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            out = layer(x)
        out.float().sum().backward()
    assert seen.types == [type_, type_]  # forward and backward
    assert out.dtype == (torch.float32 if precision == "float32" else torch.bfloat16)


def test_a_training_in_bfloat16_uses_them(monkeypatch):
    data, recipe = graphprune.data.load("digits"), Recipe(epochs=0.2, lr=0.05, batch_size=64, precision="bfloat16")
    torch.manual_seed(0)
    first = graphprune.models.build("resnet8", in_channels=1)

    def trained(instructions):
        monkeypatch.setattr(module, "has_bfloat16", lambda: instructions)
        model = copy.deepcopy(first)
        with Seen() as seen:
            losses = [row["loss"] for row in graphprune.train.fit(model, data, recipe, seed=0)]
        return losses, seen.types

    (widened, wide), (native, narrow) = trained(False), trained(True)
    assert torch.bfloat16 not in wide
    assert torch.bfloat16 in narrow
    assert widened == pytest.approx(native, rel=0.02)
