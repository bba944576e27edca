"""Random small networks: every `keep` is honoured exactly, and what is left can be trained.

40 networks by default; GRAPHPRUNE_RANDOM_NETWORKS=500 for the full run.
"""

import os

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import graphprune

EXAMPLES = int(os.environ.get("GRAPHPRUNE_RANDOM_NETWORKS", "40"))
KINDS = ("conv", "depthwise", "grouped", "norm", "add", "cat", "chunk", "pool", "gate", "twice")
STEP = st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.sampled_from((2, 3, 4, 6, 8)))


class RandomNetwork(nn.Module):
    """A chain of steps (kind, places back to the second operand, width) over feature maps, ended by a linear layer."""

    def __init__(self, steps: list[tuple[str, int, int]], flat: bool) -> None:
        super().__init__()
        self.flat, self.layers = flat, nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3, padding=1)})
        self.plan: list[tuple[str, str, int]] = []
        widths = [4]
        for number, (kind, back, width) in enumerate(steps):
            second = max(len(widths) - 1 - back, 0)
            kind = "pool" if kind == "chunk" and widths[-1] % 2 else kind  # an odd number has no halves
            widths.append(self.make(f"{number}", kind, widths[-1], widths[second], width))
            self.plan.append((kind, f"{number}", second))
        self.head = nn.Linear(widths[-1] * (16 if flat else 1), 5)

    def make(self, name: str, kind: str, last: int, second: int, width: int) -> int:
        """The layers of one step; returns the channels of its result."""
        if kind == "gate":
            self.layers[f"{name}down"], self.layers[f"{name}up"] = nn.Conv2d(last, width, 1), nn.Conv2d(width, last, 1)
        if kind == "norm":
            self.layers[name] = nn.BatchNorm2d(last)
        outputs = {"conv": width, "depthwise": last * (1 + width % 2), "grouped": 2 * width, "add": second, "twice": last}
        groups = {"depthwise": last, "grouped": 2 - last % 2}
        if kind in outputs:
            self.layers[name] = nn.Conv2d(last, outputs[kind], 3, padding=1, groups=groups.get(kind, 1))
        return {"cat": last + second, "chunk": last // 2}.get(kind, outputs.get(kind, last))

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.layers["stem"](x)]
        for kind, name, second in self.plan:
            maps.append(self.step(kind, name, maps[-1], maps[second]))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(maps[-1], 4 if self.flat else 1), 1))

    def step(self, kind: str, name: str, last: Tensor, second: Tensor) -> Tensor:
        if kind == "add":
            return self.layers[name](last) + second
        if kind == "cat":
            return torch.cat([last, second], 1)
        if kind == "chunk":
            value, gate = last.chunk(2, 1)
            return value * gate.sigmoid()
        if kind == "pool":
            return nn.functional.max_pool2d(last, 3, 1, 1)
        if kind == "gate":
            return last * self.layers[f"{name}up"](self.layers[f"{name}down"](last.mean((2, 3), keepdim=True)).relu()).sigmoid()
        y = self.layers[name](last)
        return self.layers[name](y) if kind == "twice" else y.relu()


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 40, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, min_size=1, max_size=9), st.booleans(), st.sampled_from((0.1, 0.5, 0.9)), st.integers(0, 2**16))
def test_a_random_network_is_pruned_exactly(steps: list[tuple[str, int, int]], flat: bool, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = RandomNetwork(steps, flat).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    x = torch.randn(2, 3, 6, 6, dtype=torch.double)
    graph = graphprune.trace(model, x)
    keep = {group.name: torch.rand(group.channels) < share for group in graph.groups}
    for mask in keep.values():
        mask[0], mask[-1] = False, True  # something goes, something stays
    small = graphprune.prune(model, graph, keep) if keep else model
    with torch.no_grad():
        masked, pruned = graphprune.masked(model, graph, keep)(x), small(x)
    assert pruned.shape == masked.shape == (2, 5)
    assert float((masked - pruned).abs().max()) <= 1e-10 * float(masked.abs().max())

    kept = torch.cat([graph.flatten(keep), torch.ones(1, dtype=torch.bool)])
    for node in graph.nodes:
        if node.kind == "conv" and ":" not in node.name:
            assert small.get_submodule(node.name).out_channels == int(kept[list(node.atoms)].sum()) >= 1
    if keep:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(small.train().parameters(), lr=1e-3)
    small(x).square().mean().backward()
    optimizer.step()
    assert all(bool(p.grad.isfinite().all()) and bool(p.isfinite().all()) for p in small.parameters() if p.grad is not None)
