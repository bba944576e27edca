"""Train, fine-tune, distil and evaluate a network; the same seed gives the same bits on the CPU."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.graph.copies import copy_model
from graphprune.runs import runtime
from graphprune.runs.checkpoint import Checkpoint
from graphprune.runs.checks import at_least, demand_network
from graphprune.training.data import Dataset
from graphprune.training.dataset import check_dataset
from graphprune.training.history import History
from graphprune.training.mixed_precision import mixed_precision
from graphprune.training.objective import CLASSIFICATION, PIXELS, Measure, Objective, plain
from graphprune.training.recipe import Recipe
from graphprune.training.splits import Split
from graphprune.training.training_state import TrainingState, diverged

Callback = Callable[[dict[str, float]], Any]
"""The row of the epoch that ended -> True ends the training."""

__all__ = ["Evaluation", "History", "Recipe", "distillation", "evaluate", "finetune", "fit", "reestimate_bn"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured: the share of `n` images classified correctly, their mean cross-entropy in nats.

    Of data with an objective of their own it is the mean of their metric, and of their loss.
    """

    accuracy: float
    loss: float
    n: int


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device | None = None,
    desc: str | None = None,
    teacher: nn.Module | None = None,
    validate: bool = False,
    checkpoint: Checkpoint | None = None,
    loss: Measure | None = None,
    metric: Measure | None = None,
    callback: Callback | None = None,
    best: bool = False,
) -> History:
    """Train `model` in place on `data.train`; it ends up on the device, in eval mode.

    Args:
        seed: decides the order and the augmentation of the images, and what dropout drops.
        device: where to compute; else `runtime.device()`.
        desc: what the progress bar says.
        teacher: a trained network to distil from (Hinton et al. 2015): the loss is then
            (1 - w) cross-entropy + w T^2 KL(teacher || model), w and T from the recipe.
        validate: measure accuracy and loss on `data.val` after each epoch.
        loss, metric: in place of the data's (cross-entropy and accuracy unless they have their own), as in
            `data.from_tensors`; the metric stands as accuracy in the rows.
        callback: called after each epoch with its row, such as `print`; if it returns True, the training ends.
        best: validate, and end with the weights of the epoch that was best on validation.
        checkpoint: goes on from the state stored there, offers it the state after every step, and so may stop at any
            step; on the CPU the result is bit for bit that of an uninterrupted training.
    Returns:
        a list with a row an epoch, with `.plot()` and `.frame()`. A row has epoch (passes so far), lr (of its last step),
        loss (mean of what was minimised) and accuracy_train (share, on the augmented images as they came by); with
        `validate` or `best` accuracy_val and loss_val.
    Raises:
        ValueError: the model does not fit the data, the recipe distils and there is no teacher, or it distils or smooths
            labels under another loss than cross-entropy.
        FloatingPointError: the loss is no longer a finite number.
        checkpoint.Paused: the checkpoint's time is up.

    >>> from graphprune import data, models
    >>> digits, net = data.load("digits", device="cpu"), models.seeded("tiny_cnn", 0, in_channels=1)
    >>> history = fit(net, digits, Recipe(epochs=2, lr=0.1, batch_size=64), seed=0, device="cpu")
    >>> [row["epoch"] for row in history]
    [1.0, 2.0]
    """
    if recipe.distil and teacher is None:
        raise ValueError("teacher=None: the recipe distils, so give the network to learn from, or set distil=False")
    demand_network(model)
    check_dataset(data)
    if validate or best:
        data.demand("val")
    objective = _objective(data, loss, metric, recipe, teacher)
    place = _device(device)
    model.to(place)
    check_fits(model, data.train, place, objective)
    if teacher is not None:
        check_fits(teacher.to(place).eval(), data.train, place, objective)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = recipe.make_optimizer(trained)
    course = TrainingState(model, optimizer, data.train, recipe, runtime.seed_generator(seed, "batches"), seed)
    dropout = runtime.seed_generator(seed, "dropout").initial_seed()  # the caller's random state is as before afterwards
    with runtime.seeded(dropout, place), _channels_last(model, place), _channels_last(teacher, place):
        if checkpoint is not None and (stored := checkpoint.load()) is not None:
            course.restore(stored)
        model.train()
        batches = runtime.progress(course.batches(), desc or "training", course.steps - course.step)
        for x, y in batches:
            rate = recipe.rate(course.step, course.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            course.tally.add(*_step(model, optimizer, x.to(place), y.to(place), recipe, teacher, objective))
            course.step += 1
            if course.at_epochs_end:
                row = {"epoch": course.step / course.per_epoch, "lr": rate, **course.tally.close()}
                course.history.append({**row, **(_validation(model, data, objective) if validate or best else {})})
                runtime.tell(batches, **course.history[-1])
                if best:
                    course.keep_best()
                if callback is not None and callback(course.history[-1]) is True:
                    break
            if checkpoint is not None:
                checkpoint.offer(course.state)
    if course.best is not None:
        model.load_state_dict(course.best)
    _demand_finite(model, seed)
    model.eval()
    return History(course.history)


def finetune(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device | None = None,
    desc: str | None = None,
    teacher: nn.Module | None = None,
    **options: Any,
) -> nn.Module:
    """Train a copy of a pruned network, its BN statistics re-estimated first; `model` is untouched.

    Args and Raises: as for `fit`; `options` are its `validate`, `loss`, `metric`, `callback` and `best`. With `callback=print`
    every epoch's loss and accuracy are seen.
    """
    demand_network(model)
    check_dataset(data)
    tuned = copy_model(model).to(_device(device))
    check_fits(tuned, data.train, _device(device), _objective(data, options.get("loss"), options.get("metric")))
    reestimate_bn(tuned, data, seed=seed)
    fit(tuned, data, recipe, seed=seed, device=device, desc=desc or "fine-tuning", teacher=teacher, **options)
    return tuned


def evaluate(
    model: nn.Module,
    split: Split | Dataset,
    *,
    batch_size: int = 512,
    device: str | torch.device | None = None,
    objective: Objective | None = None,
) -> Evaluation:
    """Accuracy and loss on a split, in eval mode; every module's mode is as before afterwards.

    Args:
        split: `data.val`, `data.test` ...; of a whole data set the validation split is taken.
        batch_size: images a forward pass.
        device: where to compute; else where the model is.
        objective: what is measured; else the split's own loss and metric.
    Raises:
        ValueError: the batch size is below 1, or the model does not fit the data.

    >>> from graphprune import data, models
    >>> evaluate(models.tiny_cnn(), data.load("digits", device="cpu").test).n
    360
    """
    at_least(1, ", e.g. 512", batch_size=batch_size)
    part = split.val if isinstance(split, Dataset) else split
    if not hasattr(part, "batches"):
        check_dataset(part)
    demand_network(model)
    place = _device_of(model) if device is None else _device(device)
    model.to(place)
    judge = objective or part.objective
    check_fits(model, part, place, judge)
    loss, correct = torch.zeros((), device=place, dtype=torch.float64), torch.zeros((), device=place, dtype=torch.int64)
    with runtime.evaluating(model), torch.inference_mode():
        for x, y in part.batches(batch_size):
            losses, hits = judge.sums(plain(model(x.to(place))), y.to(place))
            loss += losses
            correct = correct + hits
    return Evaluation(correct.item() / len(part), loss.item() / len(part), len(part))


def reestimate_bn(model: nn.Module, data: Dataset, *, batches: int = 8, batch_size: int = 256, seed: int = 0) -> None:
    """Replace the running statistics of all BN layers, in place, by the mean over batches of clean training images.

    Pruning shifts what a BN layer sees; its stored statistics are those of the unpruned network (EagleEye, Li et al.
    2020, §3.2). A network without BN layers stays as it is.

    Args:
        batches: at most; only as many full ones as the training split has, and at least one.
        batch_size: images a batch.
        seed: which images.
    Raises:
        ValueError: `batches` or `batch_size` is below 1.
    """
    at_least(1, batches=batches, batch_size=batch_size)
    demand_network(model)
    check_dataset(data)
    calibrate(model, clean_images(data, batches, batch_size, seed))


def clean_images(data: Dataset, batches: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """The batches that `reestimate_bn` looks at, without augmentation; arguments as there."""
    limit = min(batches, max(1, len(data.train) // batch_size)) * batch_size
    generator = runtime.seed_generator(seed, "reestimate_bn")
    for x, _ in data.train.batches(batch_size, shuffle=True, generator=generator, limit=limit):
        yield x


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of all BN layers, in place, by the mean over these batches of images."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    if not layers:
        return
    with runtime.evaluating(model), torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's name for the cumulative mean
            layer.train()
        try:
            for x in batches:
                model(x.to(_device_of(model)))
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(model / T)), the mean over the batch (Hinton et al. 2015, §2).

    Shapes: (B, classes), (B, classes) -> ().
    """
    student, target = F.log_softmax(logits / temperature, 1), F.log_softmax(teacher_logits / temperature, 1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    teacher: nn.Module | None,
    objective: Objective,
) -> tuple[Tensor, Tensor, int]:
    with mixed_precision(x.device, recipe.precision):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            logits = plain(model(x))
            if teacher is not None:
                with torch.no_grad():
                    target = plain(teacher(x)).float()
        if isinstance(logits, Tensor):
            logits = logits.float()
        loss = objective.mean_loss(logits, y, recipe.label_smoothing)
        if teacher is not None:
            w = recipe.teacher_weight
            loss = (1 - w) * loss + w * distillation(logits, target, recipe.temperature)
        optimizer.zero_grad()
        loss.backward()
    optimizer.step()
    with torch.no_grad():
        return loss.detach(), objective.hits(logits.detach() if isinstance(logits, Tensor) else logits, y), len(y)


def _objective(
    data: Dataset, loss: Measure | None, metric: Measure | None, recipe: Recipe | None = None, teacher: nn.Module | None = None
) -> Objective:
    """The data's objective, with another loss or metric where there is one."""
    found = data.objective
    if loss is not None or metric is not None:
        found = Objective(loss or found.loss, metric or (found.metric if loss is None else None))
    if recipe is not None and found.loss is not CLASSIFICATION.loss:
        if teacher is not None:
            raise ValueError("teacher: distillation is of classes; with a loss of your own, let it compare with the teacher")
        if recipe.label_smoothing:
            raise ValueError(f"label_smoothing={recipe.label_smoothing}: cross-entropy alone has it; leave it at 0 here")
    return found


def _demand_finite(model: nn.Module, seed: int) -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise diverged(f"{name} holds numbers that are not finite after the last step", seed)


def _validation(model: nn.Module, data: Dataset, objective: Objective) -> dict[str, float]:
    found = evaluate(model, data.val, objective=objective)
    return {"accuracy_val": found.accuracy, "loss_val": found.loss}


def check_fits(model: nn.Module, split: Split, device: torch.device, objective: Objective | None = None) -> None:
    """Raise ValueError unless the model takes the split's images and has an output for each of its classes.

    Of another objective than classification the loss is tried, on one input.
    """
    judge = objective or split.objective
    x, y = next(split.batches(1, limit=1))  # of a folder: one file, no worker
    with runtime.evaluating(model), torch.inference_mode():
        try:
            logits = plain(model(x.to(device)))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"model: it does not take images of shape {tuple(x.shape[1:])}: {error}") from error
    if judge.loss is not CLASSIFICATION.loss:
        _check_measures(judge, logits, y.to(device))
        return
    classes = split.num_labels
    if logits.ndim != 2 or logits.shape[1] < classes:
        raise ValueError(
            f"model: outputs of shape {tuple(logits.shape)} for one image; the data needs (1, {classes}): "
            f"build it with num_classes={classes}"
        )


def _check_measures(judge: Objective, outputs: Any, targets: Tensor) -> None:
    try:
        judge.sums(outputs, targets)
    except (RuntimeError, ValueError, IndexError, AttributeError) as error:
        shapes = f"{tuple(getattr(outputs, 'shape', ()))} and {tuple(targets.shape)}"
        remedy = ""
        if judge.loss is PIXELS.loss and targets.ndim == 2:
            remedy = ". One class an input is a target of shape (N,): of (N, 1) give y.squeeze(1), of one-hot rows y.argmax(1)"
        raise ValueError(f"loss, metric: they do not take outputs and targets of shapes {shapes}: {error}{remedy}") from error


@contextmanager
def _channels_last(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Conv weights laid out channels last while a CPU trains: 1.2 times faster at 8x8, 1.4 at 32x32 (ResNet-20).

    A network with tensors of five dimensions, such as the weights of a `Conv3d`, stays as it is: torch refuses them. So does
    one that has a layer whose gradient would be written outside its memory.
    """
    tensors = [] if model is None or device.type != "cpu" else [*model.parameters(), *model.buffers()]
    if model is not None and tensors and all(tensor.ndim < 5 for tensor in tensors) and not _breaks_memory(model):
        model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        if model is not None:
            model.to(memory_format=torch.contiguous_format)


def _breaks_memory(model: nn.Module) -> bool:
    """Whether channels last would meet a fault of oneDNN, torch's library for CPUs, on x86 without AVX-512.

    For a 1x1 convolution with a stride and fewer than 8 input channels, as pruning makes of a ResNet's shortcut, the gradient
    of the weights is written past the end of a buffer: a crash, a hang or wrong gradients (oneDNN's issue 6035, torch 2.15).
    """
    return not runtime.has_avx512() and any(
        max(layer.kernel_size) == 1 < max(layer.stride) and layer.in_channels // layer.groups < 8
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    )


def _device(device: str | torch.device | None) -> torch.device:
    return runtime.device(None if device is None else str(device))


def _device_of(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return runtime.device() if first is None else first.device
