"""Every fixed public name, called as users write it, on inputs small enough to check by hand.

The names stay where they are for users, wherever the modules behind them move: as attributes (`graphprune.train.fit`), and
as imports (`from graphprune.train import fit`, `import graphprune.train`, `from graphprune import train`).

Literal results are those of `tiny_cnn` on 8x8 images: conv1 and conv2 are added up and so share 4 channels, conv3 has 3, and a
linear layer of 10 outputs reads these. A 3x3 convolution from a to b channels does 9 * 64 * a * b multiply-adds here.
"""

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

import graphprune
import graphprune.agent
import graphprune.contrast
import graphprune.data
import graphprune.environment
import graphprune.exact
import graphprune.importance
import graphprune.models
import graphprune.search
import graphprune.tabular
import graphprune.train
from graphprune import (
    ChannelGraph,
    Cost,
    CostModel,
    GraphEncoder,
    PruningEnv,
    RateSpace,
    Scorer,
    agent,
    contrast,
    cost,
    data,
    environment,
    exact,
    importance,
    keep_from_rates,
    latency,
    load_pruned,
    masked,
    models,
    prune,
    prune_to,
    round_keep,
    save_pruned,
    search,
    tabular,
    trace,
    train,
)
from graphprune.agent import Settings
from graphprune.contrast import fit as fit_encoder
from graphprune.data import Dataset, from_dataset, from_loaders, from_tensors, load
from graphprune.environment import game
from graphprune.exact import Optimum, optimum
from graphprune.importance import bn_scale, fpgm, hrank, l1, l2, random, taylor
from graphprune.models import build
from graphprune.search import SearchResult, compare, draw_comparison, sacp
from graphprune.tabular import load as load_table
from graphprune.train import Recipe, evaluate, finetune, fit, reestimate_bn

EXAMPLE = torch.zeros(1, 1, 8, 8)
WHOLE = Cost(macs=9 * 64 * (1 * 4 + 4 * 4 + 4 * 3) + 3 * 10, params=36 + 8 + 144 + 8 + 108 + 6 + 30 + 10)
HALF = Cost(macs=9 * 64 * (1 * 2 + 2 * 2 + 2 * 1) + 1 * 10, params=18 + 4 + 36 + 4 + 18 + 2 + 10 + 10)  # 2 of 4, 1 of 3
BRIEF = Recipe(epochs=0.1, lr=0.01, batch_size=64)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """In evaluation mode, its filters' L1 norms 1, 2, 3, 4 (conv1 and conv2 each half of them) and 3, 2, 1 (conv3)."""
    net = graphprune.models.build("tiny_cnn", num_classes=10, in_channels=1).eval()
    with torch.no_grad():
        for layer, norms in ((net.conv1, (0.5, 1, 1.5, 2)), (net.conv2, (0.5, 1, 1.5, 2)), (net.conv3, (3, 2, 1))):
            size = layer.weight[0].numel()
            layer.weight.copy_(torch.tensor(norms).reshape(-1, 1, 1, 1).expand_as(layer.weight) / size)
    return net


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> ChannelGraph:
    return graphprune.trace(model, EXAMPLE)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return graphprune.data.load("digits", root=None)


@pytest.fixture(scope="module")
def half(graph: ChannelGraph) -> dict[str, Tensor]:
    return {"conv1": torch.tensor([False, False, True, True]), "conv3": torch.tensor([True, False, False])}


# --- attributes and imports -------------------------------------------------------------------------------------------

