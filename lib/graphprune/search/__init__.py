"""SACP's Algorithm 1, the funnel it shares with its baselines, replays of it on a table, and comparisons (chapter 3)."""

from graphprune.search.algorithm1 import SearchResult, sacp, trained_encoder
from graphprune.search.comparison import compare, draw_comparison

__all__ = ["SearchResult", "compare", "draw_comparison", "sacp", "trained_encoder"]


def __dir__() -> list[str]:
    return __all__
