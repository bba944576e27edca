"""Latency by injected timings, and what may be said of two of them."""

import pytest
import torch

from graphprune import models
from graphprune.pruning.latency import Latency, latency, latency_mark, latency_saved


def test_latency_is_ordered_and_restores_what_it_sets() -> None:
    model = models.tiny_cnn().train()
    threads = torch.get_num_threads()
    found = latency(model, torch.zeros(4, 1, 8, 8), repeats=10, threads=1)
    assert 0 < found.low_ms <= found.median_ms <= found.high_ms
    assert (found.batch, found.threads, found.device) == (4, 1, "cpu")
    assert model.training
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats=0: must be at least 1"):
        latency(model, torch.zeros(4, 1, 8, 8), repeats=0)


def test_the_first_timings_warm_up_and_all_others_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5 repeats the 2 before them are dropped, fast or slow; a slow one among the 5 stays."""
    injected = iter([0.100, 0.001, 0.005, 0.001, 0.009, 0.002, 0.001])
    monkeypatch.setattr("graphprune.pruning.latency._once", lambda model, inputs: next(injected))
    found = latency(models.tiny_cnn(), torch.zeros(1, 1, 8, 8), repeats=5)
    assert next(injected, None) is None
    assert found.median_ms == pytest.approx(2)  # of 1, 1, 2, 5, 9
    assert (found.low_ms, found.high_ms) == pytest.approx((1, 0.6 * 9 + 0.4 * 5))


def measured(median: float, low: float, threads: int = 1) -> Latency:
    return Latency(median, low, median + 1, threads=threads, batch=8, device="cpu")


def test_latency_saved_is_of_the_medians_and_at_least_what_chance_leaves() -> None:
    assert latency_saved(measured(10, 8), measured(4, 3)) == pytest.approx((60, 50))
    assert latency_saved(measured(10, 8), measured(9, 8)) == pytest.approx((10, -12.5))
    with pytest.raises(ValueError, match=r"\(1, 8, 'cpu'\) and \(2, 8, 'cpu'\): use the same"):
        latency_saved(measured(10, 8), measured(9, 8, threads=2))


@pytest.mark.parametrize(
    ("macs", "saved", "mark"),
    [(50, 10, ""), (50, 0, "none shown"), (50, -3, "none shown"), (50, None, "none shown"), (0, -3, ""), (-5, 0, "")],
)
def test_only_multiply_adds_that_fell_without_latency_are_marked(macs: float, saved: float | None, mark: str) -> None:
    assert latency_mark(macs, saved) == mark
