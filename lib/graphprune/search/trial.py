"""One trial: a network pruned, trained, measured on the validation split and stored, by whichever process does it.

A trial is idempotent. Its result is a file of its own, written whole the moment it is done and known by all it depends
on, so that a killed run repeats none that were finished, and processes and machines may share a folder. The state of the one in
training is stored about every minute, so that a killed run goes on with it, too. A trial that
cannot be done (its loss is no number, its process runs out of memory) leaves a file that says why, and the others go on.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.channels import prune
from graphprune.pruning.cost import CostModel
from graphprune.runs import jobs, runtime, store
from graphprune.runs.checkpoint import Checkpoint, Clock
from graphprune.runs.jobs import Died, Shared
from graphprune.training import train
from graphprune.training.data import Dataset
from graphprune.training.stored_teacher import StoredTeacher
from graphprune.training.train import Recipe


@dataclass(frozen=True)
class OutOfMemory:
    """What a trial leaves that ran out of memory, perhaps because of those that ran beside it."""

    reason: str


CURVE = ("epoch", "lr", "loss", "accuracy_train")
"""What is stored of each epoch of a trial's training, see `train.fit`."""


@dataclass(frozen=True, eq=False)
class Task:
    """What the trials of one stage have in common.

    Attributes:
        model: the trained base network.
        costs: of its pruned versions.
        data: trained on `.train`, measured on `.val`.
        base: a digest of the model's weights, its graph and the data.
        recipe: of the training.
        inherit: start from the base network's weights, else from new ones.
        threads: torch threads a trial has.
        folder: where results are stored.
        store_weights: store the trained weights, too.
        tested: measure on `.test`, too: where every row is a fact to be looked at, and none is chosen.
        clock: when to stop.
    """

    model: nn.Module
    costs: CostModel
    data: Dataset
    base: str
    recipe: Recipe
    inherit: bool
    threads: int
    folder: Path
    store_weights: bool
    tested: bool = False
    clock: Clock = field(default_factory=Clock)

    @property
    def graph(self) -> ChannelGraph:
        return self.costs.graph


@dataclass(frozen=True, eq=False)
class Trial:
    """One network to be pruned, trained and measured."""

    task: Task
    kept: Tensor  # (num_atoms,) bool
    seed: int

    @cached_property
    def known(self) -> dict[str, Any]:
        """What its result depends on, as `store.stage` takes it."""
        task = self.task
        about = {"base": task.base, "kept": self.kept, "recipe": task.recipe, "inherit": task.inherit, "seed": self.seed}
        about["threads"] = task.threads  # sums of floating point numbers depend on how they are split
        about |= {"tested": True} if task.tested else {}
        return {"parameters": about, "modules": ("search.trial",)}

    @cached_property
    def path(self) -> Path:
        return Path(self.task.folder) / f"{store.digest(self.known['parameters'])[:16]}.json"

    @property
    def weights(self) -> Path:
        return self.path.with_suffix(".safetensors")

    @property
    def state(self) -> Path:
        """Where the training stands, while it lasts."""
        return self.path.with_suffix(".training")

    @property
    def failure(self) -> Path:
        """Where it says why there is no result; delete the file to have it tried again."""
        return self.path.with_suffix(".failed.json")


def run_all(trials: Sequence[Trial], n_jobs: int, desc: str) -> list[dict[str, Any]]:
    """The rows of many trials of one task, in their order and the same for any n_jobs; what is stored is not done again.

    Raises:
        RuntimeError: another search is training networks in the folder.

    Warns:
        UserWarning: some trials failed; their rows have the reason under "failed".
    """
    rows = [load_result(trial) for trial in trials]
    if left := [index for index, row in enumerate(rows) if row is None]:
        with lock_folder(Path(trials[0].task.folder)):
            for index, row in zip(left, _trained([trials[index] for index in left], n_jobs, desc), strict=True):
                rows[index] = _fail(trials[index], row.reason) if isinstance(row, OutOfMemory | Died) else row
    done = [row for row in rows if row is not None]
    if failed := [f"{trial.failure}: {row['failed']}" for trial, row in zip(trials, done, strict=True) if row["failed"]]:
        warnings.warn(
            f"{len(failed)} of {len(done)} trainings failed and are ranked nowhere; delete a file to try again: "
            + "; ".join(failed),
            stacklevel=2,
        )
    return done


def _trained(trials: Sequence[Trial], n_jobs: int, desc: str) -> list[dict[str, Any] | OutOfMemory | Died]:
    """Rows, or why there is none. What ran out of memory beside others is tried once more, alone."""
    shared, items = Shared(trials[0].task), [(trial.kept, trial.seed) for trial in trials]
    found = jobs.run(_job, shared, items, n_jobs, desc)
    for index, row in enumerate(found):
        if isinstance(row, OutOfMemory):
            (found[index],) = jobs.run(_job, shared, items[index : index + 1], n_jobs, desc)
    return found


def _job(shared: Shared[Task], what: tuple[Tensor, int]) -> dict[str, Any] | OutOfMemory:
    try:
        return _attempt(Trial(shared.value, *what))
    finally:
        torch.cuda.empty_cache()  # an idle process would keep what it no longer needs from the others


def lock_folder(folder: Path) -> Any:
    """A context in which no other process trains networks in the folder.

    Raises:
        RuntimeError: one does. OSError: the folder cannot be written.
    """
    store.demand_writable(folder / "trial.json")
    lock = FileLock(folder / ".driver.lock", timeout=0)
    try:
        return lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"folder={str(folder)!r}: another search is training networks there; wait for it, or give this one another folder"
        ) from error


