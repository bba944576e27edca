"""What a data set tells of itself."""

import pytest
import torch

from graphprune import models, trace, train
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


def test_what_is_no_data_set_is_answered_with_how_to_make_one() -> None:
    model = models.seeded("tiny_cnn", 0, in_channels=1)
    graph, recipe = trace(model, torch.zeros(1, 1, 8, 8)), train.Recipe(epochs=1, lr=0.1, batch_size=2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8), torch.arange(4)))
    calls = (
        lambda: train.fit(model, loader, recipe, seed=0),
        lambda: train.finetune(model, loader, recipe, seed=0),
        lambda: train.evaluate(model, loader),
        lambda: train.reestimate_bn(model, loader),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"data is a DataLoader: make a data set of it with .* from_loaders"):
            call()
    with pytest.raises(TypeError, match="keep must be a dictionary, group name -> mask, got list"):
        graph.flatten([torch.ones(4).bool()])  # type: ignore[arg-type]
