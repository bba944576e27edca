"""Numbers that know where they come from behave as the numbers they are."""

import copy
import operator
import pickle

import pytest

from graphprune.graph.sizes import Ratio, Size, attribute, bare, with_origin


class Uses:
    """Counts how often numbers were used."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_size_is_its_number_with_an_origin() -> None:
    uses = Uses()
    size = with_origin(8, uses, "size", "x", 1)
    assert isinstance(size, Size)
    assert size.origin == ("size", "x", 1)
    assert uses.count == 0
    assert (size == 8, size > 9, [0] * (size + 1) == [0] * 9) == (True, False, True)
    assert uses.count == 3
    assert list(range(size)) == list(range(8))
    assert {8: "eight"}[size] == "eight"


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"])
def test_what_is_computed_of_it_knows_both_operands_in_order(name: str) -> None:
    op = getattr(operator, name)
    size = with_origin(8, Uses(), "size")
    for found, value, operands in ((op(size, 3), op(8, 3), (size, 3)), (op(3, size), op(3, 8), (3, size))):
        assert bare(found) == value
        assert type(bare(found)) is type(value)
        assert found.origin[0] is op
        assert [a is b or a == b for a, b in zip(found.origin[1:], operands, strict=True)] == [True, True]
    assert isinstance(size / 2, Ratio)
    assert bare(-size) == -8
    assert (-size).origin[0] is operator.neg


def test_two_sizes_have_both_as_origin() -> None:
    a, b = with_origin(6, Uses(), "a"), with_origin(4, Uses(), "b")
    product = a * b
    assert (bare(product), product.origin[1] is a, product.origin[2] is b) == (24, True, True)


def test_only_numbers_take_an_origin() -> None:
    assert type(with_origin(True, Uses(), "x")) is bool
    assert with_origin("text", Uses(), "x") == bare("text") == "text"
    assert type(bare(with_origin(2.5, Uses(), "x"))) is float
    assert (with_origin(2, Uses(), "x") == "2") is False


def test_copies_and_pickles_are_plain_numbers() -> None:
    for number in (with_origin(3, Uses(), "x"), with_origin(0.5, Uses(), "x")):
        for plain in (copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
            assert type(plain) in (int, float)
            assert plain == bare(number)


def test_an_attribute_stands_in_traces_alone() -> None:
    with pytest.raises(NotImplementedError):
        attribute("net", "width", None)
