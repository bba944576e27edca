"""The best configuration of all, with proof, where every candidate would take too long (chapter 3)."""

from graphprune.exact.solve import Optimum, optimum, plan, top_dot

__all__ = ["Optimum", "optimum", "plan", "top_dot"]


def __dir__() -> list[str]:
    return __all__
