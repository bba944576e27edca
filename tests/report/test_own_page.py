"""The page tells what was measured, and what a stranger may have put into names stays text."""

import torch

import graphprune
from graphprune.report.own_page import page

BEFORE = {"macs": 18_462, "params": 350, "accuracy_test": 0.9, "accuracy_val": 0.8, "milliseconds": 2.0}
AFTER = {"macs": 6_942, "params": 162, "accuracy_test": 0.85, "accuracy_val": 0.75, "milliseconds": 1.0}
FACTS = {
    "model": "my_module:<script>",
    "data": "digits",
    "method": "l1",
    "asked": 0.5,
    "before": BEFORE,
    "after": AFTER,
    "widths": {"conv1": [4, 2], "conv3": [3, 3]},
    "frozen": {"fc": "its outputs are the network's"},
    "onnx": {"difference": 1e-7},
    "hardware": "2 cores",
}


def test_the_page_holds_every_number_and_no_foreign_markup() -> None:
    text = page(FACTS, graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8)))
    assert "<script>" not in text
    assert "my_module:&lt;script&gt;, pruned" in text
    for cell in ("18,462", "6,942", "0.376", "0.9000", "0.8500", "50%", "100%"):
        assert f"<td>{cell}</td>" in text
    assert "<b>fc</b>: its outputs are the network&#x27;s" in text
    assert "differs from PyTorch by at most 1e-07" in text
    assert 'src="data:image/png;base64,' in text
    assert "graphprune.load_pruned" in text


def test_a_reason_for_no_onnx_stands_on_the_page() -> None:
    graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    assert "ONNX: onnx is not installed" in page({**FACTS, "onnx": {"skipped": "onnx is not installed"}}, graph)
