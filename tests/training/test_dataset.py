"""What a data set tells of itself."""

import pytest
import torch

from graphprune.training.data import from_tensors, load


def test_it_prints_on_a_line() -> None:
    digits = load("digits", device="cpu")
    assert repr(digits) == "Dataset('digits': train 1,137, val 300, test 360; inputs 1 x 8 x 8; 10 outputs)"


def test_a_split_that_is_missing_is_named() -> None:
    own = from_tensors(train=(torch.rand(4, 2), torch.tensor([0, 1, 0, 1])), device="cpu")
    own.demand("train")
    with pytest.raises(ValueError, match=r"data has no val split, which this needs: give val=\(inputs, targets\)"):
        own.demand("train", "val", "test")


def test_the_example_has_the_type_of_the_inputs() -> None:
    words = from_tensors(train=(torch.zeros(4, 7, dtype=torch.int64), torch.tensor([0, 1, 0, 1])), device="cpu")
    assert (words.example(2).shape, words.example().dtype) == ((2, 7), torch.int64)
    assert load("digits", device="cpu").example().dtype == torch.float32