MODULES = {
    "agent": agent,
    "contrast": contrast,
    "data": data,
    "environment": environment,
    "exact": exact,
    "importance": importance,
    "models": models,
    "search": search,
    "tabular": tabular,
    "train": train,
}
NAMES = {
    "ChannelGraph": ChannelGraph,
    "Cost": Cost,
    "CostModel": CostModel,
    "GraphEncoder": GraphEncoder,
    "PruningEnv": PruningEnv,
    "RateSpace": RateSpace,
    "Scorer": Scorer,
    "agent.Settings": Settings,
    "agent.train": graphprune.agent.train,
    "contrast.fit": fit_encoder,
    "cost": cost,
    "data.Dataset": Dataset,
    "data.from_dataset": from_dataset,
    "data.from_loaders": from_loaders,
    "data.from_tensors": from_tensors,
    "data.load": load,
    "environment.game": game,
    "exact.Optimum": Optimum,
    "exact.optimum": optimum,
    "importance.bn_scale": bn_scale,
    "importance.fpgm": fpgm,
    "importance.hrank": hrank,
    "importance.l1": l1,
    "importance.l2": l2,
    "importance.random": random,
    "importance.taylor": taylor,
    "keep_from_rates": keep_from_rates,
    "latency": latency,
    "load_pruned": load_pruned,
    "masked": masked,
    "models.build": build,
    "prune": prune,
    "prune_to": prune_to,
    "round_keep": round_keep,
    "save_pruned": save_pruned,
    "search.SearchResult": SearchResult,
    "search.compare": compare,
    "search.draw_comparison": draw_comparison,
    "search.sacp": sacp,
    "tabular.load": load_table,
    "trace": trace,
    "train.Recipe": Recipe,
    "train.evaluate": evaluate,
    "train.finetune": finetune,
    "train.fit": fit,
    "train.reestimate_bn": reestimate_bn,
}


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_is_one_object_however_it_is_reached(name: str) -> None:
    assert isinstance(MODULES[name], ModuleType)
    assert getattr(graphprune, name) is MODULES[name] is sys.modules[f"graphprune.{name}"]
    assert name in dir(graphprune)
    assert name in graphprune.__all__


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_one_object_however_it_is_reached(name: str) -> None:
    home, _, last = name.rpartition(".")
    assert getattr(getattr(graphprune, home) if home else graphprune, last) is NAMES[name]
    assert home or name in graphprune.__all__


FIRST = (
    "import graphprune.{module}; found = graphprune.{module}",
    "from graphprune import {module} as found",
    "import graphprune; found = graphprune.{module}",
)
CHILDREN = """
import os, sys
import gymnasium, pandas, scipy.optimize, sklearn.datasets, torch, torch_geometric.nn, torchvision  # slow to load: once
for module in {modules}:
    for way in {ways}:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            assert "graphprune" not in sys.modules
            exec(way.format(module=module))
            print(module, found is sys.modules["graphprune." + module])
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
"""


def test_every_public_module_can_be_reached_first() -> None:
    """Each in each way in a process of its own, so that no earlier import has made the name."""
    script = CHILDREN.format(modules=list(MODULES), ways=FIRST)
    got = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert got.stdout.splitlines() == [f"{module} True" for module in MODULES for _ in FIRST], got.stderr


# --- the graph, and removing channels -----------------------------------------------------------------------------------


def test_trace(graph: ChannelGraph) -> None:
    assert isinstance(graph, ChannelGraph)
    assert [node.name for node in graph.nodes] == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "pool", "fc"]
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 2], [1, 3], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7]]
    assert [(group.name, group.channels, group.layers) for group in graph.groups] == [
        ("conv1", 4, ("conv1", "conv2")),
        ("conv3", 3, ("conv3",)),
    ]
    assert set(graph.frozen) == {"fc"}


def test_to_pyg(graph: ChannelGraph, half: dict[str, Tensor]) -> None:
    found = graph.to_pyg(half)
    assert isinstance(found, Data)
    assert found.x.dtype == torch.float32
    assert found.x[:4].tolist() == [[-1, -1, 1, 1, 0, 0, 0, 0, 0, 0]] * 4, "conv1, bn1, conv2, bn2; 0 beyond the channels"
    assert found.x[4:7].tolist() == [[1, -1, -1, 0, 0, 0, 0, 0, 0, 0]] * 3, "conv3, bn3, pool"
    assert found.x[7].tolist() == [1] * 10, "fc, which is never pruned"
    assert found.edge_index.equal(graph.edge_index)


