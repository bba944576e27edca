"""The graph data sets of chapter 08, as tasks: two that need no file, and four read from files in PyG's layout.

Splits depend on nothing but the data set (and the fold), so no run's seed moves a node from one part to another.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import networkx as nx
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from graphprune.compression import molecules
from graphprune.compression.graph_task import GraphTask
from graphprune.compression.link_task import LinkTask, draw_non_links
from graphprune.compression.sparse_features import to_csr
from graphprune.compression.tasks import NodeTask, Task
from graphprune.runs import runtime
from graphprune.runs.checks import share

TASKS = ("karate", "atlas", "cora", "cora-links", "proteins", "bbbp")
FOLDS = 10
MD5 = {  # PyG unpickles seven of these files
    "ind.cora.allx": "c9083193a57057dd1238321e140194d7",
    "ind.cora.ally": "125d70817fe1fdbfdcad991995e81579",
    "ind.cora.graph": "b37c419cec179f45834467630c278e4c",
    "ind.cora.test.index": "9b822cae1d01f41e8bf8782e20367c0e",
    "ind.cora.tx": "b29c36916768e1d2f55391c1aa9317ac",
    "ind.cora.ty": "48bf43f54fa5b86089a4bd0299795f10",
    "ind.cora.x": "190831eee19d8f330d89d94b40a65c5a",
    "ind.cora.y": "78344284e3ff7fd24eb9c307d51351eb",
}
PROTEINS_FILES = ("A", "graph_indicator", "graph_labels", "node_labels", "node_attributes")
FETCH = {
    "Planetoid/Cora/raw": "from torch_geometric.datasets import Planetoid; Planetoid('data/Planetoid', 'Cora')",
    "TUDataset/PROTEINS/raw": "from torch_geometric.datasets import TUDataset; TUDataset('data/TUDataset', 'PROTEINS')",
    "MoleculeNet/bbbp/raw": "from torch_geometric.datasets import MoleculeNet; MoleculeNet('data/MoleculeNet', 'BBBP')",
}


def load(name: str, root: str | Path | None = None, *, fold: int = 0) -> Task:
    """Load a data set as a task, on the CPU.

    | name | question | train / val / test |
    |---|---|---|
    | karate | which of two clubs a member joins (NetworkX, no file) | 10 / 8 / 16 of 34 nodes |
    | atlas | has a graph of up to 7 nodes a bridge (NetworkX, no file) | 60 / 20 / 20 % of 1,252 graphs |
    | cora | the field of a paper, from its words and citations | public split: 140 / 500 / 1,000 of 2,708 nodes |
    | cora-links | does one of two papers cite the other | PyG's RandomLinkSplit: 85 / 5 / 10 % of 5,278 links |
    | proteins | is a protein an enzyme | 8 / 1 / 1 of 10 stratified folds of 1,113 graphs |
    | bbbp | does a molecule pass the blood-brain barrier | 80 / 10 / 10 % by scaffold |

    A bridge is an edge without which a part of the graph falls apart. All atlas nodes have the same feature.

    Args:
        name: as above.
        root: folder of the files, in PyG's layout; else `$GRAPHPRUNE_DATA`, then data/.
        fold: of proteins only, 0 to 9: the fold that tests. The one after it validates.

    Raises:
        ValueError: a name that is not known, a file that is not the published one, a fold out of range.
        FileNotFoundError: the data is nowhere; names the command that fetches it.
        ModuleNotFoundError: bbbp without rdkit.

    Example:
        >>> task = load("karate")
        >>> task.features, task.outputs, task.metric
        (34, 2, 'accuracy')
    """
    if name not in TASKS:
        raise ValueError(f"name={name!r}: unknown task; choose from {', '.join(TASKS)}")
    if isinstance(fold, bool) or fold not in range(FOLDS) or (fold and name != "proteins"):
        raise ValueError(f"fold={fold!r}: must be 0 to {FOLDS - 1}, and 0 for all but proteins; got name={name!r}")
    folders = [Path(root)] if root is not None else runtime.data_dirs()
    if name == "karate":
        return _karate()
    if name == "atlas":
        return _atlas()
    if name == "proteins":
        return _proteins(_find("TUDataset/PROTEINS/raw", [f"PROTEINS_{f}.txt" for f in PROTEINS_FILES], folders), fold)
    if name == "bbbp":
        return _bbbp(_find("MoleculeNet/bbbp/raw", ["BBBP.csv"], folders) / "BBBP.csv")
    cora = _cora(_find("Planetoid/Cora/raw", list(MD5), folders))
    return cora if name == "cora" else link_task("cora-links", cora.x, cora.edge_index)


def _karate() -> NodeTask:
    club = nx.karate_club_graph()
    y = torch.tensor([int(club.nodes[node]["club"] == "Officer") for node in club])
    return NodeTask("karate", torch.eye(len(club)), _edges(club), y, _stratified(y, (10, 8), "karate"))


def _atlas() -> GraphTask:
    """Read and Wilson, "An atlas of graphs", 1998, without the empty graph; a node's feature is a constant."""
    graphs = [graph for graph in nx.graph_atlas_g() if len(graph)]
    sizes = torch.tensor([len(graph) for graph in graphs])
    shift = (sizes.cumsum(0) - sizes).tolist()
    edges = torch.cat([_edges(graph) + first for graph, first in zip(graphs, shift, strict=True)], dim=1)
    y = torch.tensor([int(nx.has_bridges(graph)) for graph in graphs])
    parts = _stratified(y, (3 * len(y) // 5, len(y) // 5), "atlas")
    return GraphTask("atlas", torch.ones(int(sizes.sum()), 1), edges, sizes, y, parts)


def _edges(graph: nx.Graph) -> Tensor:
    """Both directions of every edge, (2, 2 E)."""
    pairs = torch.tensor(sorted([*graph.edges, *((b, a) for a, b in graph.edges)]), dtype=torch.int64)
    return pairs.reshape(-1, 2).t().contiguous()


def _stratified(y: Tensor, sizes: tuple[int, int], name: str) -> dict[str, Tensor]:
    """Train and validation of these sizes, the rest tests; classes in proportion."""
    drawn = torch.randperm(len(y), generator=runtime.seed_generator(0, "graph_data", name))
    within = torch.zeros(len(y))
    for label in y.unique():
        members = drawn[y[drawn] == label]
        within[members] = (torch.arange(len(members)) + 0.5) / len(members)  # the place of each in its class, 0 to 1
    order = drawn[within[drawn].argsort(stable=True)]
    parts = order.split([*sizes, len(y) - sum(sizes)])
    return {part: members.sort().values for part, members in zip(("train", "val", "test"), parts, strict=True)}


def _cora(folder: Path) -> NodeTask:
    from torch_geometric.io import read_planetoid_data

    bad = [
        name for name, md5 in MD5.items() if hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() != md5
    ]
    if bad:
        raise ValueError(f"{folder}: {', '.join(bad)} is not the published file; delete the folder, then {_how(folder)}")
    data = read_planetoid_data(str(folder), "cora")
    x = data.x / data.x.sum(1, keepdim=True).clamp(min=1)
    parts = {part: data[f"{part}_mask"].nonzero()[:, 0] for part in ("train", "val", "test")}
    return NodeTask("cora", to_csr(x), data.edge_index, data.y, parts)


def link_task(name: str, x: Tensor, edge_index: Tensor, *, val: float = 0.05, test: float = 0.1, seed: int = 0) -> LinkTask:
    """Links of an undirected graph split by PyG's RandomLinkSplit; as many pairs without a link beside those held out.

    Messages flow along training links, in `test` along those of `val` too (as PyG does it).

    Args:
        val, test: shares of the links.
        seed: of the split and the pairs drawn. Those are our own draw: PyG's `negative_sampling` does not follow torch's seed.
    Raises:
        ValueError: a share is no number from 0 to 1, or no link is left in a part.
    """
    share(val=val, test=test)
    if val + test >= 1:
        raise ValueError(f"val={val!r}, test={test!r}: together they must be below 1, or no link is left to train on")
    from torch_geometric.data import Data
    from torch_geometric.transforms import RandomLinkSplit

    links = int((edge_index[0] <= edge_index[1]).sum())
    if not (int(val * links) and int(test * links) and int((1 - val - test) * links)):
        raise ValueError(f"edge_index: {links} links are too few for val={val!r}, test={test!r}: a part would be empty")
    split = RandomLinkSplit(val, test, is_undirected=True, neg_sampling_ratio=0.0, add_negative_train_samples=False)
    with runtime.seeded(seed):
        found = dict(zip(("train", "val", "test"), split(Data(edge_index=edge_index, num_nodes=len(x))), strict=True))
    generator, pairs, labels = runtime.seed_generator(seed, "graph_data", name), {}, {}
    for part, data in found.items():
        asked = data.edge_label_index
        drawn = draw_non_links(edge_index, len(x), asked.shape[1], generator) if part != "train" else asked[:, :0]
        pairs[part] = torch.cat([asked, drawn], dim=1)
        labels[part] = torch.cat([torch.ones(asked.shape[1]), torch.zeros(drawn.shape[1])]).long()
    return LinkTask(name, x, {part: data.edge_index for part, data in found.items()}, pairs, labels)


def _proteins(folder: Path, fold: int) -> GraphTask:
    from torch_geometric.io import read_tu_data

    data, slices, _ = read_tu_data(str(folder), "PROTEINS")  # edges count the nodes of their own graph
    sizes, edges = slices["x"].diff(), slices["edge_index"].diff()
    edge_index = data.edge_index + torch.repeat_interleave(slices["x"][:-1], edges)
    folds = [torch.from_numpy(test) for _, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(data.y, data.y)]
    val = (fold + 1) % FOLDS
    train = torch.cat([members for number, members in enumerate(folds) if number not in (fold, val)]).sort().values
    parts = {"train": train, "val": folds[val], "test": folds[fold]}
    task = GraphTask("proteins", data.x.float(), edge_index, sizes, data.y, parts)
    length = task.take(train).x[:, 0]  # the one attribute that is no label, in training's own units
    x = task.x.clone()
    x[:, 0] = (x[:, 0] - length.mean()) / length.std()
    return replace(task, x=x)


def _bbbp(path: Path) -> GraphTask:
    found = molecules.read(path)
    parts = molecules.split_by_scaffold(found.smiles)
    return GraphTask("bbbp", found.x, found.edge_index, found.sizes, found.y, parts, metric="auc")


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _find(place: str, files: list[str], folders: list[Path]) -> Path:
    """The first folder that holds all the files."""
    for folder in folders:
        if all((folder / place / file).is_file() for file in files):
            return folder / place
    looked = ", ".join(str(folder / place) for folder in folders)
    raise FileNotFoundError(f"no {files[0]} and its like: looked in {looked}; {_how(folders[-1] / place)}")


def _how(folder: Path) -> str:
    code = next(code for place, code in FETCH.items() if folder.as_posix().endswith(place))
    return f'fetch it with: python -c "{code}"'
