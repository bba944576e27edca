"""How a network is trained: the numbers of one run, checked before any step is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from graphprune.runs.checks import demand_number

NUMBERS = ("epochs", "lr", "momentum", "weight_decay", "label_smoothing", "warmup", "temperature", "teacher_weight")


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD or AdamW under a cosine schedule per step, as in SACP §4.2 (weight decay on every parameter).

    Args:
        epochs: passes over the training split; 0.5 is half of one.
        lr: peak learning rate; the schedule ends next to 0.
        augment: use the data set's own random crop and flip.
        label_smoothing: share of the target spread over all classes.
        warmup: share of the steps in which the rate first climbs linearly.
        temperature: with a teacher, what both sets of logits are divided by.
        teacher_weight: with a teacher, the share of the loss that is distillation.
        precision: "float32", or "bfloat16" for forward passes in mixed precision (`torch.autocast`); weights, their updates
            and every measurement are float32 in both.
        optimizer: "sgd" (with `momentum` and `nesterov`), or "adamw" (Loshchilov & Hutter 2019; `momentum` is its first beta).
        distil: a pruned network learns from the unpruned one, too (`train.fit` then needs its teacher).
    Raises:
        TypeError: a value must be a number and is none. ValueError: it is out of its range.

    >>> Recipe(epochs=0, lr=0.1, batch_size=64)
    Traceback (most recent call last):
    ValueError: epochs=0: must be a finite number above 0, e.g. 0.5 for half an epoch
    """

    epochs: float
    lr: float
    batch_size: int
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    label_smoothing: float = 0.0
    warmup: float = 0.0
    nesterov: bool = False
    temperature: float = 4.0
    teacher_weight: float = 0.5
    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata={"later": True})
    distil: bool = field(default=False, metadata={"later": True})
    optimizer: Literal["sgd", "adamw"] = field(default="sgd", metadata={"later": True})

    def __post_init__(self) -> None:
        demand_number("give it without quotes, e.g. lr=0.01", **{name: getattr(self, name) for name in NUMBERS})
        self._demand("epochs", 0 < self.epochs < math.inf, "a finite number above 0, e.g. 0.5 for half an epoch")
        self._demand("lr", 0 < self.lr < math.inf, "a finite number above 0, e.g. 0.01")
        whole = isinstance(self.batch_size, int) and not isinstance(self.batch_size, bool)
        self._demand("batch_size", whole and self.batch_size >= 1, "an integer of at least 1, e.g. 128")
        for name in ("momentum", "label_smoothing", "warmup"):
            self._demand(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._demand("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number of at least 0, e.g. 5e-4")
        self._demand("nesterov", not self.nesterov or self.momentum > 0, "False where momentum is 0")
        self._demand("temperature", 0 < self.temperature < math.inf, "a finite number above 0, e.g. 4")
        self._demand("teacher_weight", 0 <= self.teacher_weight <= 1, "from 0 to 1")
        self._demand("optimizer", self.optimizer in ("sgd", "adamw"), "'sgd' or 'adamw'")
        self._demand("precision", self.precision in ("float32", "bfloat16"), "'float32' or 'bfloat16'")

    def _demand(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r}: must be {what}")

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """What takes the steps; its learning rate is set anew before each."""
        if self.optimizer == "adamw":
            betas = (self.momentum, 0.999)
            return torch.optim.AdamW(parameters, self.lr, betas, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.lr, self.momentum, 0, self.weight_decay, self.nesterov)

    def steps_per_epoch(self, images: int) -> int:
        """Batches in a pass over `images`; a single left-over image is not one, as BN cannot normalise it."""
        full, rest = divmod(images, self.batch_size)
        return full + (rest > 1 or not full)

    def steps(self, images: int) -> int:
        """Steps in all on a training split of that many images, at least 1."""
        return max(1, math.ceil(round(self.epochs * self.steps_per_epoch(images), 6)))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 <= `step` < `steps` (Loshchilov & Hutter 2017, eq. 5, without restarts).

        >>> recipe = Recipe(epochs=1, lr=1.0, batch_size=1, warmup=0.5)
        >>> [round(recipe.rate(step, 8), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        climb = round(self.warmup * steps)
        if step < climb:
            return self.lr * (step + 1) / climb
        return self.lr * (1 + math.cos(math.pi * (step - climb) / (steps - climb))) / 2
