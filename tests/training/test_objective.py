"""Loss and metric by hand, of classification and of one's own."""

import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.training.objective import CLASSIFICATION, PIXELS, Objective, accuracy, plain

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0]])
CLASSES = torch.tensor([0, 1, 1])


def test_classification_is_cross_entropy_and_hits() -> None:
    loss, hits = CLASSIFICATION.sums(LOGITS, CLASSES)
    assert loss.equal(F.cross_entropy(LOGITS, CLASSES, reduction="sum"))
    assert (hits.dtype, hits.item()) == (torch.int64, 2)
    smooth = CLASSIFICATION.mean_loss(LOGITS, CLASSES, 0.1)
    assert smooth.equal(F.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1))


def test_classification_is_recognised_in_another_process() -> None:
    assert pickle.loads(pickle.dumps(CLASSIFICATION)) == CLASSIFICATION
    assert pickle.loads(pickle.dumps(PIXELS)) == PIXELS != CLASSIFICATION


def test_a_loss_may_be_a_mean_or_one_number_an_input() -> None:
    each = Objective(lambda outputs, targets: (outputs - targets).square(), lambda outputs, targets: (outputs > 0).float())
    mean = Objective(lambda outputs, targets: (outputs - targets).square().mean())
    outputs, targets = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0])
    assert [float(value) for value in each.sums(outputs, targets)] == [8.0, 1.0]
    assert [float(value) for value in mean.sums(outputs, targets)] == [8.0, -8.0], "without a metric, the negative loss"


def test_pixels_are_counted_by_input() -> None:
    outputs = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]]).permute(0, 2, 1)  # (2, classes, pixels)
    targets = torch.tensor([[0, 0], [0, 1]])
    assert accuracy(outputs, targets).tolist() == [1.0, 0.5]
    assert float(PIXELS.hits(outputs, targets)) == 1.5


def test_what_is_no_loss_is_named() -> None:
    with pytest.raises(TypeError, match=r"loss must return a tensor, \(\) or \(B,\) = \(3,\), and returned a float"):
        Objective(lambda outputs, targets: 1.0).sums(LOGITS, CLASSES)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"metric must .* a tensor of shape \(3, 2\)"):
        Objective(accuracy, lambda outputs, targets: outputs).sums(LOGITS, CLASSES)


def test_the_tensor_that_counts_is_found() -> None:
    class Output:
        logits = LOGITS

    assert plain(Output()) is LOGITS
    assert plain({"aux": CLASSES, "out": LOGITS}) is LOGITS
    assert plain(LOGITS) is LOGITS
    both: dict[str, Tensor] = {"mine": LOGITS}
    assert plain(both) is both
