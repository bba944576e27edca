"""The decoupled form: each layer scored by a program of its own, with an auxiliary head in place of the layers after it.

The authors' heads hold convolutions and ReLUs, and so gates. Ours averages and is linear: with the layer's input known,
x = s ReLU(h), the logits are linear in the layer's scores and the program is convex. A layer costs as many columns as it has
channels, whatever its resolution, so that VGG-16 is in reach.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.groups import trace
from graphprune.neurons import replay
from graphprune.neurons.bounds import propagate
from graphprune.neurons.chain import Affine, Chain, Flatten, Score
from graphprune.neurons.program import build, point
from graphprune.neurons.reading import read
from graphprune.neurons.scores import Scores, by_group, check, check_images
from graphprune.neurons.solver import Solution, solve
from graphprune.runs.checks import at_least

SIDE = 2  # feature maps are averaged to this side before the head
DECAY = 1e-3  # of a head's weights


@dataclass(frozen=True, eq=False)
class Block:
    """A layer and its head.

    Attributes:
        features: (B, C, cells) float64, the layer's outputs after its ReLU on the images, averaged over cells, all s = 1.
        weight: (K, C cells). bias: (K,): of the head.
        accuracy: of the head, on the images that it was fitted to.
    """

    layer: str
    features: Tensor
    weight: Tensor
    bias: Tensor
    accuracy: float

    def chain(self) -> Chain:
        """features -> x = s features -> logits, as a chain whose images are the features."""
        linear, absolute = (partial(F.linear, weight=w) for w in (self.weight, self.weight.abs()))
        score = Score(self.layer, self.features.shape[1], gated=True)
        return Chain((score, Flatten(), Affine("head", linear, absolute, self.bias, weighted=True)))


def blocks(model: nn.Module, images: Tensor, head_images: Tensor, head_labels: Tensor, side: int = SIDE) -> list[Block]:
    """The network cut into one block a scored layer, its head fitted to `head_images` by their cross-entropy.

    Args:
        images: (B, *input shape), those of the program. head_images: (N, *input shape), many more. head_labels: (N,).
        side: feature maps are averaged to side x side.
    Raises:
        ValueError: `side` is below 1, images and labels do not fit each other, a layer is not supported, or has no ReLU (after
            its BN) right after it, or the network's values are not finite.
    """
    at_least(1, side=side)
    check_images(head_images, head_labels, "head_")
    chain = read(model, images, "exact")
    for score in chain.scored:
        if not score.gated:
            raise ValueError(f"model: layer {score.layer!r} has no ReLU right after it; the decoupled form needs one")
    kept, many = (_features(chain, part.detach().cpu(), side) for part in (images, head_images))
    if wrong := [score.layer for score, *both in zip(chain.scored, kept, many, strict=True) if not _finite(*both)]:
        raise ValueError(f"model: the outputs of layer {wrong[0]!r} are not finite numbers; train with a lower learning rate")
    classes = int(head_labels.max()) + 1
    found = []
    for score, features, of_heads in zip(chain.scored, kept, many, strict=True):
        found.append(Block(score.layer, features, *_head(of_heads.flatten(1), head_labels.detach().cpu().long(), classes)))
    return found


@torch.no_grad()
def _features(chain: Chain, images: Tensor, side: int) -> list[Tensor]:
    """For each scored layer (N, C, cells) float64."""
    parts: list[list[Tensor]] = [[] for _ in chain.scored]
    for batch in images.split(64):
        x, layer = batch.double(), 0
        for op in chain.operations:
            if isinstance(op, Score):
                x = x.relu()
                cells = F.adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3]))) if x.ndim == 4 else x
                parts[layer].append(cells.reshape(*x.shape[:2], -1))
                layer += 1
            else:
                x = op(x)
    return [torch.cat(part) for part in parts]


def _finite(*parts: Tensor) -> bool:
    return all(bool(part.isfinite().all()) for part in parts)


def _head(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, float]:
    """Multinomial regression with weight decay: (K, n), (K,), and its accuracy on these features."""
    scale = features.std().clamp(min=1e-12)
    x = features / scale
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + DECAY * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    right = F.linear(x, weight, bias).argmax(1) == labels
    return weight.detach() / scale, bias.detach(), float(right.double().mean())


def decoupled(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    head_images: Tensor,
    head_labels: Tensor,
    *,
    lam: float = 5.0,
    time_limit: float = 60.0,
    side: int = SIDE,
    n_jobs: int = 1,
    graph: ChannelGraph | None = None,
) -> Scores:
    """Score every layer alone, the layers before it unpruned and a linear head after it; the programs run in parallel.

    Source: ElAraby, Wolf and Carvalho 2023, the variant decoupled by layer. The linear head is ours: with
    it each program is convex.

    Args:
        images, labels, lam: as in `scores`. head_images, head_labels: what the heads are fitted to, some hundred or more.
        time_limit: seconds for each layer's program.
        side: see `blocks`. n_jobs: processes.
    Returns:
        scores as those of `scores`; objective and bound are summed over the layers.
    Raises:
        TypeError, ValueError, RuntimeError: as `scores` and `blocks`; or a class of `labels` has no head image.
    """
    begun = time.monotonic()
    check("exact", "mip", lam, None, time_limit)
    at_least(1, n_jobs=n_jobs)
    check_images(images, labels)
    if missing := sorted(set(labels.unique().tolist()) - set(head_labels.unique().tolist())):
        raise ValueError(f"head_labels: no head image is of class {missing[0]}, which labels has; give some of every class")
    parts = blocks(model, images, head_images, head_labels, side)
    y = labels.detach().cpu().long()
    found: Sequence[tuple[Solution, dict[str, int]]] = Parallel(n_jobs=n_jobs)(
        delayed(solve_block)(block, y, lam, time_limit) for block in parts
    )
    solutions = [solution for solution, _ in found]
    sizes = {"images": len(y)} | {key: sum(size[key] for _, size in found) for key in found[0][1]}
    graph = trace(model, images[:1]) if graph is None else graph
    groups = by_group(graph, [block.layer for block in parts], [solution.s[0] for solution in solutions])
    status = "optimal" if all(solution.status == "optimal" for solution in solutions) else "time limit"
    objective, bound = (sum(getattr(solution, key) for solution in solutions) for key in ("objective", "bound"))
    return Scores(groups, status, objective, bound, time.monotonic() - begun, sizes)


def solve_block(block: Block, labels: Tensor, lam: float, time_limit: float) -> tuple[Solution, dict[str, int]]:
    """One layer's program, solved; and its sizes."""
    chain, x = block.chain(), block.features
    bounds = propagate(chain, x, 0.0, "exact")
    rows = build(chain, bounds, x, labels, lam, "exact")
    ones = replay.ones(chain)

    def objective(s: Sequence[Tensor]) -> float:
        return float(replay.objective(chain, bounds, x, labels, s, lam))

    found = solve(rows, objective, (ones, point(rows, chain, bounds, x, ones)), lam, time_limit)
    return found, rows.sizes | {"rounds": found.rounds, "cuts": found.cuts}
