"""The result of pruning to a budget."""

from pathlib import Path

import torch

import graphprune
from graphprune.pruning.pruned import Pruned


def test_the_result_prints_on_a_line_and_saves(tmp_path: Path) -> None:
    tiny = graphprune.models.seeded("tiny_cnn", 0, in_channels=1).eval()
    found = graphprune.prune_to(tiny, torch.zeros(1, 1, 8, 8), macs=0.5)
    assert isinstance(found, Pruned)
    assert repr(found) == (
        "Pruned(TinyCNN: 37.6% of 18,462 multiply-adds, 46.3% of 350 parameters, 5 of 7 channels in 2 groups, frozen layers: 1)"
    )
    assert found.widths.values.tolist() == [["conv1", 2, 4, 2], ["conv3", 1, 3, 3]]
    assert "<table" in found._repr_html_()
    again = graphprune.load_pruned(found.save(tmp_path / "small.safetensors"), graphprune.models.tiny_cnn())
    assert all(a.equal(b) for a, b in zip(again.parameters(), found.network.parameters(), strict=True))
