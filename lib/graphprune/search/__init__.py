"""SACP's Algorithm 1, the funnel it shares with its baselines, and replays of it on a table (chapter 3)."""

from graphprune.search.algorithm1 import SearchResult, sacp, trained_encoder

__all__ = ["SearchResult", "sacp", "trained_encoder"]
