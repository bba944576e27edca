"""The picture of a layer that is pruned and quantized."""

import pandas as pd
import pytest
import torch

from graphprune.report import compression_figure

WEIGHT = torch.tensor([[0.1, -0.5], [1.2, -3.0]])
TABLE = pd.DataFrame([[90.0, 80.0], [70.0, 60.0]], index=[0.0, 0.5], columns=[2, 8])


def test_the_stairs_prune_the_smallest_and_round_the_rest():
    values = torch.tensor([-3.0, -1.6, -0.4, 0.5, 0.6, 1.2, 9.0])
    assert compression_figure.staircase(values, WEIGHT, 0.5, 3).tolist() == [-3.0, -2.0, 0.0, 0.0, 1.0, 1.0, 3.0]
    assert compression_figure.staircase(values, WEIGHT, 0.0, 2).tolist() == [-3.0, -3.0, 0.0, 0.0, 0.0, 0.0, 3.0]
    assert compression_figure.staircase(values, WEIGHT, 1.0, 3)[:6].tolist() == [0.0] * 6


def test_the_picture_counts_what_stays_and_shows_the_table():
    left, right = compression_figure.draw(WEIGHT, TABLE, 0.5, 8).axes[:2]
    assert left.get_title() == "2 of 4 weights stay, 8 bits each"
    assert [text.get_text() for text in right.texts] == ["90", "80", "70", "60"]
    assert right.patches[-1].get_xy() == (1, 1)


def test_moving_a_slider_draws_anew(watch, monkeypatch):
    shown = watch(compression_figure)
    compression_figure.show(WEIGHT, TABLE, 0.5, 8)
    shown[0].children[1].value = 2
    assert shown[1].startswith(b"\x89PNG")
    monkeypatch.setattr(compression_figure, "is_interactive", lambda: False)
    compression_figure.show(WEIGHT, TABLE, 0.5, 8)
    assert len(shown) == 2


@pytest.mark.parametrize(("sparsity", "bits"), [(0.4, 8), (0.5, 3)])
def test_values_that_the_table_lacks_are_refused(sparsity, bits):
    with pytest.raises(ValueError, match=f"sparsity={sparsity}, bits={bits}"):
        compression_figure.draw(WEIGHT, TABLE, sparsity, bits)


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match=r"sparsity=1\.5"):
        compression_figure.staircase(torch.zeros(1), WEIGHT, 1.5, 3)
