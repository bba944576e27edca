"""Costs against the paper's figures, torch's counter and the really pruned network."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import graphprune
from graphprune.pruning.cost import Cost, CostModel, paper_flops, prunable_share
from graphprune.pruning.rates import kept_counts

CIFAR = torch.zeros(1, 3, 32, 32)
CONFIGURATIONS = int(os.environ.get("GRAPHPRUNE_COST_CONFIGURATIONS", "3"))  # 100 in the full run
ARCHITECTURES = [
    *("tiny_cnn", "resnet8", "resnet20a", "vgg16", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5"),
    *("torchvision:squeezenet1_1", "torchvision:regnet_y_400mf", "torchvision:googlenet", "timm:dla34"),
]


@pytest.mark.parametrize(
    ("name", "millions", "params"),
    [
        ("vgg16", 314.31, 14_728_266),
        ("resnet18", 557.89, 11_173_962),
        ("resnet56", 127.93, 855_770),
        ("resnet56a", 127.62, 853_018),
    ],
)
def test_base_figures_are_the_papers(name: str, millions: float, params: int) -> None:
    model = graphprune.models.build(name)
    assert round(paper_flops(model, CIFAR) / 1e6, 2) == millions
    assert graphprune.cost(model, CIFAR).params == params


def test_a_hand_counted_network() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    cost = graphprune.cost(model, torch.zeros(2, 3, 8, 8))
    assert cost == Cost(macs=3 * 4 * 9 * 64 + 4 * 5, params=3 * 4 * 9 + 4 + 8 + 4 * 5 + 5)
    assert paper_flops(model, torch.zeros(2, 3, 8, 8)) == cost.macs + 4 * 4 * 64 + 4 * 64


def test_attention_is_counted_by_its_products() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens = torch.zeros(1, 5, 16)
    projections, products, mlp = 4 * 5 * 16 * 16, 2 * 5 * 5 * 16, 2 * 5 * 16 * 32
    assert graphprune.cost(model, tokens).macs == projections + products + mlp
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cost_model_equals_the_pruned_network(name: str) -> None:
    channels = 1 if name == "tiny_cnn" else 3
    model, image = graphprune.models.build(name, in_channels=channels), torch.zeros(2, channels, 32, 32)
    graph = graphprune.trace(model, image)
    indices = torch.randint(1, 10, (CONFIGURATIONS, len(graph.groups)), generator=torch.Generator().manual_seed(0))
    macs, params = CostModel(graph, image).of_rates(indices)
    for row, expected in zip(indices.tolist(), zip(macs.tolist(), params.tolist(), strict=True), strict=True):
        counts = [int(kept_counts(group.channels)[i]) for group, i in zip(graph.groups, row, strict=True)]
        keep = {group.name: torch.arange(group.channels) < n for group, n in zip(graph.groups, counts, strict=True)}
        small = graphprune.prune(model, graph, keep).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            small(image)
        assert expected == (counter.get_total_flops() // 4, sum(p.numel() for p in small.parameters()))


def test_cost_model_counts_for_another_input_size() -> None:
    model = graphprune.models.build("resnet8")
    graph = graphprune.trace(model, torch.zeros(1, 3, 8, 8))
    assert CostModel(graph, CIFAR).full == graphprune.cost(model, CIFAR)
    none = torch.zeros(1, len(graph.groups), dtype=torch.long)
    assert CostModel(graph, CIFAR).of_rates(none)[0].item() == graphprune.cost(model, CIFAR).macs


def test_wrong_indices_are_named() -> None:
    graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    model = CostModel(graph, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"indices must be int64 of shape \(B, 2\), one rate index a group, got .* \(1, 3\)"):
        model.of_rates(torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 10\), got 0 to 10"):
        model.of_rates(torch.tensor([[0, 10]]))


def test_prunable_share_counts_what_lies_in_a_row_or_column_of_a_group() -> None:
    """Of tiny_cnn's 350 parameters the 10 biases of its classifier stay whatever is pruned."""
    graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    assert prunable_share(graph) == pytest.approx(340 / 350)
    frozen = graphprune.trace(torch.nn.Linear(4, 2), torch.zeros(1, 4))
    assert prunable_share(frozen) == 0