def test_prune(model: nn.Module, graph: ChannelGraph, half: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = graphprune.prune(model, graph, half, round_to=1)
    assert isinstance(small, type(model))
    assert [tuple(layer.weight.shape) for layer in (small.conv1, small.conv2, small.conv3, small.fc)] == [
        (2, 1, 3, 3),
        (2, 2, 3, 3),
        (1, 2, 3, 3),
        (10, 1),
    ]
    assert small.conv1.weight.equal(model.conv1.weight[2:])
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    rounded = graphprune.prune(model, graph, half | {"conv3": torch.ones(3, dtype=torch.bool)}, round_to=2)
    assert (rounded.conv1.out_channels, rounded.conv3.out_channels) == (2, 3), "a multiple of 2, or all there are"


def test_prune_to(model: nn.Module) -> None:
    small = graphprune.prune_to(model, EXAMPLE, macs=0.5)
    assert (small.before, small.after) == (WHOLE, graphprune.cost(small.network, EXAMPLE))
    assert small.after.macs == 6_942, "2 and 3 channels; 3 and 1 would fit as well, but are further from an equal share"
    assert small.keep["conv1"].tolist() == [False, False, True, True]
    assert set(small.frozen) == {"fc"}


def test_masked(model: nn.Module, graph: ChannelGraph, half: dict[str, Tensor]) -> None:
    twin = graphprune.masked(model, graph, half)
    assert twin.conv1.weight.shape == model.conv1.weight.shape
    assert twin.conv1.weight[:2].abs().sum() == 0
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(twin.double()(x), graphprune.prune(model, graph, half).double()(x), rtol=0, atol=1e-12)


def test_round_keep(model: nn.Module, graph: ChannelGraph, half: dict[str, Tensor]) -> None:
    assert graphprune.round_keep(model, graph, half, multiple=1)["conv1"].tolist() == [False, False, True, True]
    rounded = graphprune.round_keep(model, graph, half | {"conv3": torch.ones(3, dtype=torch.bool)}, 2)
    assert {name: int(mask.sum()) for name, mask in rounded.items()} == {"conv1": 2, "conv3": 3}, "or all there are"


def test_save_pruned_and_load_pruned(model: nn.Module, graph: ChannelGraph, half: dict[str, Tensor], tmp_path: Path) -> None:
    small = graphprune.prune(model, graph, half)
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, half)
    assert path == tmp_path / "small.safetensors"
    again = graphprune.load_pruned(path, graphprune.models.build("tiny_cnn", in_channels=1))
    assert all(tensor.equal(again.state_dict()[name]) for name, tensor in small.state_dict().items())


# --- what it costs ------------------------------------------------------------------------------------------------------


def test_cost(model: nn.Module, graph: ChannelGraph, half: dict[str, Tensor]) -> None:
    found = graphprune.cost(model, EXAMPLE)
    assert (found.macs, found.params) == (WHOLE.macs, WHOLE.params) == (18_462, 350)
    assert graphprune.cost(graphprune.prune(model, graph, half), EXAMPLE) == HALF == Cost(macs=4_618, params=102)


def test_latency(model: nn.Module) -> None:
    found = graphprune.latency(model, EXAMPLE)
    assert 0 < found.low_ms <= found.median_ms <= found.high_ms
    assert (found.batch, found.device) == (1, "cpu")


def test_cost_model(graph: ChannelGraph) -> None:
    macs, params = graphprune.CostModel(graph, EXAMPLE).of_rates(torch.tensor([[0, 0], [5, 5]]))
    assert (macs.dtype, params.dtype) == (torch.int64, torch.int64)
    assert (macs.tolist(), params.tolist()) == ([WHOLE.macs, HALF.macs], [WHOLE.params, HALF.params])


# --- rates, importance, networks ----------------------------------------------------------------------------------------


