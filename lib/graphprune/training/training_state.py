"""Where a training stands: all that its next step depends on, so that it can stop at any step and go on bit-identically."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.training.recipe import Recipe
from graphprune.training.splits import Split

CHECK_EVERY = 50  # steps between looks at the losses: a look makes a GPU wait


class TrainingState:
    """The batches of one training from its present step on, what was measured so far, and all of it as one state.

    Args:
        model, optimizer: what is trained, and by what.
        split, recipe: on which images, and how.
        generator: of the order and the augmentation of the images.
        seed: told by errors.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        split: Split,
        recipe: Recipe,
        generator: torch.Generator,
        seed: int,
    ) -> None:
        self.model, self.optimizer, self.split, self.recipe, self.generator = model, optimizer, split, recipe, generator
        self.steps, self.per_epoch = recipe.steps(len(split)), recipe.steps_per_epoch(len(split))
        self.step, self.history, self.tally = 0, list[dict[str, float]](), EpochSums(seed)
        self.best: dict[str, Tensor] | None = None
        self._order = generator.get_state()  # before the order of this epoch's images was drawn

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches from the present step on; the caller counts `step`."""
        return islice(self._stream(), self.steps - self.step)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        done = self.step % self.per_epoch  # an epoch that was begun is drawn again, up to the step reached
        while True:
            self._order = self.generator.get_state()
            batches = self.split.batches(
                self.recipe.batch_size, shuffle=True, augment=self.recipe.augment, generator=self.generator
            )
            yield from islice(batches, done, self.per_epoch)
            done = 0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def at_epochs_end(self) -> bool:
        return self.step % self.per_epoch == 0 or self.step == self.steps

    def keep_best(self) -> None:
        """Hold on to the weights, if the epoch that ended is the best so far on validation (ties by loss, then the first)."""
        ranks = [(row["accuracy_val"], -row["loss_val"]) for row in self.history]
        if ranks.index(max(ranks)) == len(ranks) - 1:
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and text in dicts and lists; tensors may still be the living ones: store it at once."""
        begun = self.step % self.per_epoch
        random = [torch.get_rng_state()]
        if self.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.device))
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "order": self._order if begun else self.generator.get_state(),
            "random": random,
            "step": self.step,
            "history": self.history,
            "tally": self.tally.state(),
            **({} if self.best is None else {"best": self.best}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same training, on this machine or another."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        self.generator.set_state(state["order"])
        torch.set_rng_state(state["random"][0])
        if self.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1], self.device)
        self.step, self.history = state["step"], list(state["history"])
        self.tally.restore(state["tally"], self.device)
        self.best = state.get("best")


class EpochSums:
    """Loss and hits since the epoch began; looks at the losses now and then and stops a run that has diverged."""

    def __init__(self, seed: int):
        self.seed, self.seen = seed, 0
        self.rows: list[tuple[Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, hits: Tensor, n: int) -> None:
        self.rows.append((loss, hits, n))
        if len(self.rows) % CHECK_EVERY == 0:
            self._losses(CHECK_EVERY)

    def close(self) -> dict[str, float]:
        losses, counts = self._losses(len(self.rows)), [n for _, _, n in self.rows]
        hits = torch.stack([hits for _, hits, _ in self.rows]).sum().item()
        self.seen += len(self.rows)
        self.rows = []
        loss = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
        return {"loss": loss, "accuracy_train": hits / sum(counts)}

    def state(self) -> dict[str, Any]:
        sums = [[loss for loss, _, _ in self.rows], [hits for _, hits, _ in self.rows]]
        stacked = [torch.stack(values).cpu() for values in sums] if self.rows else []
        return {"seen": self.seen, "sums": stacked, "counts": [n for _, _, n in self.rows]}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        self.seen, sums = state["seen"], [values.to(device).unbind() for values in state["sums"]]
        self.rows = list(zip(*sums, state["counts"], strict=True)) if sums else []

    def _losses(self, last: int) -> list[float]:
        losses = torch.stack([loss for loss, _, _ in self.rows[-last:]]).tolist()
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            step = self.seen + len(self.rows) - len(losses) + bad + 1
            raise diverged(f"the loss is {losses[bad]} at step {step}", self.seed)
        return losses


def diverged(what: str, seed: int) -> FloatingPointError:
    return FloatingPointError(f"{what} (seed {seed}): lower lr, or add warmup=0.1 to the recipe")