def test_many_configurations_cost_the_same_whole_numbers_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graphprune.trace(graphprune.models.build("resnet56"), torch.zeros(1, 3, 8, 8))
    model = CostModel(graph, CIFAR)
    indices = torch.randint(10, (300, len(graph.groups)), generator=torch.Generator().manual_seed(0))
    table = torch.stack([kept_counts(group.channels) for group in graph.groups])
    counts = table[torch.arange(len(table)), indices]
    macs, params = model.of_rates(indices)
    forms = model.forms.tolist()
    for row, *expected in zip(counts.tolist(), macs.tolist(), params.tolist(), strict=True):
        x = [*row, 1]  # Python's integers are the oracle
        assert expected == [sum(f[i][j] * x[i] * x[j] for i in range(len(x)) for j in range(len(x))) for f in forms]
    monkeypatch.setattr("graphprune.pruning.cost.CHUNK", 7)
    assert torch.equal(torch.stack(model.of_rates(indices)), torch.stack([macs, params]))
    assert torch.equal(torch.stack(model.of_counts(counts)), torch.stack([macs, params]))


def test_rates_are_those_of_the_space() -> None:
    """Of (0, 0.25, 0.5) the last index halves a group; read as tenths it would leave 0.8 of it."""
    model, image = graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8)
    graph = graphprune.trace(model, image)
    space = graphprune.RateSpace(graph, rates=(0, 0.25, 0.5))
    rows = space.unrank(torch.arange(9))
    macs, params = CostModel(graph, image).of_rates(rows, space.rates)
    kept = [[4, 3, 2], [3, 2, 1]]
    for (a, b), *expected in zip(rows.tolist(), macs.tolist(), params.tolist(), strict=True):
        counts = (kept[0][a], kept[1][b])
        keep = {group.name: torch.arange(group.channels) < n for group, n in zip(graph.groups, counts, strict=True)}
        found = graphprune.cost(graphprune.prune(model, graph, keep) if a or b else model, image)
        assert expected == [found.macs, found.params]
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 3\), got 0 to 3"):
        CostModel(graph, image).of_rates(torch.tensor([[0, 3]]), space.rates)


@pytest.mark.parametrize("measure", [graphprune.cost, graphprune.latency, paper_flops])
def test_wrong_inputs_of_a_measure_are_named(measure: Callable[..., object]) -> None:
    model = graphprune.models.tiny_cnn()
    with pytest.raises(ValueError, match=r"model rejects example_input of shape \(1, 3, 8, 8\): .*channel.*; give a tensor"):
        measure(model, torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeError, match=r"example_input must be a tensor, a tuple or a dictionary .*, got \(list, str\)"):
        measure(model, ([1, 2], "x"))
    for empty in (torch.tensor(1.0), torch.zeros(0, 1, 8, 8)):
        with pytest.raises(ValueError, match=r"example_input must hold a batch of one input or more, \(B, \.\.\.\)"):
            measure(model, empty)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got Tensor"):
        measure(torch.zeros(1, 1, 8, 8), model)


def test_an_input_that_the_cost_model_cannot_use_is_named() -> None:
    graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"model rejects example_input of shape \(1, 3, 8, 8\)"):
        CostModel(graph, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="example_input must hold a batch"):
        CostModel(graph, torch.zeros(0, 1, 8, 8))


def test_a_network_can_be_traced_counted_and_pruned_in_inference_mode() -> None:
    example = torch.zeros(1, 1, 8, 8)
    model = graphprune.models.tiny_cnn()
    outside = graphprune.CostModel(graphprune.trace(model, example), example)
    with torch.inference_mode():
        graph = graphprune.trace(model, example)
        inside = graphprune.CostModel(graph, example)
        keep = graphprune.keep_from_rates(graph, [5, 5], graphprune.importance.l1(model, graph))
        small = graphprune.prune(model, graph, keep)
    assert inside.full == outside.full
    assert graphprune.cost(small, example).macs == inside.of_rates(torch.tensor([[5, 5]]))[0].item()


