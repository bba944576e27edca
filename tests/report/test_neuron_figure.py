"""The picture of the network that notebook 07 solves by hand."""

import math

import pytest
import torch
from torch import nn

from graphprune import neurons
from graphprune.report import neuron_figure


def network() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight[:], net[2].weight[:] = 0, 0
        for unit, source in neuron_figure.INPUT:
            net[0].weight[unit, source] = 1
        for (out, unit), weight in neuron_figure.OUTPUT.items():
            net[2].weight[out, unit] = weight
    return net


def test_the_optimum_by_hand_is_the_programs():
    found = neurons.scores(network(), torch.eye(2), torch.tensor([0, 1]), lam=5.0)
    assert found.status == "optimal"
    s = found["0"].tolist()
    assert s == pytest.approx([math.log(29) / 4, math.log(29) / 4, 0], abs=1e-2)
    assert found.objective == pytest.approx(neuron_figure.objective((neuron_figure.best(5.0),) * 2 + (0.0,), 5.0), abs=1e-3)


@pytest.mark.parametrize(("lam", "score"), [(0.1, 0.0), (5.0, 0.8418), (100.0, 1.0)])
def test_the_best_score_stays_between_0_and_1(lam, score):
    assert neuron_figure.best(lam) == pytest.approx(score, abs=1e-4)
    around = [neuron_figure.objective((value / 50, 0.5, 0.0), lam) for value in range(51)]
    assert min(around) >= neuron_figure.objective((neuron_figure.best(lam), 0.5, 0.0), lam) - 1e-12


def test_the_picture_names_the_score_and_the_optimum():
    figure = neuron_figure.draw(0.5)
    assert "unit 0\n0.50" in [text.get_text() for text in figure.axes[0].texts]
    assert "optimum log(6 λ - 1) / 4 = 0.842" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


def test_moving_the_slider_draws_anew(watch, monkeypatch):
    shown = watch(neuron_figure)
    neuron_figure.show(0.5)
    shown[0].value = 0.76
    assert shown[1].startswith(b"\x89PNG")
    monkeypatch.setattr(neuron_figure, "is_interactive", lambda: False)
    neuron_figure.show(0.5)
    assert len(shown) == 2


def test_a_score_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"score=1\.5"):
        neuron_figure.draw(1.5)
