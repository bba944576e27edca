"""Numbers that the text of notebook 05 states: each is a committed result, rounded, and is still in the text."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent

STATED = {  # row of reports/laptop/results.csv, without its table where that is digits: as the text has it
    "cifar10, looks, light fine-tunings of median time": "19",
    "cifar10, sizes fixed, SACP, (a) unpruned, printed": "0.16",
    "cifar10, sizes fixed, SACP, (b) L1, repel own": "-0.19",
    "cifar10, sizes fixed, SACP, most literal reading": "0.06",
    "cifar10, sizes fixed, SynFlow": "0.58",
    "cifar10, sizes fixed, class means, BN re-estimated": "0.33",
    "cifar10, sizes fixed, noise ceiling": "0.63",
    "cifar10, sizes fixed, ours, no labels (default)": "0.50",
    "cifar10, sizes fixed, ours, untrained GCN on shares": "0.49",
    "cifar10, sizes fixed, sum of log widths, layers": "0.57",
    "cifar10, within bands, MACs": "0.40",
    "20 bands, MACs": "0.15",
    "40 bands, MACs": "0.08",
    "best value, SACP, most literal reading, cost": "8",
    "best value, SACP, most literal reading, whole cost": "12",
    "best value, ours, no labels, cost": "6",
    "best value, ours, no labels, whole cost": "140",
    "best value, random, cost": "10",
    "best value, sum of log widths, layers, cost": "6",
    "channels kept, SACP: proven optimum, inner layer that keeps least": "14",
    "channels kept, SACP: proven optimum, inner layer that keeps most": "39",
    "digits_resnet8, share of ceiling, ours, carried over, 128 labels there": "0.80",
    "digits_resnet8, share of ceiling, ours, carried over, no labels": "0.74",
    "digits_resnet8, share of ceiling, ours, no labels": "0.90",
    "digits_resnet8, share of ceiling, trees, 64 labels of its own": "0.84",
    "foretells, MACs, 30 epochs from new weights, T": "0.44",
    "foretells, full, 30 epochs from new weights, T": "0.27",
    "foretells, light, 30 epochs from new weights, T": "0.17",
    "foretells, light, full, T": "0.53",
    "foretells, light, full, U": "0.93",
    "foretells, ours, no labels, 30 epochs from new weights, T": "0.34",
    "foretells, sum of log widths, 30 epochs from new weights, T": "0.48",
    "from new weights, counting error": "0.68",
    "from new weights, standard deviation": "0.73",
    "goodhart, SACP, most literal reading, best of a million": "87.3",
    "goodhart, SACP, most literal reading, local search, also found by evolution": "39",
    "goodhart, SACP, most literal reading, proven optimum": "83.0",
    "goodhart, SACP, most literal reading, proven optimum, also found by evolution": "50",
    "goodhart, ours, no labels, best of a million": "95.2",
    "goodhart, ours, no labels, evolution": "96.0",
    "goodhart, ours, no labels, local search, also found by evolution": "32",
    "goodhart, ours, no labels, random": "70.8",
    "foretells, SACP, most literal reading, 30 epochs from new weights, T": "-0.38",
    "surface, highest mean, SACP, most literal reading": "99.2",
    "surface, highest mean, sum of log widths, layers": "99.0",
    "surface, highest mean, ours, no labels": "98.9",
    "surface, highest mean, random": "98.7",
    "within bands, sum of log widths, groups": "0.01",
    "m 1 k 1, SACP, most literal reading": "98.5",
    "m 1 k 1, ours, no labels": "98.7",
    "m 1 k 1, random": "94.1",
    "m 1 k 1, sum of log widths, layers": "98.8",
    "m 150 k 10, SACP, most literal reading": "98.9",
    "m 150 k 10, ours, no labels": "98.7",
    "m 150 k 10, random": "98.7",
    "m 150 k 10, sum of log widths, layers": "99.0",
    "noise ceiling, within bands": "0.84",
    "overall, MACs": "0.91",
    "own cost of ours, light fine-tunings of mean time": "85",
    "own cost of ours, light fine-tunings of median time": "134",
    "perfect score, within bands": "0.92",
    "restart and inherit, Spearman": "0.27",
    "restart minus inherit": "5.1",
    "share of ceiling, 256 labels, extra trees on log widths": "0.90",
    "share of ceiling, 512 labels, extra trees on log widths": "0.93",
    "share of ceiling, BN re-estimated accuracy": "0.79",
    "share of ceiling, SACP, most literal reading": "-0.36",
    "share of ceiling, SACP-1, 128 labels": "0.72",
    "share of ceiling, SynFlow": "0.61",
    "share of ceiling, class means, BN re-estimated": "0.88",
    "share of ceiling, ours, 128 labels": "0.97",
    "share of ceiling, ours, 64 labels": "0.95",
    "share of ceiling, ours, nested contrast": "0.77",
    "share of ceiling, ours, no labels (default)": "0.93",
    "share of ceiling, ours, untrained GCN on shares": "0.77",
    "share of ceiling, sum of log widths, layers": "0.56",
    "share of ceiling, trees, 128 labels": "0.85",
    "share of ceiling, untrained GCN": "-0.09",
    "surface, highest minus lowest mean, SACP, most literal reading": "0.90",
    "surface, highest minus lowest mean, ours, no labels": "0.43",
    "surface, highest minus lowest mean, random": "4.53",
    "surface, highest minus lowest mean, sum of log widths, layers": "0.89",
    "table 4, within bands, 1 layer (2)": "-0.01",
    "table 4, within bands, N = 256 (1,024)": "-0.21",
    "table 4, within bands, N = 4,096": "-0.33",
    "table 4, within bands, temperature 0.1 (0.5)": "-0.34",
    "table 4, within bands, temperature 1": "-0.26",
    "table 4, within bands, training configurations with R ≥ 0.5": "-0.14",
    "table 4, within bands, width 16 (64)": "-0.20",
    "table 4, within bands, width 256": "-0.33",
    "the top-k stage adds, random": "0.04",
    "the top-k stage adds, sum of log widths, layers": "0.52",
    "whole cost, m 150 k 10 over m 1 k 1, ours, no labels": "2.4",
    "whole cost, m 150 k 10 over m 1 k 1, sum of log widths, layers": "33",
    "within bands, BN re-estimated accuracy": "0.66",
    "within bands, MACs": "0.15",
    "within bands, SACP, most literal reading": "-0.30",
    "within bands, SACP-1, 128 labels": "0.60",
    "within bands, SynFlow": "0.51",
    "within bands, class means, BN re-estimated": "0.74",
    "within bands, ours, 128 labels": "0.81",
    "within bands, ours, 64 labels": "0.80",
    "within bands, ours, no labels (default)": "0.78",
    "within bands, parameters": "-0.19",
    "within bands, retained L1 mass": "-0.14",
    "within bands, retained Taylor mass": "-0.12",
    "within bands, similarity gat (a) unpruned repel all": "0.16",
    "within bands, similarity gat (a) unpruned repel own": "0.29",
    "within bands, similarity gcn (a) unpruned printed": "-0.03",
    "within bands, similarity gcn (b) L1 repel all": "-0.11",
    "within bands, similarity gcn (c) first repel all": "-0.33",
    "within bands, similarity gcn (c) first repel own": "0.20",
    "within bands, similarity sage (a) unpruned repel all": "0.25",
    "within bands, similarity sage (a) unpruned repel own": "0.32",
    "within bands, similarity sage (b) L1 repel own": "0.01",
    "within bands, similarity sage (c) first printed": "-0.31",
    "within bands, ours, no labels minus class means, BN re-estimated": "0.05",
    "within bands, ours, no labels minus ours, untrained GCN on shares": "0.14",
    "within bands, ours, no labels minus sum of log widths, layers": "0.31",
    "within bands, ours, no labels minus trees, 128 labels": "0.07",
    "sizes fixed, ours, no labels minus trees, 128 labels": "0.03",
    "cifar10, sizes fixed, ours, no labels minus ours, untrained GCN on shares": "0.02",
    "cifar10, sizes fixed, ours, no labels minus sum of log widths, layers": "-0.07",
    "within bands, sum of log widths, layers": "0.47",
    "within bands, trees, 128 labels": "0.71",
    "within bands, untrained GCN": "-0.07",
}


@pytest.fixture(scope="module")
def found() -> "pd.Series[float]":
    results = pd.read_csv(ROOT / "reports" / "laptop" / "results.csv")
    rows = results[results["notebook"] == "05_ablations"].set_index("name")["value"].astype(float)
    assert rows.index.is_unique
    return rows.rename(lambda name: name.removeprefix("digits, "))


@pytest.fixture(scope="module")
def numbers() -> set[str]:
    cells = nbformat.read(ROOT / "notebooks" / "05_ablations.ipynb", as_version=4).cells
    prose = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {text.removeprefix("+") for text in re.findall(r"[-+]?\d+(?:\.\d+)?", prose)}


@pytest.mark.parametrize("name", STATED)
def test_a_stated_number_is_the_result_rounded(name: str, found: "pd.Series[float]") -> None:
    text = STATED[name]
    assert abs(found[name] - float(text)) <= 0.51 * 10 ** -len(text.partition(".")[2])


def test_every_number_of_the_list_stands_in_the_text(numbers: set[str]) -> None:
    assert sorted(set(STATED.values()) - numbers) == []
