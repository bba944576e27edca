"""Rows of epochs as a list, a table and a picture."""

from graphprune.training.history import History

ROWS = [
    {"epoch": 1.0, "loss": 2.0, "accuracy_train": 0.5, "loss_val": 3.0},
    {"epoch": 2.0, "loss": 1.0, "accuracy_train": 0.75, "loss_val": 2.0},
]


def test_it_is_the_list_of_its_rows() -> None:
    assert History(ROWS) == ROWS
    assert History(ROWS).frame()["loss"].tolist() == [2.0, 1.0]


def test_the_picture_has_a_line_for_each_measure() -> None:
    loss, accuracy = History(ROWS).plot().axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2.0, 1.0], [3.0, 2.0]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[0.5, 0.75]]