def test_rate_space(graph: ChannelGraph) -> None:
    """R(r) = (8 r1 + 3 r2) / 11: conv1 and conv2 put out 8 channels, conv3 puts out 3."""
    space = graphprune.RateSpace(graph, rates=(0, 0.5))
    assert (space.count(0), space.count(0.3), space.count(0.5)) == (4, 2, 1)
    ratio = space.ratio(torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]))
    assert ratio.dtype == torch.float64
    assert ratio.tolist() == pytest.approx([0, 4 / 11, 1.5 / 11, 0.5], abs=1e-15)
    tenths = graphprune.RateSpace(graph)
    assert tenths.count(0) == 100
    drawn = tenths.sample(20, 0.5, torch.Generator().manual_seed(0))
    assert (drawn.dtype, tuple(drawn.shape)) == (torch.int64, (20, 2))
    assert bool((tenths.ratio(drawn) >= 0.5).all())


def test_keep_from_rates(graph: ChannelGraph) -> None:
    scores = {"conv1": torch.tensor([1.0, 4.0, 2.0, 3.0]), "conv3": torch.tensor([3.0, 2.0, 1.0])}
    keep = graphprune.keep_from_rates(graph, [5, 9], scores)
    assert keep["conv1"].tolist() == [False, True, False, True]
    assert keep["conv3"].tolist() == [True, False, False], "never 0"


def test_importance_of_weights(model: nn.Module, graph: ChannelGraph) -> None:
    assert graphprune.importance.l1(model, graph)["conv1"].tolist() == pytest.approx([1, 2, 3, 4])
    assert graphprune.importance.l1(model, graph)["conv3"].tolist() == pytest.approx([3, 2, 1])
    # n equal weights that sum up to s have a Euclidean norm of s / sqrt(n): 9 weights in conv1, 36 in conv2 and conv3
    assert graphprune.importance.l2(model, graph)["conv1"].tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert graphprune.importance.l2(model, graph)["conv3"].tolist() == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert graphprune.importance.fpgm(model, graph)["conv3"].tolist() == pytest.approx([0.5, 1 / 3, 0.5])
    assert graphprune.importance.bn_scale(model, graph)["conv1"].tolist() == [2, 2, 2, 2]
    drawn = graphprune.importance.random(model, graph, torch.Generator().manual_seed(0))
    assert drawn["conv3"].tolist() == torch.rand(7, generator=torch.Generator().manual_seed(0))[4:].tolist()


def test_importance_of_data(model: nn.Module, graph: ChannelGraph, digits: Dataset) -> None:
    for scores in (
        graphprune.importance.taylor(model, graph, digits, batches=1),
        graphprune.importance.hrank(model, graph, digits, batches=1),
    ):
        assert {name: tuple(score.shape) for name, score in scores.items()} == {"conv1": (4,), "conv3": (3,)}
        assert all(bool((score >= 0).all()) for score in scores.values())


def test_models_build() -> None:
    assert sum(parameter.numel() for parameter in graphprune.models.build("resnet56").parameters()) == 855_770
    assert graphprune.models.build("resnet8", num_classes=3, in_channels=1)(EXAMPLE).shape == (1, 3)


# --- encoders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gcn", "gat", "sage"])
def test_graph_encoder(graph: ChannelGraph, half: dict[str, Tensor], kind: str) -> None:
    encoder = graphprune.GraphEncoder(kind=kind, hidden=8, layers=2)
    one = encoder(graph.to_pyg(half))
    assert one.shape == (1, 8)
    many = encoder(Batch.from_data_list([graph.to_pyg(half), graph.to_pyg(graph.full())]))
    assert many.shape == (2, 8)
    assert torch.allclose(many[0], one[0], atol=1e-6)


def test_scorer_and_exact_optimum(model: nn.Module, graph: ChannelGraph) -> None:
    encoder = graphprune.GraphEncoder.seeded(0, graph.feature_index.shape[1])
    scorer = graphprune.Scorer(encoder, graph, graphprune.importance.l1(model, graph))
    every = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    scores = scorer(every)
    assert scores.shape == (100,)
    assert float(scores[0]) == pytest.approx(1, abs=1e-6), "the unpruned network is like itself"
    assert isinstance(scorer.plan, str)
    space = graphprune.RateSpace(graph, rates=[i / 10 for i in range(10)])
    best = graphprune.exact.optimum(scorer, space, min_ratio=0.5, k=1)
    allowed = space.ratio(every) >= 0.5
    assert best.proven
    assert best.score == pytest.approx(float(scores[allowed].max()), abs=1e-6)
    assert float(scorer(best.indices)[0]) == pytest.approx(best.score, abs=1e-6)
    assert 0 <= best.bound - best.score <= 1e-9
    assert best.seconds > 0
    whole = graphprune.exact.optimum(scorer, space, min_ratio=0)
    assert whole.indices.tolist() == [[0, 0]]


