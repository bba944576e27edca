"""A figure as a cell's output."""

from matplotlib.figure import Figure

from graphprune.report.picture import is_interactive, make_picture


def test_nobody_is_there_outside_a_notebook():
    assert not is_interactive()


def test_equal_figures_are_equal_pictures_that_say_what_they_show():
    first, second = make_picture(Figure(figsize=(2, 1)), "a blank"), make_picture(Figure(figsize=(2, 1)))
    assert first.data == second.data
    assert first.data.startswith(b"\x89PNG")
    assert first._repr_mimebundle_()[1]["image/png"]["alt"] == "a blank"
