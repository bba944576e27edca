"""A world with a known optimum: small trained networks, and what every pruning mask of each is worth.

A mask is a number: bit j of its index says whether channel j stays. With 14 channels there are 16,384 masks, and the
accuracy of each is looked up. So a policy's *regret* is exact: how many points of accuracy its mask lies below the best mask
of the same budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from torch import Tensor

from graphprune.graph.groups import trace
from graphprune.pruning import importance
from graphprune.pruning.cost import CostModel
from graphprune.rl.families import Small, train_many, whole
from graphprune.rl.observation import observe
from graphprune.runs import runtime, store
from graphprune.training.data import Dataset


@dataclass(frozen=True, eq=False)
class World:
    """n networks of C channels each.

    Attributes:
        family: (n,) int64, the place of each one's family in `FAMILIES`.
        x: (n, N, F) float32, node features, `observation.observe`'s; the first C nodes are the channels.
        pairs: (n, N, N, D) float32, its pair features.
        accuracy: (n, 2^C) float32, share of correct validation images of every mask.
        loss: (n, 2^C) float32, mean cross-entropy there, nats.
        macs: (n, 2^C) float32, share of the multiply-adds that every mask keeps.
        l1, taylor: (n, C) float32, scores of `graphprune.importance`.
    """

    family: Tensor
    x: Tensor
    pairs: Tensor
    accuracy: Tensor
    loss: Tensor
    macs: Tensor
    l1: Tensor
    taylor: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def channels(self) -> int:
        return self.l1.shape[1]

    @cached_property
    def masks(self) -> Tensor:
        """(2^C, C) float32: all masks, 1 = kept."""
        return all_masks(self.channels)

    @cached_property
    def performance(self) -> Tensor:
        """(n, 2^C): what an agent is rewarded by: accuracy, and a tenth of the loss against it."""
        return self.accuracy - 0.1 * self.loss

    @cached_property
    def judgement(self) -> Tensor:
        """(n, 2^C): what a search maximises: accuracy, ties broken by the loss."""
        return self.accuracy - 1e-4 * self.loss

    def take(self, rows: Sequence[int] | Tensor) -> World:
        """Some of the networks."""
        index = torch.as_tensor(rows)
        return World(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def allowed(self, budget: float, of: Literal["channels", "macs"] = "channels") -> Tensor:
        """The masks that spend a budget, (n, 2^C) bool.

        Args:
            budget: of "channels": how many stay, exactly. Of "macs": the share that may stay; of all masks within it those
                to which no channel can be added. Every group keeps at least one channel.
        """
        half = self.channels // 2
        alive = self.masks[:, :half].any(1) & self.masks[:, half:].any(1)
        if of == "channels":
            return (alive & (self.masks.sum(1) == budget)).expand(len(self), -1)
        within, index = alive & (self.macs <= budget + 1e-6), torch.arange(len(self.masks))
        found = within.clone()
        for bit in range(self.channels):
            more = index | (1 << bit)
            found &= ~(within[:, more] & (more != index))
        return found

    def regret(self, mask: Tensor, allowed: Tensor) -> Tensor:
        """Points of accuracy that masks, (n,) indices, lie below the best of those allowed, (n, 2^C) bool: (n,)."""
        best = self.accuracy.masked_fill(~allowed, -1).amax(1)
        return 100 * (best - self.accuracy.gather(1, mask[:, None])[:, 0])


def all_masks(channels: int) -> Tensor:
    """(2^C, C) float32, row i the bits of i, lowest first.

    >>> all_masks(2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    return (torch.arange(1 << channels)[:, None] >> torch.arange(channels) & 1).float()


def make(
    families: Sequence[str],
    data: Dataset,
    count: int,
    seed: int,
    *,
    width: int = 7,
    steps: int = 300,
    folder: Path | None = None,
    n_jobs: int = 1,
) -> World:
    """Train `count` networks of each family and judge every mask of each.

    Args:
        families: of `families.FAMILIES`.
        data: training images train and observe, validation images judge.
        count, seed, steps: as `families.train_many` takes them.
        width: channels of each of the two groups; at most 8.
        folder: where the world is stored and found again; not stored unless given.
        n_jobs: processes; they change no bit.

    Raises:
        ValueError: a width above 8.

    >>> import graphprune
    >>> world = make(["mlp"], graphprune.data.load("digits"), 1, seed=0, width=3, steps=1)
    >>> world.accuracy.shape
    torch.Size([1, 64])
    """
    if not 1 <= width <= 8:
        raise ValueError(f"width={width}: must be 1 .. 8, every one of 4^width masks is judged")

    def compute() -> dict[str, Tensor]:
        jobs = [delayed(_family)(family, place, data, count, seed, width, steps) for place, family in enumerate(families)]
        work = Parallel(n_jobs, return_as="generator")(jobs)
        parts = list(runtime.progress(work, "families", len(jobs)))
        nodes = max(part["x"].shape[1] for part in parts)  # families with fewer nodes get empty ones: all zeros
        for part in parts:
            missing = nodes - part["x"].shape[1]
            part["x"] = F.pad(part["x"], (0, 0, 0, missing))
            part["pairs"] = F.pad(part["pairs"], (0, 0, 0, missing, 0, missing))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    if folder is None:
        found = compute()
    else:
        known = {"families": list(families), "data": data.fingerprint(), "count": count, "seed": seed}
        known |= {"width": width, "steps": steps}
        path = folder / f"world-{store.digest(known)[:16]}.safetensors"
        found = store.stage(path, compute, parameters=known, modules=("rl.world",))
    return World(**found)


def _family(family: str, place: int, data: Dataset, count: int, seed: int, width: int, steps: int) -> dict[str, Tensor]:
    with runtime.threads(1):
        return _judged(*train_many(family, data, count, seed, width=width, steps=steps), place, data)


def _judged(models: list[Small], classes: Tensor, place: int, data: Dataset) -> dict[str, Tensor]:
    width, count = models[0].width, len(models)
    graph = trace(models[0], data.example())
    costs, masks = CostModel(graph, data.example()), all_masks(2 * width)
    counts = torch.stack([masks[:, :width].sum(1), masks[:, width:].sum(1)], 1).long()
    macs = (costs.of_counts(counts.clamp(min=1))[0].double() / costs.full.macs).float()
    images, labels = whole(data.val)
    rows = []
    for model, seen in zip(models, classes, strict=True):
        ours = seen[labels]
        accuracy, loss = judge(model, images[ours], labels[ours])
        here = observe(model, graph, data, strongest=None, images=128)
        l1, taylor = importance.l1(model, graph), importance.taylor(model, graph, data, batches=2)
        rows.append(
            {"x": here.x, "pairs": here.pairs(), "accuracy": accuracy, "loss": loss, "macs": macs}
            | {"l1": torch.cat([*l1.values()]), "taylor": torch.cat([*taylor.values()])}
        )
    found = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return found | {"family": torch.full((count,), place)}


@torch.inference_mode()
def judge(model: Small, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy and loss of all masks of a network, each (4^width,): index = first group's bits + 2^width x second group's.

    The logits are linear in the second group's channels, so that one pass a channel gives them for all its masks.
    """
    width = model.width
    masks, alone = all_masks(width), torch.cat([torch.zeros(1, width), torch.eye(width)])
    n, a = len(images), model.early(images)
    truth = labels[None, :, None]
    accuracy, loss = torch.empty(2, len(masks), len(masks))  # [second, first]
    for first, keep in enumerate(masks):
        a1 = a * keep.view(1, width, *[1] * (a.ndim - 2))
        b = model.late(a1)
        both = b[None] * alone.view(width + 1, 1, width, *[1] * (b.ndim - 2))
        logits = model.tail(a1.repeat(width + 1, *[1] * (a.ndim - 1)), both.flatten(0, 1), keep)
        logits = logits.view(width + 1, n, -1).permute(2, 1, 0)  # (classes, n, width + 1)
        base = logits[..., :1]
        z = base + (logits[..., 1:] - base) @ masks.T  # (classes, n, 2^width)
        top, right = z.amax(0), z.gather(0, truth.expand(1, n, len(masks)))[0]
        accuracy[:, first] = (right >= top).float().mean(0)
        loss[:, first] = (top + (z - top).exp_().sum(0).log_() - right).clamp_(max=20).mean(0)
    return accuracy.flatten().clone(), loss.flatten().clone()
