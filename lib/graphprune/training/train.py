"""Train, fine-tune, distil and evaluate a classifier; the same seed gives the same bits on the CPU."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from graphprune.runs import runtime
from graphprune.runs.checkpoint import Checkpoint
from graphprune.runs.checks import at_least
from graphprune.training.data import Dataset
from graphprune.training.recipe import Recipe
from graphprune.training.splits import Split
from graphprune.training.training_state import TrainingState, diverged

__all__ = ["Evaluation", "Recipe", "distillation", "evaluate", "finetune", "fit", "reestimate_bn"]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured: the share of `n` images classified correctly, their mean cross-entropy in nats."""

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
) -> list[dict[str, float]]:
    """Train `model` in place on `data.train`; it ends up on the device, in eval mode.

    Args:
        seed: decides the order and the augmentation of the images, and what dropout drops.
        device: where to compute; else `runtime.device()`.
        desc: what the progress bar says.
        teacher: a trained network to distil from (Hinton et al. 2015): the loss is then
            (1 - w) cross-entropy + w T^2 KL(teacher || model), w and T from the recipe.
        validate: measure accuracy and loss on `data.val` after each epoch.
        checkpoint: goes on from the state stored there, offers it the state after every step, and so may stop at any
            step; on the CPU the result is bit for bit that of an uninterrupted training.
    Returns:
        one row an epoch: epoch (passes so far), lr (of its last step), loss (mean of what was minimised),
        accuracy_train (share, on the augmented images as they came by); with `validate` accuracy_val, loss_val.
    Raises:
        ValueError: the model does not fit the data, or the recipe distils and there is no teacher.
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
    place = _device(device)
    model.to(place)
    check_fits(model, data.train, place)
    if teacher is not None:
        check_fits(teacher.to(place).eval(), data.train, place)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, recipe.lr, recipe.momentum, 0, recipe.weight_decay, recipe.nesterov)
    course = TrainingState(model, optimizer, data.train, recipe, runtime.seed_generator(seed, "batches"), seed)
    dropout = runtime.seed_generator(seed, "dropout").initial_seed()  # the caller's random state is as before afterwards
    with runtime.seeded(dropout, place), _channels_last(model, place), _channels_last(teacher, place):
        if checkpoint is not None and (stored := checkpoint.load()) is not None:
            course.restore(stored)
        model.train()
        for x, y in runtime.progress(course.batches(), desc or "training", course.steps - course.step):
            rate = recipe.rate(course.step, course.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            course.tally.add(*_step(model, optimizer, x.to(place), y.to(place), recipe, teacher))
            course.step += 1
            if course.at_epochs_end:
                row = {"epoch": course.step / course.per_epoch, "lr": rate, **course.tally.close()}
                course.history.append({**row, **(_validation(model, data) if validate else {})})
            if checkpoint is not None:
                checkpoint.offer(course.state)
    _demand_finite(model, seed)
    model.eval()
    return course.history


def finetune(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device | None = None,
    desc: str | None = None,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Train a copy of a pruned network, its BN statistics re-estimated first; `model` is untouched.

    Args and Raises: as for `fit`.
    """
    tuned = copy.deepcopy(model).to(_device(device))
    check_fits(tuned, data.train, _device(device))
    reestimate_bn(tuned, data, seed=seed)
    fit(tuned, data, recipe, seed=seed, device=device, desc=desc or "fine-tuning", teacher=teacher)
    return tuned


def evaluate(
    model: nn.Module,
    split: Split | Dataset,
    *,
    batch_size: int = 512,
    device: str | torch.device | None = None,
) -> Evaluation:
    """Accuracy and loss on a split, in eval mode; every module's mode is as before afterwards.

    Args:
        split: `data.val`, `data.test` ...; of a whole data set the validation split is taken.
        batch_size: images a forward pass.
        device: where to compute; else where the model is.
    Raises:
        ValueError: the batch size is below 1, or the model does not fit the data.

    >>> from graphprune import data, models
    >>> evaluate(models.tiny_cnn(), data.load("digits", device="cpu").test).n
    360
    """
    at_least(1, ", e.g. 512", batch_size=batch_size)
    part = split.val if isinstance(split, Dataset) else split
    place = _device_of(model) if device is None else _device(device)
    model.to(place)
    check_fits(model, part, place)
    loss, correct = torch.zeros((), device=place, dtype=torch.float64), torch.zeros((), device=place, dtype=torch.int64)
    with runtime.evaluating(model), torch.inference_mode():
        for x, y in part.batches(batch_size):
            logits, y = model(x.to(place)), y.to(place)
            loss += F.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
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
    model: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor, recipe: Recipe, teacher: nn.Module | None
) -> tuple[Tensor, Tensor, int]:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = model(x)
        if teacher is not None:
            with torch.no_grad():
                target = teacher(x).float()
    logits = logits.float()
    loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
    if teacher is not None:
        w = recipe.teacher_weight
        loss = (1 - w) * loss + w * distillation(logits, target, recipe.temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == y).sum(), len(y)


def _demand_finite(model: nn.Module, seed: int) -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise diverged(f"{name} holds numbers that are not finite after the last step", seed)


def _validation(model: nn.Module, data: Dataset) -> dict[str, float]:
    found = evaluate(model, data.val)
    return {"accuracy_val": found.accuracy, "loss_val": found.loss}


def check_fits(model: nn.Module, split: Split, device: torch.device) -> None:
    """Raise ValueError unless the model takes the split's images and has an output for each of its classes."""
    x, _ = next(split.batches(1, limit=1))  # of a folder: one file, no worker
    with runtime.evaluating(model), torch.inference_mode():
        try:
            logits = model(x.to(device))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"model: it does not take images of shape {tuple(x.shape[1:])}: {error}") from error
    classes = int(split.labels.max()) + 1
    if logits.ndim != 2 or logits.shape[1] < classes:
        raise ValueError(
            f"model: outputs of shape {tuple(logits.shape)} for one image; the data needs (1, {classes}): "
            f"build it with num_classes={classes}"
        )


@contextmanager
def _channels_last(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Conv weights laid out channels last while a CPU trains: 1.2 times faster at 8x8, 1.4 at 32x32 (ResNet-20)."""
    if model is not None and device.type == "cpu":
        model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        if model is not None:
            model.to(memory_format=torch.contiguous_format)


def _device(device: str | torch.device | None) -> torch.device:
    return runtime.device(None if device is None else str(device))


def _device_of(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return runtime.device() if first is None else first.device
