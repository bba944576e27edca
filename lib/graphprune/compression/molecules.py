"""BBBP's molecules: normalised first, then their features and scaffolds (Wu et al. 2018, "MoleculeNet").

The file writes some molecules with aromatic symbols and some without, and which way it does so predicts the label. Salts
and charges differ too. So each molecule is read, reduced to its largest part, uncharged, and written in one canonical way
before anything is taken from it. Needs rdkit (`pip install graphprune[molecules]`).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Molecules:
    """Molecules as graphs, one after the other; atoms are nodes, bonds are edges in both directions.

    Attributes:
        smiles: canonical text of each molecule.
        x: (atoms, F) one-hot columns: element, chirality, degree, charge, hydrogens, radical electrons, hybridisation,
            aromatic, in a ring. Columns that are all zero are left out.
        edge_index: (2, E). sizes: atoms of each molecule. y: labels.
    """

    smiles: list[str]
    x: Tensor
    edge_index: Tensor
    sizes: Tensor
    y: Tensor


def read(path: Path) -> Molecules:
    """BBBP's table: columns `smiles` and `p_np` (1: the molecule passes the blood-brain barrier).

    Molecules that are the same after normalisation are there once; those with both labels are left out.

    Raises:
        ModuleNotFoundError: rdkit is not installed. ValueError: a row has no valid molecule or label.
    """
    labels: dict[str, set[int]] = defaultdict(set)
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if row.get("p_np") not in ("0", "1"):
                raise ValueError(f"{path}, line {number}: p_np={row.get('p_np')!r} must be 0 or 1")
            try:
                labels[normalise(row["smiles"])].add(int(row["p_np"]))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    clear = {smiles: min(seen) for smiles, seen in labels.items() if len(seen) == 1}
    return as_graphs(list(clear), list(clear.values()))


def normalise(smiles: str) -> str:
    """The canonical text of a molecule's largest part, uncharged, without its stereo marks.

    Raises:
        ValueError: it is no molecule.

    >>> normalise("[Cl-].C1=CC=CC=C1C[NH3+]")  # a salt, its ring written with double bonds
    'NCc1ccccc1'
    """
    chem, standardize, _ = _rdkit()
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"smiles={smiles!r} is no molecule that rdkit can read")
    return str(chem.MolToSmiles(standardize.ChargeParent(molecule), isomericSmiles=False))


def as_graphs(smiles: Sequence[str], labels: Sequence[int]) -> Molecules:
    """Molecules as graphs with the features of PyG's `from_smiles`, one-hot.

    >>> ethanol = as_graphs(["CCO"], [1])
    >>> ethanol.sizes.tolist(), ethanol.edge_index.tolist()
    ([3], [[0, 1, 1, 2], [1, 0, 2, 1]])
    """
    chem, _, _ = _rdkit()
    from torch_geometric.utils.smiles import from_rdmol, x_map

    graphs = [from_rdmol(chem.MolFromSmiles(text)) for text in smiles]
    sizes = torch.tensor([len(graph.x) for graph in graphs])
    shift = (sizes.cumsum(0) - sizes).tolist()
    codes = torch.cat([graph.x for graph in graphs])
    columns = [F.one_hot(codes[:, i], len(values)) for i, values in enumerate(x_map.values())]
    x = torch.cat(columns, dim=1).float()
    edges = torch.cat([graph.edge_index + first for graph, first in zip(graphs, shift, strict=True)], dim=1)
    return Molecules(list(smiles), x[:, x.any(0)], edges, sizes, torch.tensor(list(labels)))


def scaffold(smiles: str) -> str:
    """The rings of a molecule and what links them (Bemis and Murcko 1996); empty where there is no ring.

    >>> scaffold("NCc1ccccc1")
    'c1ccccc1'
    """
    _, _, murcko = _rdkit()
    return str(murcko.MurckoScaffoldSmiles(smiles=smiles))


def split_by_scaffold(smiles: Sequence[str], train: float = 0.8, val: float = 0.1) -> dict[str, Tensor]:
    """Parts in which no scaffold is twice: the largest groups of equal scaffolds train, the rarest test.

    Source: Wu et al. 2018, section 3.2; ties in size are broken by the first molecule, as DeepChem does.

    Returns:
        `train`, `val`, `test` -> numbers of the molecules.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(smiles):
        groups[scaffold(text)].append(number)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    limits = (train * len(smiles), (train + val) * len(smiles))
    for group in sorted(groups.values(), key=lambda g: (len(g), g[0]), reverse=True):
        if len(parts["train"]) + len(group) <= limits[0]:
            parts["train"] += group
        elif len(parts["train"]) + len(parts["val"]) + len(group) <= limits[1]:
            parts["val"] += group
        else:
            parts["test"] += group
    return {name: torch.tensor(sorted(numbers)) for name, numbers in parts.items()}


def _rdkit() -> tuple[Any, Any, Any]:
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem.MolStandardize import rdMolStandardize
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("BBBP needs rdkit; install it with: pip install 'graphprune[molecules]'") from error
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined, unused-ignore]
    return Chem, rdMolStandardize, MurckoScaffold
