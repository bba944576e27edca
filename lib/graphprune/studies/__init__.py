"""Experiments of a size: tables of true accuracies, the contest of rankers, the paper's tables (chapters 3 and 5)."""
