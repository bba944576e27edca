"""Molecules are the same however they are written; no scaffold lies in two parts."""

from pathlib import Path

import pytest
import torch

from graphprune.compression import molecules

PHENOL = ["Oc1ccccc1", "OC1=CC=CC=C1", "[Na+].[O-]c1ccccc1", "c1ccccc1O"]


def test_salts_charges_and_notation_leave_no_trace() -> None:
    assert {molecules.normalise(text) for text in PHENOL} == {"Oc1ccccc1"}
    assert molecules.normalise("C[C@H](N)C(=O)O") == molecules.normalise("C[C@@H](N)C(=O)O")


def test_a_table_loses_duplicates_and_contradictions(tmp_path: Path) -> None:
    rows = [*(f"1,{text}" for text in PHENOL), "0,CCO", "1,CCO", "0,CCN"]
    path = tmp_path / "BBBP.csv"
    path.write_text("\n".join(["p_np,smiles", *rows]))
    found = molecules.read(path)
    assert (found.smiles, found.y.tolist(), found.sizes.tolist()) == (["Oc1ccccc1", "CCN"], [1, 0], [7, 3])
    assert found.edge_index.shape == (2, 2 * (7 + 2))
    assert int(found.edge_index[0, -1]) == 9


@pytest.mark.parametrize(("row", "message"), [("1,C1CC", "line 2: smiles='C1CC' is no molecule"), ("2,CC", "line 2: p_np='2'")])
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "BBBP.csv"
    path.write_text(f"p_np,smiles\n{row}\n")
    with pytest.raises(ValueError, match=message):
        molecules.read(path)


def test_features_are_one_hot_and_only_those_that_occur() -> None:
    found = molecules.as_graphs(["CCO", "C"], [1, 0])
    assert torch.equal(found.x.sum(1), torch.full((4,), 9.0))  # nine properties of an atom
    assert bool(found.x.any(0).all())
    assert found.x[0].tolist() != found.x[2].tolist()


def test_a_scaffold_is_in_one_part_only() -> None:
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccsc1", "C1CC1", "c1ccoc1", "C1CCC1", "C1CCOC1", "c1cc[nH]c1"]
    smiles = [ring + tail for ring in rings for tail in ("", "C", "CC")]
    parts = molecules.split_by_scaffold(smiles)
    scaffolds = {part: {molecules.scaffold(smiles[i]) for i in numbers.tolist()} for part, numbers in parts.items()}
    assert {part: len(numbers) for part, numbers in parts.items()} == {"train": 24, "val": 3, "test": 3}
    assert not scaffolds["train"] & scaffolds["val"]
    assert not scaffolds["test"] & (scaffolds["train"] | scaffolds["val"])
