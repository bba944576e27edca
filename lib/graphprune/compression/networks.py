"""The graph networks of chapter 08, from PyG's layers: GCN, GIN, GAT, GraphSAGE, and an MLP that sees no edges.

They are ordinary modules: `graphprune.trace` finds their hidden widths as groups of channels, a GAT's heads go as a whole.
Layers multiply by their weights first and add up messages after, where that is less work; the result is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.compression.recipes import Recipe
from graphprune.compression.sparse_features import Linear, drop, multiply
from graphprune.compression.tasks import Task
from graphprune.runs import runtime

runtime.import_pyg()
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_add_pool, global_mean_pool  # noqa: E402

MODELS = ("gcn", "gin", "gat", "sage", "mlp")


def _own(linear: Any) -> Linear:
    """The same weights in a layer that takes CSR features, and that methods on single weights know."""
    weight, bias = linear.weight, linear.bias
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight, made.bias = weight, bias
    return made


def gcn_layer(inputs: int, outputs: int) -> GCNConv:
    """A graph convolution (Kipf and Welling 2017, eq. 2), PyG's own: it multiplies by the weights first."""
    layer = GCNConv(inputs, outputs)
    layer.lin = _own(layer.lin)
    return layer


def gat_layer(inputs: int, outputs: int, heads: int, dropout: float, concat: bool) -> GATConv:
    """Graph attention (Velickovic et al. 2018, eq. 4 and 5), PyG's own: it multiplies by the weights first."""
    layer = GATConv(inputs, outputs, heads=heads, dropout=dropout, concat=concat)
    layer.lin = _own(layer.lin)
    return layer


class SAGELayer(SAGEConv):
    """GraphSAGE with mean aggregation (Hamilton et al. 2017): W_l mean of the neighbours + b + W_r x.

    Where a layer narrows, the neighbours are multiplied by W_l before the mean is taken.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.narrows = outputs < inputs  # as built: a width that is pruned later does not change the order
        self.lin_l: Linear = _own(self.lin_l)
        self.lin_r: Linear = _own(self.lin_r)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.narrows or x.layout == torch.sparse_csr:
            messages = multiply(x, self.lin_l.weight)
            return self.propagate(edge_index, x=(messages, messages)) + self.lin_l.bias + self.lin_r(x)
        return self.lin_l(self.propagate(edge_index, x=(x, x))) + self.lin_r(x)


class GINLayer(GINConv):
    """Graph isomorphism layer (Xu et al. 2019, eq. 4.1): an MLP of x + the sum over neighbours.

    Where the MLP's first layer narrows, it multiplies before the sum is taken.
    """

    def __init__(self, inputs: int, outputs: int, batch_norm: bool) -> None:
        norm = [nn.BatchNorm1d(outputs)] if batch_norm else []
        super().__init__(nn.Sequential(Linear(inputs, outputs), *norm, nn.ReLU(), Linear(outputs, outputs)))
        self.narrows = outputs < inputs

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = self.nn[0]
        if not (self.narrows or x.layout == torch.sparse_csr):
            return self.nn(self.propagate(edge_index, x=(x, x)) + x)
        y = multiply(x, first.weight)
        y = self.propagate(edge_index, x=(y, y)) + y + first.bias
        for layer in self.nn[1:]:
            y = layer(y)
        return y


class EdgelessLayer(nn.Module):
    """A linear layer in the place of a graph layer: it does not look at edges."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = Linear(inputs, outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x)


class GraphNetwork(nn.Module):
    """Graph layers with activations between; of graphs, the nodes' outputs are pooled and classified by a linear layer.

    Args:
        layers: modules of (x, edge_index).
        dropout: of each layer's input; with a `head`, of the head's input alone.
        elu: ELU in place of ReLU.
        head: from the pooled width to the classes; None for an output a node.
        mean: pool by the mean in place of the sum.

    Shapes: x (N, F) dense or CSR, edge_index (2, E), graph (N,) -> (N, outputs), or (graphs, outputs) with a head.
    """

    def __init__(
        self, layers: list[nn.Module], dropout: float, *, elu: bool = False, head: nn.Module | None = None, mean: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head
        self.dropout, self.elu, self.mean = dropout, elu, mean

    def forward(self, x: Tensor, edge_index: Tensor, graph: Tensor | None = None) -> Tensor:
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            if self.head is None:
                x = drop(x, self.dropout, self.training)
            x = layer(x, edge_index)
            if number < last or self.head is not None:
                x = F.elu(x) if self.elu else F.relu(x)
        if self.head is None:
            return x
        pooled = global_mean_pool(x, graph) if self.mean else global_add_pool(x, graph)
        return self.head(F.dropout(pooled, self.dropout, self.training))


def build(model: str, task: Task, recipe: Recipe, seed: int) -> GraphNetwork:
    """A graph network with initial weights drawn from `seed`, of the recipe's sizes, for a task.

    Args:
        model: `gcn`, `gin`, `gat`, `sage`, or `mlp`, which sees no edges.
    Raises:
        ValueError: an unknown model.

    >>> from graphprune.compression import graph_data, recipes
    >>> net = build("gcn", graph_data.load("karate"), recipes.find("karate", "gcn"), seed=0)
    >>> [tuple(weight.shape) for name, weight in net.named_parameters() if name.endswith("weight")]
    [(16, 34), (2, 16)]
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r}: unknown; choose from {', '.join(MODELS)}")
    widths = [recipe.hidden] * (recipe.layers if task.pooled else recipe.layers - 1)
    if not task.pooled:
        widths.append(task.outputs)
    with runtime.seeded(seed):
        layers, inputs = list[nn.Module](), task.features
        for number, width in enumerate(widths):
            last = number == len(widths) - 1 and not task.pooled
            layers.append(_layer(model, inputs, width, recipe, last))
            inputs = width if model != "gat" or last else width * recipe.heads
        head = nn.Linear(inputs, task.outputs) if task.pooled else None
    return GraphNetwork(layers, recipe.dropout, elu=model == "gat", head=head, mean=recipe.mean_pool)


def _layer(model: str, inputs: int, outputs: int, recipe: Recipe, last: bool) -> nn.Module:
    if model == "gat":
        heads = 1 if last else recipe.heads
        return gat_layer(inputs, outputs, heads, recipe.dropout, concat=not last)
    if model == "gin":
        return GINLayer(inputs, outputs, recipe.batch_norm)
    plain = {"gcn": gcn_layer, "sage": SAGELayer, "mlp": EdgelessLayer}
    return plain[model](inputs, outputs)


def example_input(task: Task) -> tuple[Tensor, ...]:
    """Two small graphs of zeros that a network for this task reads: enough for `graphprune.trace`.

    >>> from graphprune.compression import graph_data
    >>> [tuple(part.shape) for part in example_input(graph_data.load("karate"))]
    [(6, 34), (2, 6)]
    """
    edges = torch.tensor([[0, 1, 1, 2, 4, 5], [1, 0, 2, 1, 5, 4]])
    inputs = (torch.zeros(6, task.features), edges)
    return (*inputs, torch.tensor([0, 0, 0, 1, 1, 1])) if task.pooled else inputs