class Unpadded(nn.Module):
    """Attention over the tokens that are no padding: how many there are, only their values say."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.words, self.qkv, self.out = nn.Embedding(9, 6), nn.Linear(6, 12), nn.Linear(4, 3)
        self.register_buffer("padding", torch.tensor(0))

    def forward(self, *, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids[ids != self.padding])
        q, k, v = self.qkv(x * scale.mean()).view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        return self.out(((q @ k.transpose(1, 2)).softmax(-1) @ v).transpose(0, 1).reshape(len(x), -1))


def test_the_cost_of_a_forward_that_needs_values_is_counted_with_them() -> None:
    model, batch = Unpadded(), {"scale": torch.ones(1), "ids": torch.tensor([[4, 7, 0, 0, 1]])}
    graph = graphprune.trace(model, **batch)
    assert graph.weightless is False
    costs = CostModel(graph, batch)
    weights, products = 3 * (6 * 12 + 4 * 3), 2 * 2 * 3 * 3 * 2
    assert costs.full == Cost(weights + products, sum(p.numel() for p in model.parameters())) == graphprune.cost(model, batch)
    assert CostModel(graph, graph.inputs).full == costs.full
    assert CostModel(graph, {**batch, "ids": torch.tensor([[4, 7, 2, 3, 1]])}).full.macs > costs.full.macs
    keep = {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}
    small = graphprune.prune(model, graph, keep)
    macs, params = costs.of_counts(torch.tensor([[int(mask.sum()) for mask in keep.values()]]))
    assert Cost(int(macs), int(params)) == graphprune.cost(small, batch)
    assert macs < costs.full.macs
    assert {name: int(mask.sum()) for name, mask in graphprune.round_keep(model, graph, keep, 2, macs=1).items()}
    with pytest.raises(ValueError, match="example_input has no values, and the forward needs them"):
        CostModel(graph, {name: tensor.to("meta") for name, tensor in batch.items()})
    with pytest.raises(ValueError, match="rejects example_input"):
        graphprune.cost(model, {name: tensor.to("meta") for name, tensor in batch.items()})


class Recurrent(nn.Module):
    """A recurrent layer behind one that can be pruned, read by one that stays."""

    def __init__(self, kind: type[nn.RNNBase], values: bool, **options: Any) -> None:
        super().__init__()
        self.first, self.middle, self.values = nn.Linear(4, 12), kind(12, 6, **options), values
        self.last = nn.Linear((options.get("proj_size") or 6) * (1 + options.get("bidirectional", False)), 2)

    def forward(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.first(x).relu()
        out: torch.Tensor = self.last(self.middle(hidden[:, : int(length.max())] if self.values else hidden)[0])
        return out


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"batch_first": True}, False),
        ({"bias": False, "bidirectional": True}, False),
        ({"num_layers": 2, "bidirectional": True, "batch_first": True}, False),
        ({"batch_first": True}, True),
    ],
)
def test_a_recurrent_layer_costs_less_where_its_input_is_narrower(
    kind: type[nn.RNNBase], options: dict[str, Any], values: bool
) -> None:
    model, example = Recurrent(kind, values, **options).eval(), (torch.zeros(2, 5, 4), torch.tensor([5, 4]))
    small = graphprune.prune_to(model, example, macs=0.9)
    kept = torch.tensor([[int(mask.sum()) for mask in small.keep.values()]])
    macs, params = CostModel(small.graph, example).of_counts(kept)
    assert (int(macs), int(params)) == (small.after.macs, small.after.params)
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind] * 6 * (1 + options.get("bidirectional", False))
    assert small.before.macs - small.after.macs == 5 * (12 - int(kept)) * (4 + gates)


def test_an_lstm_with_a_projection_costs_what_it_does() -> None:
    model, example = Recurrent(nn.LSTM, False, proj_size=3).eval(), (torch.zeros(2, 5, 4), torch.tensor([5, 4]))
    graph = graphprune.trace(model, example)
    keep = graph.unflatten(torch.arange(12) < 7)
    macs, _ = CostModel(graph, example).of_counts(torch.tensor([[7]]))
    assert int(macs) == graphprune.cost(graphprune.prune(model, graph, keep, check=False), example).macs


class Mixed(nn.Module):
    """A layer of low precision within."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 12), nn.Linear(12, 8).bfloat16(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(self.b(self.a(x).bfloat16()).float())
        return out


def test_a_layer_of_another_precision_is_counted() -> None:
    model, x = Mixed(), torch.zeros(1, 4)
    graph = graphprune.trace(model, x)
    assert CostModel(graph, x).full == graphprune.cost(model, x) == Cost(4 * 12 + 12 * 8 + 8 * 2, 60 + 104 + 18)
    keep = graph.unflatten(torch.arange(20) % 2 == 0)
    macs, _ = CostModel(graph, x).of_counts(torch.tensor([[6, 4]]))
    assert int(macs) == graphprune.cost(graphprune.prune(model, graph, keep, check=False), x).macs