def run_trial(trial: Trial) -> dict[str, Any]:
    """Do one trial, or load it where it was done before: what it is, how it went, how long it took, or why it failed."""
    row = _attempt(trial)
    return _fail(trial, row.reason) if isinstance(row, OutOfMemory) else row


def _attempt(trial: Trial) -> dict[str, Any] | OutOfMemory:
    """The same; that memory ran out is not stored, as it need not be the trial's fault."""
    with runtime.threads(trial.task.threads):
        row = load_result(trial)
        try:
            return _done(trial) if row is None else row
        except FloatingPointError as error:
            return _fail(trial, f"{type(error).__name__}: {error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return OutOfMemory(f"{type(error).__name__}: {error}")


def load_result(trial: Trial) -> dict[str, Any] | None:
    """The row of a trial that was done, or failed, before."""
    for path, inputs in ((trial.failure, []), (trial.path, [trial.weights] if trial.task.store_weights else [])):
        if path.is_file() and (row := store.find(path, inputs=inputs, **trial.known)) is not None:
            trial.state.unlink(missing_ok=True)  # left by a process killed between the last two writes
            return dict(row)
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. torch's CPU allocator raises a bare RuntimeError, known by the allocator's name alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _fail(trial: Trial, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("accuracy_val", "loss_val", "seconds", "core_seconds"))
    row = {**_about(trial), "failed": reason, **nothing, "curve": []}
    store.save(trial.failure, row, store.provenance(**trial.known))
    return row


def _done(trial: Trial) -> dict[str, Any]:
    if trial.task.store_weights:
        state = store.stage(trial.weights, lambda: _packed(*_fit(trial)), **trial.known)
        row = store.stage(trial.path, lambda: _measured(trial, *_unpacked(trial, state)), inputs=[trial.weights], **trial.known)
    else:
        row = store.stage(trial.path, lambda: _measured(trial, *_fit(trial)), **trial.known)
    trial.state.unlink(missing_ok=True)
    return dict(row)


Fitted = tuple[nn.Module, Tensor, Tensor]
"""A trained network, its `CURVE` (epochs, 4) float64, and the seconds and processor seconds (2,) its training took."""


def _fit(trial: Trial) -> Fitted:
    task, what = trial.task, f"{trial.task.folder.name} training {trial.path.stem}"
    task.clock.begin(what)
    point = Checkpoint(trial.state, task.clock, what, known=store.digest(store.provenance(**trial.known)))
    small = _pruned(trial)
    if not task.inherit:
        _renew(small, trial.seed)
    train.reestimate_bn(small.to(runtime.device()), task.data, seed=trial.seed)
    teacher = _teacher(trial, point) if task.recipe.distil else None
    how: dict[str, Any] = {"seed": trial.seed, "desc": "fine-tuning", "teacher": teacher, "checkpoint": point}
    history = train.fit(small, task.data, task.recipe, **how)
    curve = torch.tensor([[row[name] for name in CURVE] for row in history], dtype=torch.float64)
    return small, curve, torch.tensor([point.seconds, point.core_seconds], dtype=torch.float64)


def _teacher(trial: Trial, point: Checkpoint) -> nn.Module:
    """The base network; on a CPU, what it says is computed by one trial and read by the others of the stage."""
    task = trial.task
    if runtime.device().type != "cpu":
        return task.model  # a GPU computes it faster than it is found again
    known = f"{task.base} {task.recipe.precision} {task.threads} threads, torch {torch.__version__}"
    return StoredTeacher(task.model, task.folder / "teacher", known, point.add)


def _pruned(trial: Trial) -> nn.Module:
    return prune(trial.task.model, trial.task.graph, trial.task.graph.unflatten(trial.kept), check=False)


def _packed(small: nn.Module, curve: Tensor, seconds: Tensor) -> dict[str, Tensor]:
    """All in one file, so that no part lacks the others."""
    return {**small.state_dict(), "trial curve": curve, "trial seconds": seconds}


def _unpacked(trial: Trial, state: Mapping[str, Tensor]) -> Fitted:
    small = _pruned(trial)
    small.load_state_dict(read_weights(state))
    return small, state["trial curve"], state["trial seconds"]


def read_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in a stored trial's weights file."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("trial ")}


def _renew(model: nn.Module, seed: int) -> None:
    place = next((parameter.device for parameter in model.parameters()), None)
    with runtime.seeded(runtime.seed_generator(seed, "new weights").initial_seed(), place):
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def _about(trial: Trial) -> dict[str, Any]:
    keep = trial.task.graph.unflatten(trial.kept)
    kept = {name: mask.nonzero().flatten().tolist() for name, mask in keep.items()}
    macs, params = trial.task.costs.of_counts(torch.tensor([[len(channels) for channels in kept.values()]]))
    cost = {"macs": int(macs), "params": int(params)}
    return {"kept": kept, **cost, "recipe": dataclasses.asdict(trial.task.recipe), "seed": trial.seed}


def _measured(trial: Trial, small: nn.Module, curve: Tensor, seconds: Tensor) -> dict[str, Any]:
    data, (wall, core) = trial.task.data, seconds.tolist()
    measured: dict[str, Any] = {"failed": "", "seconds": wall, "core_seconds": core}
    for split, images in {"val": data.val, **({"test": data.test} if trial.task.tested else {})}.items():
        found = train.evaluate(small, images)
        measured |= {f"accuracy_{split}": found.accuracy, f"loss_{split}": found.loss}
    return {**_about(trial), **measured, "curve": [dict(zip(CURVE, row, strict=True)) for row in curve.tolist()]}