def test_contrast_fit(model: nn.Module, graph: ChannelGraph) -> None:
    encoder = graphprune.GraphEncoder(hidden=8)
    indices = graphprune.RateSpace(graph).sample(64, 0, torch.Generator().manual_seed(0))
    assert len(graphprune.contrast.fit(encoder, graph, model, indices=indices, epochs=2)) == 2
    assert encoder(graph.to_pyg(graph.full())).shape == (1, 8)


# --- data and training ----------------------------------------------------------------------------------------------------


def test_data_load(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1137, 300, 360)
    assert (digits.num_classes, digits.input_shape) == (10, (1, 8, 8))


def test_data_of_ones_own() -> None:
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 2
    own = graphprune.data.from_tensors(train=(x, y), val=(x, y))
    pairs = torch.utils.data.TensorDataset(x, y)
    for other in (
        graphprune.data.from_dataset(pairs, pairs),
        graphprune.data.from_loaders(torch.utils.data.DataLoader(pairs, 3), torch.utils.data.DataLoader(pairs)),
    ):
        assert (len(other.train), len(other.val), other.num_classes, other.input_shape) == (8, 8, 2, (1, 8, 8))
        assert next(other.val.batches(8))[0].equal(next(own.val.batches(8))[0])


def test_train(model: nn.Module, digits: Dataset) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = graphprune.models.build("tiny_cnn", in_channels=1)
    history = graphprune.train.fit(net, digits, graphprune.train.Recipe(epochs=2, lr=0.1, batch_size=64), seed=0)
    assert [row["epoch"] for row in history] == [1, 2]
    assert graphprune.train.evaluate(net, digits).n == 300, "validation, unless a split is named"
    assert history[1]["loss"] < history[0]["loss"]
    found = graphprune.train.evaluate(net, digits.test)
    assert found.n == 360
    assert found.accuracy * 360 == pytest.approx(round(found.accuracy * 360))
    before = net.conv1.weight.clone()
    tuned = graphprune.train.finetune(net, digits, BRIEF, seed=0)
    assert tuned is not net
    assert net.conv1.weight.equal(before)
    assert not tuned.conv1.weight.equal(before)


def test_reestimate_bn(digits: Dataset) -> None:
    net = graphprune.models.build("tiny_cnn", in_channels=1).eval()
    assert net.bn1.running_mean.tolist() == [0, 0, 0, 0]
    assert graphprune.train.reestimate_bn(net, digits, batches=1, batch_size=len(digits.train)) is None
    x, _ = next(digits.train.batches(len(digits.train)))
    assert torch.allclose(net.bn1.running_mean, net.conv1(x).mean((0, 2, 3)), atol=1e-4)
    assert not net.training


# --- search, game, tables ------------------------------------------------------------------------------------------------


def test_search_sacp(model: nn.Module, graph: ChannelGraph, digits: Dataset, tmp_path: Path) -> None:
    sizes = {"n_train": 32, "epochs": 1, "n_candidates": 50, "m": 2, "k": 1, "n_jobs": 1}
    result = graphprune.search.sacp(
        model, graph, digits, min_ratio=0.3, light=BRIEF, full=BRIEF, folder=tmp_path / "search", **sizes
    )
    assert isinstance(result.trials, pd.DataFrame)
    assert list(result.trials["stage"]) == ["light", "light", "full"]
    assert result.best["ratio"] >= 0.3
    assert set(result.keep) == {"conv1", "conv3"}
    assert graphprune.cost(result.model, EXAMPLE).macs < WHOLE.macs


