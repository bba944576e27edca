"""The data sets: those that need no file, and the published ones where they are."""

from pathlib import Path

import networkx as nx
import pytest
import torch

from graphprune.compression import graph_data


def test_the_karate_club_is_the_published_one() -> None:
    task = graph_data.load("karate")
    assert (len(task.x), task.edge_index.shape[1], int(task.y.sum())) == (34, 156, 17)
    assert (int(task.y[0]), int(task.y[33])) == (0, 1)
    assert {part: len(nodes) for part, nodes in task.nodes.items()} == {"train": 10, "val": 8, "test": 16}
    assert [int(task.y[nodes].sum()) for nodes in task.nodes.values()] == [5, 4, 8]


def test_the_atlas_asks_for_bridges() -> None:
    task = graph_data.load("atlas")
    assert (len(task.sizes), sorted(len(p) for p in task.graphs.values())) == (1252, [250, 251, 751])
    for number in (3, 5, 6, 17, 900):
        batch = task.take(torch.tensor([number]))
        graph = nx.Graph(batch.edge_index.t().tolist())
        one_less = [nx.Graph(graph.edges - {edge}) for edge in graph.edges]
        for smaller in one_less:
            smaller.add_nodes_from(graph)
        parts = nx.number_connected_components(graph) if len(graph) else 0
        assert int(batch.target) == any(nx.number_connected_components(g) > parts for g in one_less)
    assert torch.equal(task.x, torch.ones(int(task.sizes.sum()), 1))


@pytest.mark.parametrize(
    ("name", "fold", "message"),
    [("coral", 0, "name='coral': unknown task"), ("karate", 1, "fold=1"), ("proteins", 10, "fold=10: must be 0 to 9")],
)
def test_unknown_names_and_folds_are_refused(name: str, fold: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph_data.load(name, fold=fold)


@pytest.mark.parametrize("name", ["cora", "cora-links", "proteins", "bbbp"])
def test_a_missing_file_is_named_with_the_command_that_fetches_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'looked in .*raw; fetch it with: python -c "from torch_geometric'):
        graph_data.load(name, root=tmp_path)


def test_a_file_that_is_not_the_published_one_is_not_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "Planetoid/Cora/raw"
    folder.mkdir(parents=True)
    for name in graph_data.MD5:
        (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="is not the published file; delete the folder, then fetch it"):
        graph_data.load("cora", root=tmp_path)


def test_links_held_out_carry_no_messages_and_drawn_pairs_are_no_links() -> None:
    graph = nx.connected_watts_strogatz_graph(60, 6, 0.3, seed=0)
    pairs = torch.tensor([*graph.edges, *((b, a) for a, b in graph.edges)]).t()
    task = graph_data.link_task("small-world", torch.eye(60), pairs)
    sets = {part: {(min(p), max(p)) for p in task.pairs[part][:, task.labels[part] == 1].t().tolist()} for part in task.pairs}
    messages = {part: {(min(p), max(p)) for p in task.messages[part].t().tolist()} for part in task.messages}
    assert {part: len(links) for part, links in sets.items()} == {"train": 153, "val": 9, "test": 18}
    assert messages["train"] == messages["val"] == sets["train"]
    assert messages["test"] == sets["train"] | sets["val"]
    assert not sets["val"] & sets["test"]
    for part in ("val", "test"):
        none = {(min(p), max(p)) for p in task.pairs[part][:, task.labels[part] == 0].t().tolist()}
        assert not none & {(min(e), max(e)) for e in graph.edges}
    assert task.fingerprint() == graph_data.link_task("small-world", torch.eye(60), pairs).fingerprint()
    with pytest.raises(ValueError, match="2 links are too few"):
        graph_data.link_task("tiny", torch.eye(3), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"val": -0.1}, "val=-0.1: must be a number from 0 to 1"),
        ({"test": float("nan")}, "test=nan: must be a number from 0 to 1"),
        ({"val": 0.7, "test": 0.4}, "val=0.7, test=0.4: together they must be below 1"),
        ({"val": 0.0}, "links are too few for val=0.0"),
    ],
)
def test_shares_of_links_that_cannot_be_are_refused(shares: dict[str, float], message: str) -> None:
    path = torch.arange(40)
    pairs = torch.cat([torch.stack([path[:-1], path[1:]]), torch.stack([path[1:], path[:-1]])], dim=1)
    with pytest.raises(ValueError, match=message):
        graph_data.link_task("path", torch.eye(40), pairs, **shares)


@pytest.mark.data("graphs")
def test_cora_has_its_public_split() -> None:
    task = graph_data.load("cora")
    assert (tuple(task.x.shape), task.edge_index.shape[1], task.outputs) == ((2708, 1433), 10556, 7)
    assert [len(task.nodes[part]) for part in ("train", "val", "test")] == [140, 500, 1000]
    assert torch.bincount(task.y[task.nodes["train"]]).tolist() == [20] * 7
    links = graph_data.load("cora-links")
    assert {part: links.pairs[part].shape[1] for part in links.pairs} == {"train": 4488, "val": 526, "test": 1054}


@pytest.mark.data("graphs")
def test_every_protein_tests_once_and_folds_keep_the_share_of_enzymes() -> None:
    tasks = [graph_data.load("proteins", fold=fold) for fold in (0, 1)]
    assert (len(tasks[0].sizes), len(tasks[0].x), tasks[0].edge_index.shape[1]) == (1113, 43471, 162088)
    assert torch.equal(tasks[0].graphs["val"], tasks[1].graphs["test"])
    for task in tasks:
        assert float(task.y[task.graphs["test"]].double().mean()) == pytest.approx(450 / 1113, abs=0.01)
        assert float(task.take(task.graphs["train"]).x[:, 0].mean()) == pytest.approx(0, abs=1e-5)


@pytest.mark.data("graphs")
def test_the_molecules_lose_duplicates_and_contradictions_and_are_split_8_1_1() -> None:
    task = graph_data.load("bbbp")
    assert (len(task.sizes), task.metric) == (1928, "auc")
    assert {part: len(numbers) for part, numbers in task.graphs.items()} == {"train": 1542, "val": 193, "test": 193}
