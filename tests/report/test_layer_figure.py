"""The picture of one layer, thinned by two rules."""

import pytest
import torch

from graphprune.report import layer_figure

BRIDGE = torch.tensor([[2.0, -1.0, 0.0], [1.0, 2.0, 0.0], [0.0, -0.5, 4.0], [0.0, 0.0, 3.0]])


def test_magnitude_drops_the_bridge_and_resistance_an_edge_of_the_ring():
    found = layer_figure.thinned(BRIDGE, 0.5)
    assert not found["magnitude"][2, 1]
    assert found["resistance"][2, 1]
    assert int(found["resistance"][:2, :2].sum()) == 3


def test_the_picture_has_two_graphs_and_a_spectrum():
    figure = layer_figure.draw(BRIDGE, 0.5)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["magnitude: 6 of 12 edges, 2 components", "resistance: 6 of 12 edges, 1 component"]
    assert len(figure.axes[2].patches) == 9


def test_moving_the_slider_draws_anew(watch, monkeypatch):
    shown = watch(layer_figure)
    layer_figure.show(BRIDGE, 0.5)
    shown[0].value = 0.75
    assert shown[1].startswith(b"\x89PNG")
    monkeypatch.setattr(layer_figure, "is_interactive", lambda: False)
    layer_figure.show(BRIDGE, 0.5)
    assert len(shown) == 2


def test_the_sparsity_of_the_picture_is_checked():
    with pytest.raises(ValueError, match=r"sparsity=1\.0"):
        layer_figure.draw(BRIDGE, 1.0)
