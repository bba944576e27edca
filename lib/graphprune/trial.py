"""One trial: a network pruned, trained, measured on the validation split and stored, by whichever process does it.

A trial is idempotent. Its result is a file of its own, written whole the moment it is done and known by all it depends
on, so that a killed run repeats none that were finished, and processes and machines may share a folder.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from graphprune import artifacts, runtime, train
from graphprune.data import Dataset
from graphprune.graph import ChannelGraph
from graphprune.pruning import prune
from graphprune.train import Recipe


@dataclass(frozen=True, eq=False)
class Trial:
    """One network to be pruned, trained and measured; complete in itself, so that any process can do it."""

    model: nn.Module
    graph: ChannelGraph
    data: Dataset
    base: str
    kept: Tensor  # (num_atoms,) bool
    recipe: Recipe
    inherit: bool
    seed: int
    threads: int
    folder: Path
    store_weights: bool

    @cached_property
    def parameters(self) -> dict[str, Any]:
        names = ("base", "kept", "recipe", "inherit", "seed")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def path(self) -> Path:
        return self.folder / f"{artifacts.digest(self.parameters)[:16]}.json"

    @property
    def weights(self) -> Path:
        return self.path.with_suffix(".safetensors")


def run_all(trials: Sequence[Trial], n_jobs: int, desc: str) -> list[dict[str, Any]]:
    """The rows of many trials, in their order and the same for any n_jobs; what is stored is not done again."""
    rows = [_stored(trial) for trial in trials]
    left = [trial for trial, row in zip(trials, rows, strict=True) if row is None]
    jobs = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_job)(trial, os.getpid()) for trial in left) if left else []
    made = iter(runtime.progress(jobs, desc, total=len(left)))
    return [row if row is not None else next(made) for row in rows]


def _job(trial: Trial, driver: int) -> dict[str, Any]:
    if os.getpid() != driver:
        os.environ["GRAPHPRUNE_QUIET"] = "1"  # the driver's bar counts the trials; a worker's would run through it
    return run(trial)


Fitted = tuple[nn.Module, float]
"""A trained network, and the seconds its training took."""


def run(trial: Trial, fit: Callable[[Trial], Fitted] | None = None) -> dict[str, Any]:
    """Do one trial, or load it where it was done before: what it is, how it went, how long it took."""
    fit = fit or _fit
    known: dict[str, Any] = {"parameters": trial.parameters, "modules": ("trial",)}
    with runtime.threads(trial.threads):
        if not trial.store_weights:
            return artifacts.stage(trial.path, lambda: _measured(trial, *fit(trial)), **known)
        state = artifacts.stage(trial.weights, lambda: _packed(*fit(trial)), **known)
        return artifacts.stage(trial.path, lambda: _measured(trial, *_unpacked(trial, state)), inputs=[trial.weights], **known)


class _NotDone(Exception):
    """A trial has no stored result."""


def _stored(trial: Trial) -> dict[str, Any] | None:
    def refuse(trial: Trial) -> Fitted:
        raise _NotDone

    try:
        return run(trial, refuse)
    except _NotDone:
        return None


def _fit(trial: Trial) -> Fitted:
    started = time.perf_counter()
    small = prune(trial.model, trial.graph, trial.graph.unflatten(trial.kept))
    if not trial.inherit:
        _renew(small, trial.seed)
    small = train.finetune(small, trial.data, trial.recipe, seed=trial.seed)
    return small, time.perf_counter() - started


def _packed(small: nn.Module, seconds: float) -> dict[str, Tensor]:
    """Weights and seconds in one file, so that neither lacks the other."""
    return {**small.state_dict(), "seconds": torch.tensor(seconds, dtype=torch.float64)}


def _unpacked(trial: Trial, state: Mapping[str, Tensor]) -> Fitted:
    small = prune(trial.model, trial.graph, trial.graph.unflatten(trial.kept))
    small.load_state_dict(weights_of(state))
    return small, state["seconds"].item()


def weights_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in a stored trial's weights file."""
    return {name: tensor for name, tensor in state.items() if name != "seconds"}


def _renew(model: nn.Module, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.seed_generator(seed, "new weights").initial_seed())
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def _measured(trial: Trial, small: nn.Module, seconds: float) -> dict[str, Any]:
    found = train.evaluate(small, trial.data.val)
    return {
        "kept": {name: mask.nonzero().flatten().tolist() for name, mask in trial.graph.unflatten(trial.kept).items()},
        "recipe": dataclasses.asdict(trial.recipe),
        "seed": trial.seed,
        "accuracy_val": found.accuracy,
        "loss_val": found.loss,
        "seconds": seconds,
    }