def test_search_compare(model: nn.Module, graph: ChannelGraph, digits: Dataset, tmp_path: Path) -> None:
    methods = {"mine": lambda model, graph: {g.name: torch.arange(g.channels) for g in graph.groups}, "L1": importance.l1}
    table = graphprune.search.compare(methods, model, graph, digits, macs=0.5, seeds=2, recipe=BRIEF, folder=tmp_path)
    assert isinstance(table, pd.DataFrame)
    assert table["method"].tolist() == ["mine", "L1"]
    assert len(graphprune.search.draw_comparison(table).axes) == 2


def test_pruning_env(model: nn.Module, graph: ChannelGraph, digits: Dataset) -> None:
    env = graphprune.PruningEnv(model, graph, digits, 0.5)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    done = False
    while not done:
        _, reward, done, _, info = env.step(env.action_space.sample())
    assert reward == 0.0, "the first episode has no past to beat"
    assert info["kept"].shape == (7,)
    assert graphprune.cost(graphprune.prune(model, graph, graph.unflatten(torch.from_numpy(info["kept"]))), EXAMPLE).macs <= (
        0.5 * WHOLE.macs
    )


def test_agent_train(model: nn.Module, graph: ChannelGraph, digits: Dataset, tmp_path: Path) -> None:
    game = graphprune.environment.game(model, graph, digits, 0.5)
    settings = graphprune.agent.Settings(evaluations=8, episodes=4, hidden=4)
    trained = graphprune.agent.train(game, settings, checkpoint=tmp_path / "agent")
    again = graphprune.agent.train(game, settings)
    assert trained.kept.equal(again.kept), "the same seed, the same bits, stored or not"
    assert graphprune.cost(graphprune.prune(model, graph, graph.unflatten(trained.kept)), EXAMPLE).macs <= 0.5 * WHOLE.macs


def test_spectral() -> None:
    ring = torch.ones(2, 2)  # four equal edges: each beside a way round of three
    assert graphprune.spectral.effective_resistance(ring).tolist() == [pytest.approx([0.75, 0.75])] * 2
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[3.0, 2.0, 0.0], [1.0, 3.0, 0.5]])
    mask = graphprune.spectral.prune_weights(layer, None, 1 / 6, rule="resistance", budget="layer")
    assert {name: part.tolist() for name, part in mask.items()} == {"weight": [[True, True, False], [True, True, True]]}


def test_neurons_scores() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # the third unit reads both inputs
    net[2].weight.data = torch.tensor([[2.0, -2.0, 0.0], [-2.0, 2.0, 0.0]])  # and has no vote
    found = graphprune.neurons.scores(net, torch.eye(2), torch.tensor([0, 1]), program="exact")
    assert found["0"].tolist() == pytest.approx([math.log(29) / 4] * 2 + [0], abs=1e-2), "where 4 s = log(6 lambda - 1)"
    assert found.status == "optimal"
    assert found.bound == pytest.approx(found.objective, abs=1e-6), "the optimum, to the solver's tolerance"
    assert found.gap == pytest.approx(found.objective - found.bound, abs=1e-12)
    assert found.seconds > 0


def test_compression() -> None:
    task = graphprune.compression.graph_data.load("karate")
    net = graphprune.compression.networks.build("gcn", task, graphprune.compression.recipes.find("karate", "gcn"), seed=0)
    assert sum(int(mask.sum()) for mask in graphprune.compression.prune_globally(net, 0.5).values()) == (34 * 16 + 16 * 2) / 2
    assert graphprune.compression.prune_width(net, task, 0.5)(task.x, task.edge_index).shape == (34, 2)
    few_bits = graphprune.compression.quantize(net, graphprune.compression.Uniform(bits=8), task.x, task.edge_index)
    assert few_bits(task.x, task.edge_index).shape == (34, 2)


def test_tabular_load() -> None:
    table = graphprune.tabular.load("digits")
    assert isinstance(table, pd.DataFrame)
    assert {"indices", "macs", "seed", "accuracy_test", "score_default"} <= set(table.columns)
    assert len(table) == 2 * 2_988
