"""The formulas of shapes against torch itself: every operation run for real."""

import operator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from graphprune.graph.rules import output_shapes
from graphprune.graph.rules.operation import Call
from graphprune.graph.rules.table import formula_of, rule_of

SMALL = st.integers(1, 3)


def call(op: object, *args: object, **kwargs: object) -> Call:
    return Call(fx.Graph().placeholder("x"), op, args, kwargs)


def check(op: object, *args: object, **kwargs: object) -> None:
    """The formula gives the shape of the real result, and none where torch refuses."""
    formula = formula_of(op, rule_of(op))
    assert formula is not None
    found = formula(call(op, *args, **kwargs))
    try:
        wanted = (getattr(args[0], op)(*args[1:], **kwargs) if isinstance(op, str) else op(*args, **kwargs)).shape  # type: ignore[operator]
    except RuntimeError:
        wanted = None
    assert found is None if wanted is None else tuple(found or ()) == tuple(wanted)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3), transposed=st.booleans(), data=st.data())
def test_convolutions(n: int, transposed: bool, data: st.DataObject) -> None:
    groups, kernel = data.draw(st.integers(1, 2)), data.draw(st.lists(SMALL, min_size=n, max_size=n))
    options = {"stride": data.draw(SMALL), "dilation": data.draw(SMALL), "padding": data.draw(st.integers(0, 2))}
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{n}d")
    layer = kind(4, 6, tuple(kernel), groups=groups, **options)
    sizes = data.draw(st.lists(st.integers(7 if transposed else 3, 9), min_size=n, max_size=n))
    x = torch.zeros(2, 4, *sizes)
    check(layer, x)
    function = getattr(F, f"conv{'_transpose' if transposed else ''}{n}d")
    check(function, x, layer.weight, layer.bias, groups=groups, **options)


def test_a_convolution_that_torch_refuses_has_no_formula() -> None:
    assert output_shapes.convolution(call(nn.Conv2d(4, 6, 3), torch.zeros(1, 5, 8, 8))) is None
    assert output_shapes.convolution(call(nn.Conv2d(4, 6, 5), torch.zeros(1, 4, 3, 3))) is None
    assert output_shapes.convolution(call(nn.Conv2d(4, 6, 3), torch.zeros(4, 8, 8))) is None
    assert output_shapes.linear(call(nn.Linear(4, 6), torch.zeros(2, 5))) is None


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 3), kind=st.sampled_from(["Max", "Avg"]), data=st.data())
def test_pooling(n: int, kind: str, data: st.DataObject) -> None:
    kernel = data.draw(st.integers(1, 4))
    options = {"stride": data.draw(st.one_of(st.none(), SMALL)), "padding": data.draw(st.integers(0, 2))}
    options["ceil_mode"] = data.draw(st.booleans())
    if kind == "Max":
        options["dilation"] = data.draw(st.integers(1, 2))
    x = torch.zeros(2, 3, *data.draw(st.lists(st.integers(7, 12), min_size=n, max_size=n)))
    check(getattr(nn, f"{kind}Pool{n}d")(kernel, **options), x)
    check(getattr(F, f"{kind.lower()}_pool{n}d"), x, kernel, **options)
    size = data.draw(st.integers(1, 4))
    check(getattr(nn, f"Adaptive{kind}Pool{n}d")(size), x)
    check(getattr(F, f"adaptive_{kind.lower()}_pool{n}d"), x, size)


@settings(max_examples=40, deadline=None)
@given(dims=st.one_of(st.none(), st.integers(-3, 2), st.sets(st.integers(0, 2), min_size=1).map(list)), keep=st.booleans())
def test_reductions(dims: object, keep: bool) -> None:
    x = torch.zeros(2, 3, 4)
    for name in ("mean", "sum", "amax"):
        assume(dims is not None or not keep)
        args = (x,) if dims is None else (x, dims, keep)
        if dims is not None or name != "amax":
            check(name, *args)
            check(getattr(torch, name), *args)


def test_elementwise_operands_broadcast() -> None:
    x, y = torch.zeros(2, 3, 1), torch.zeros(4)
    for op in (operator.add, torch.mul, "sub"):
        check(op, x, y)
    check(F.relu, x)
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 1\), \(2, 4\) do not fit each other"):
        output_shapes.broadcast((2, 3, 1), (2, 4))


def test_concatenations_and_layers() -> None:
    x = torch.zeros(2, 3, 4)
    check(torch.cat, [x, torch.zeros(2, 5, 4), x], 1)
    check(torch.cat, [x, x], dim=-1)
    check(nn.Linear(4, 6), x)
    check(nn.LayerNorm(4), x)
    assert output_shapes.concatenate(call(torch.cat, [x, torch.zeros(2, 3, 5)], 1)) is None


def test_a_formula_that_is_missing_leaves_it_to_torch() -> None:
    assert formula_of(torch.matmul, rule_of(torch.matmul)) is None
    assert output_shapes.pooling(call(nn.AvgPool2d(3, ceil_mode=True), torch.zeros(1, 1, 2, 2))) is None
    assert output_shapes.pooling(call(nn.LPPool2d(2, 2), torch.zeros(1, 1, 4, 4))) is None
    assert output_shapes.pooling(call(nn.MaxPool2d(2, return_indices=True), torch.zeros(1, 1, 4, 4))) is None
    assert output_shapes.reduction(call("mean", torch.zeros(2, 3), 1, dtype=torch.double)) is None


def test_the_shape_of_labels_is_enough() -> None:
    labels: Tensor = torch.full((1, 1, 1, 1), -1).expand(2, 4, 8, 8)
    assert output_shapes.convolution(call(nn.Conv2d(4, 6, 3), labels)) == (2, 6, 6, 6)
