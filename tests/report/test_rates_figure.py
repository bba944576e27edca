"""The picture of a small network at two rates, and the sliders that move them."""

import matplotlib
import pytest
import torch

from graphprune import models, trace
from graphprune.report import rates_figure

matplotlib.use("Agg")
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, Rectangle


@pytest.fixture(scope="module")
def net():
    model = models.seeded("tiny_cnn", 0, in_channels=1)
    return model, trace(model, torch.zeros(1, 1, 8, 8))


def test_shares_are_those_counted_by_hand(net):
    # conv1 9 x 4, conv2 9 x 16, conv3 9 x 12 weights on 64 places; fc 3 x 10
    found = rates_figure.shares(net[1], [0.5, 0])
    whole = 64 * (9 * 4 + 9 * 16 + 9 * 12) + 30
    assert found["MACs left"] == (64 * (9 * 2 + 9 * 4 + 9 * 6) + 30) / whole
    assert found["channels removed, R(r)"] == 4 / 11
    assert rates_figure.shares(net[1], [0, 0]) == {"channels removed, R(r)": 0, "MACs left": 1, "parameters left": 1}


def test_every_channel_is_a_square_in_the_colour_of_its_feature(net):
    model, graph = net
    left, middle, right = rates_figure.draw(model, graph, [0.5, 0.9]).axes
    squares = [patch for patch in left.patches if isinstance(patch, Rectangle)]
    assert len(squares) == 4 * 4 + 3 * 3 + 10
    colours = [to_hex(square.get_facecolor()) for square in squares]
    assert colours.count(rates_figure.COLOURS[-1]) == 4 * 2 + 3 * 2  # eq. 2 keeps 1 of 3 channels at 0.9
    assert sum(isinstance(patch, FancyArrowPatch) for patch in left.patches) == graph.edge_index.shape[1]
    values = [int(text.get_text()) for text in middle.texts]
    assert (values.count(-1), values.count(1)) == (4 * 2 + 3 * 2, 4 * 2 + 3 * 1 + 10)
    assert right.texts[0].get_text() == "channels removed, R(r): 60.9 %"


def test_moving_a_slider_draws_anew(net, watch, monkeypatch):
    shown = watch(rates_figure)
    rates_figure.show(*net, [0.5, 0])
    assert [knob.description for knob in shown[0].children] == ["rate of conv1", "rate of conv3"]
    for knob in shown[0].children:
        knob.value = 0.3
    assert [picture[:4] for picture in shown[1:]] == [b"\x89PNG"] * 2
    assert shown[1] != shown[2]
    monkeypatch.setattr(rates_figure, "is_interactive", lambda: False)
    rates_figure.show(*net, [0.5, 0])
    assert len(shown) == 3


@pytest.mark.parametrize("rates", [[0.5], [0.5, 1.0], [0.55, 0], [-0.1, 0]])
def test_rates_that_are_no_tenths_are_named(net, rates):
    with pytest.raises(ValueError, match=r"rates=.*give 2, one for each group, tenths from 0 to 0\.9"):
        rates_figure.shares(net[1], rates)
