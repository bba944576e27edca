"""Graph neural networks made smaller: tasks, networks, training, pruning of weights and widths, quantization (chapter 08).

>>> from graphprune.compression import graph_data, networks, recipes, training
>>> task, recipe = graph_data.load("karate"), recipes.find("karate", "gcn")
>>> net = networks.build("gcn", task, recipe, seed=0)
>>> sum(p.numel() for p in net.parameters())  # 34 x 16 + 16 and 16 x 2 + 2
594
>>> half = prune_globally(net, 0.5)  # a mask of its weights; `prune_width` makes the network itself narrower
>>> sum(int(mask.sum()) for mask in half.values())  # of 576
288
>>> few_bits = quantize(net, Uniform(bits=8), task.x, task.edge_index)
>>> few_bits(task.x, task.edge_index).shape
torch.Size([34, 2])
"""

from graphprune.compression import graph_data, networks, packed, recipes, regularization, storage, training
from graphprune.compression.a2q import A2Q
from graphprune.compression.degree_quant import DegreeQuant
from graphprune.compression.post_training import calibrate
from graphprune.compression.quantized_network import quantize
from graphprune.compression.quantized_training import quantize_and_tune
from graphprune.compression.quantizer import Uniform
from graphprune.compression.weight_pruning import prune_each, prune_globally
from graphprune.compression.width_pruning import prune_width

__all__ = [
    "A2Q",
    "DegreeQuant",
    "Uniform",
    "calibrate",
    "graph_data",
    "networks",
    "packed",
    "prune_each",
    "prune_globally",
    "prune_width",
    "quantize",
    "quantize_and_tune",
    "recipes",
    "regularization",
    "storage",
    "training",
]


def __dir__() -> list[str]:
    return __all__
