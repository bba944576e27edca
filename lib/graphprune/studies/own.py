"""A network of one's own from start to end: traced, pruned to a budget, fine-tuned, measured, saved in a form to be used."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphprune import neurons, spectral
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model
from graphprune.graph.groups import Norms, trace
from graphprune.pruning import importance
from graphprune.pruning.channels import prune, round_keep
from graphprune.pruning.cost import CostModel, cost
from graphprune.pruning.files import save_pruned
from graphprune.pruning.goal import prune_to
from graphprune.pruning.latency import latency
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled
from graphprune.rl import agent, environment
from graphprune.runs import runtime, safe_files, store
from graphprune.runs.checks import at_least, share, takes
from graphprune.runs.description import network
from graphprune.search.algorithm1 import sacp
from graphprune.search.trial import Task, Trial, read_weights, run_all
from graphprune.training import data as data_sets
from graphprune.training import models, train
from graphprune.training.data import Dataset
from graphprune.training.objective import CLASSIFICATION, plain
from graphprune.training.recipe import Recipe


def _by_program(model: nn.Module, graph: ChannelGraph, data: Dataset) -> Mapping[str, Tensor]:
    """Scores of a program over one image of each class; a plain chain of layers alone has them."""
    try:
        neurons.read(model, data.example())
    except ValueError as error:
        raise ValueError(f"method='mip' scores plain chains of layers alone; {error}") from error
    return neurons.scores(model, *neurons.pick(model, data), graph=graph, time_limit=PROGRAM_SECONDS)


SCORES: dict[str, Callable[[nn.Module, ChannelGraph, Dataset], Mapping[str, Tensor]]] = {
    "l1": lambda model, graph, data: importance.l1(model, graph),
    "spectral": lambda model, graph, data: spectral.channel_scores(model, graph),
    "mip": _by_program,
}
"""Methods that give each channel a score: the same share of every group goes, lowest scores first."""
METHODS = (*SCORES, "sacp", "ours", "rl")
PROGRAM_SECONDS = 60.0  # that the program of "mip" may take
JUDGED = 512  # validation images that "rl" judges a network by, at most
NEAR = 0.05  # candidates of a search lie so far below the budget, as a share of all multiply-adds


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        model: "module:function" (called without arguments), or a name that `models.build` knows, such as "timm:resnet18" or
            "hf:FOLDER"; one of Hugging Face has the weights that are stored with it.
        data: a name that `data.load` knows, such as "imagefolder:PATH", or "module:function" that returns a data set.
        macs: the share of the multiply-adds that may stay.
        method: "l1", "spectral" or "mip" (the same share of every group goes; lowest first of the L1 norms, the effective
            resistances of chapter 06, or the scores of chapter 07's program), "sacp" (search by similarity), "ours" (search by
            the ranker that learns from looks at pruned networks) or "rl" (the agent of chapter 04).
        weights: a file with the network's weights, safetensors or a state dict.
        round_to: widths are multiples of this.
        norms: "kept" prunes the width of a transformer, too; see `trace`.
        epochs, lr, batch_size: of the fine-tuning.
        m: networks that a search trains for a tenth of that, before it trains the best one in full.
        candidates: that a search ranks.
        looks: pruned networks that "ours" and "rl" look at without training them.
        size: side of an image folder's images in pixels.
        seed: of all that is random.
    """

    model: str
    data: str
    macs: float = 0.5
    method: Literal["l1", "spectral", "mip", "sacp", "ours", "rl"] = "l1"
    weights: Path | None = None
    round_to: int = 1
    norms: Norms = "whole"
    epochs: float = 3.0
    lr: float = 0.01
    batch_size: int = 64
    m: int = 10
    candidates: int = 100_000
    looks: int = 500
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        share(macs=self.macs)
        at_least(1, round_to=self.round_to, m=self.m, candidates=self.candidates)
        at_least(agent.Settings().episodes, looks=self.looks)
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: must be one of {', '.join(METHODS)}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    Attributes:
        graph: the trace of the unpruned network.
        network: the pruned and fine-tuned one.
        facts: all that was measured, as it stands in result.json.
        files: what was written.
    """

    graph: ChannelGraph
    network: nn.Module
    facts: dict[str, Any]
    files: tuple[Path, ...]


def prune_own(wish: Wish, out: Path, say: Callable[[str], Any] = print) -> Outcome:
    """Trace, choose, prune, fine-tune (a classifier learns from the original, too), measure and save.

    Killed and called again with the same wish, it goes on where it was.

    Args:
        wish: what is asked for.
        out: the folder for everything; trainings are kept in its folder "work".
        say: is told what happens, a line at a time.

    Raises:
        ValueError, TypeError, OSError: something named in the wish is not there or does not fit.
    """
    store.demand_writable(out / "result.json")
    data, model = make_data(wish.data, wish.size), load_weights(make_model(wish.model, wish.data, wish.size), wish.weights)
    data.demand("train", "val", "test")
    if wish.method in ("ours", "mip") and data.objective != CLASSIFICATION:
        rest = ", ".join(method for method in METHODS if method not in ("ours", "mip"))
        raise ValueError(f"method={wish.method!r} judges classifiers alone; with a loss or metric of your own use {rest}")
    model.eval()
    graph = trace(model, data.example(), norms=wish.norms)
    say(f"{data!r}")
    say(f"{graph!r}")
    for layer, reason in graph.frozen.items():
        say(f"  {layer} stays: {reason}")
    train.check_fits(model, data.train, next(model.parameters()).device)
    found = train.evaluate(model, data.val).accuracy
    say(f"on validation before pruning: {found:.4f}")
    if data.objective == CLASSIFICATION and found <= 1.5 / data.num_classes:
        say("  that is hardly better than chance: is it trained? weights come from --weights or from your function")
    recipe = Recipe(epochs=wish.epochs, lr=wish.lr, batch_size=wish.batch_size, distil=data.objective == CLASSIFICATION)
    longest = math.ceil(minutes(model, data, recipe, wish))
    what = "looking and training take" if wish.method in ("ours", "rl") else "training takes"
    say(f"{what} {longest} min or less on this machine, and can be stopped and started again")
    keep, small = _chosen(wish, model, graph, data, recipe, out / "work")
    facts = _measured(wish, model, small, graph, keep, data)
    files = [save_pruned(out / "small.safetensors", small, graph, keep)]
    onnx = _onnx(small, data.example(), out / "small.onnx")
    facts["onnx"] = onnx
    files += [out / "small.onnx"] if "difference" in onnx else []
    safe_files.replace(out / "result.json", (json.dumps(facts, indent=1) + "\n").encode())
    return Outcome(graph, small, facts, (*files, out / "result.json"))


# what is asked for ----------------------------------------------------------------------------------------------------


def called(name: str, argument: str) -> Any:
    """What the function "module:function" returns; modules are looked for in the working folder, too.

    Raises:
        ValueError: there is no such module or function. TypeError: it is no function without arguments.
    """
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{argument}={name!r}: {error}; give module:function, with module.py in this folder") from error
    if not callable(made):
        raise TypeError(f"{argument}={name!r}: {function} must be a function, and is {made!r}; give module:function")
    takes(f"{argument}={name!r}", made, [])
    return made()


@contextmanager
def _naming_ones_own(name: str, function: str) -> Iterator[None]:
    """An error about a name alone also says how a function of one's own is named."""
    first, _, rest = name.partition(":")
    try:
        yield
    except ValueError as error:
        if rest:
            raise
        raise ValueError(f"{error}; for one of your own give module:function, for example {first}:{function}") from error


def make_model(name: str, data: str, size: int | None = None) -> nn.Module:
    """The network that a wish names."""
    first, _, rest = name.partition(":")
    if rest and first not in ("timm", "torchvision", "hf"):
        model = called(name, "model")
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model={name!r}: the function must return a torch.nn.Module, and returned a {type(model).__name__}"
            )
        return model
    found = make_data(data, size)
    with runtime.seeded(0):
        if first == "hf" and (not Path(rest).is_dir() or any(Path(rest).glob("*.safetensors"))):
            return models.load_huggingface(rest, found.num_classes, found.input_shape[0])
        with _naming_ones_own(name, "make_model"):
            return models.build(name, found.num_classes, found.input_shape[0])


def make_data(name: str, size: int | None = None) -> Dataset:
    """The data set that a wish names."""
    if ":" not in name or name.startswith("imagefolder:"):
        with _naming_ones_own(name, "make_data"):
            return data_sets.load(name, size=size)
    found = called(name, "data")
    if not isinstance(found, Dataset):
        wanted = "a graphprune data set, e.g. data.from_tensors(...)"
        raise TypeError(f"data={name!r}: the function must return {wanted}, and returned a {type(found).__name__}")
    return found


def load_weights(model: nn.Module, path: Path | None) -> nn.Module:
    """Put the weights of a file into a network: safetensors, or a state dict (perhaps under "state_dict" or "model").

    Raises:
        FileNotFoundError: there is no such file. ValueError: they are another network's.
    """
    if path is None:
        return model
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: there is no such file")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: Any = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), dict)), state)
    try:
        model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    except RuntimeError as error:
        raise ValueError(f"weights={str(path)!r}: they are not this network's; {error}") from error
    return model


def minutes(model: nn.Module, data: Dataset, recipe: Recipe, wish: Wish) -> float:
    """How long trainings and looks would take if every network were the unpruned one: from one step, a third of it forward."""
    twin, objective = trial_copy(model), data.train.objective
    x, y = next(data.train.batches(recipe.batch_size, limit=recipe.batch_size))
    seconds = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        objective.mean_loss(plain(twin(x)), y).backward()
        seconds.append(time.perf_counter() - start)
    epochs = wish.epochs * (1 + wish.m / 10 if wish.method in ("sacp", "ours") else 1)
    trained = seconds[-1] * epochs * recipe.steps_per_epoch(len(data.train))
    images = wish.looks * (len(data.val) + JUDGED) if wish.method in ("ours", "rl") else 0
    return (trained + seconds[-1] / len(x) * images / 3 + PROGRAM_SECONDS * (wish.method == "mip")) / 60


def trial_copy(model: nn.Module) -> nn.Module:
    """A copy to compute with, on the device of trainings."""
    return copy_model(model).to(runtime.device()).eval()


# choosing, training, measuring ----------------------------------------------------------------------------------------


def _chosen(
    wish: Wish, model: nn.Module, graph: ChannelGraph, data: Dataset, recipe: Recipe, work: Path
) -> tuple[dict[str, Tensor], nn.Module]:
    """The channels that stay, and the network trained with them."""
    if wish.method in SCORES:
        scores = SCORES[wish.method](model, graph, data)
        keep = prune_to(model, data.example(), wish.macs, scores=scores, round_to=wish.round_to, norms=wish.norms).keep
        return keep, _trained(wish, model, graph, keep, data, recipe, work)
    if wish.method == "rl":
        keep = _by_agent(wish, model, graph, data, work)
        return keep, _trained(wish, model, graph, keep, data, recipe, work)
    light = Recipe(**{**asdict(recipe), "epochs": recipe.epochs / 10})
    window = (max(0.0, wish.macs - NEAR), wish.macs)
    how: dict[str, Any] = {"m": wish.m, "k": 1, "n_candidates": wish.candidates, "n_jobs": 1, "seed": wish.seed}
    if wish.method == "ours":
        how["ranker"] = Distilled(ClassMeans(data), n=wish.looks)
    result = sacp(model, graph, data, min_ratio=0.0, macs_window=window, light=light, full=recipe, folder=work, **how)
    if wish.round_to == 1:
        return dict(result.keep), result.model
    keep = round_keep(model, graph, result.keep, wish.round_to, macs=wish.macs)
    return keep, _trained(wish, model, graph, keep, data, recipe, work)


def _by_agent(wish: Wish, model: nn.Module, graph: ChannelGraph, data: Dataset, work: Path) -> dict[str, Tensor]:
    """What the agent keeps: the best on validation of the networks that it looked at."""
    shown, seen = min(JUDGED, len(data.val)), min(128, len(data.train))
    game = environment.game(trial_copy(model), graph, data, wish.macs, images=shown, calibration=seen, seed=wish.seed)
    settings = agent.Settings(evaluations=wish.looks)
    known = store.digest([game.digest, settings, wish.seed])
    trained = agent.train(game, settings, seed=wish.seed, checkpoint=work / f"agent-{known[:12]}")
    keep = graph.unflatten(trained.kept.cpu())
    return keep if wish.round_to == 1 else round_keep(model, graph, keep, wish.round_to, macs=wish.macs)


def _trained(
    wish: Wish, model: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor], data: Dataset, recipe: Recipe, work: Path
) -> nn.Module:
    """The pruned network, fine-tuned; stored, so that it is done once, and goes on where it was stopped."""
    task = Task(
        model=model,
        costs=CostModel(graph, data.example()),
        data=data,
        base=store.digest([network(model), graph.fingerprint(), data.fingerprint()]),
        recipe=recipe,
        inherit=True,
        threads=torch.get_num_threads(),
        folder=work.absolute() / "full",
        store_weights=True,
    )
    trial = Trial(task, graph.flatten(keep), 1000 * wish.seed)
    (row,) = run_all([trial], 1, "fine-tuning")
    if row["failed"]:
        raise ValueError(f"the fine-tuning failed: {row['failed']}; lower lr={wish.lr}")
    small = prune(model, graph, keep, check=False)
    small.load_state_dict(read_weights(store.load(trial.weights)))
    return small.eval()


def _measured(
    wish: Wish, model: nn.Module, small: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor], data: Dataset
) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": wish.model, "data": wish.data, "method": wish.method, "asked": wish.macs}
    for name, net in (("before", model), ("after", small)):
        found, count = train.evaluate(net, data.test), cost(net, data.example())
        time_ = latency(trial_copy(net), data.example().to(runtime.device()))
        facts[name] = {"macs": count.macs, "params": count.params, "accuracy_test": found.accuracy, "loss_test": found.loss}
        facts[name] |= {"accuracy_val": train.evaluate(net, data.val).accuracy, "milliseconds": time_.median_ms}
    facts["widths"] = {group.name: [group.channels, int(keep[group.name].sum())] for group in graph.groups}
    facts["frozen"] = dict(graph.frozen)
    facts["hardware"] = runtime.hardware()
    return facts


def _onnx(small: nn.Module, example: Tensor, path: Path) -> dict[str, Any]:
    """Write the network as ONNX and compare what onnxruntime computes with what torch does; says why there is none."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        return {"skipped": f"{error.name} is not installed: pip install onnx onnxscript onnxruntime"}
    net, x = small.cpu(), torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, external_data=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found, *_) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.inference_mode():
            right = plain(net(x))
    except Exception as error:  # whatever an exporter may raise: the other files do not depend on it
        path.unlink(missing_ok=True)
        return {"skipped": f"{type(error).__name__}: {error}"}
    return {"difference": float((torch.from_numpy(found) - right).abs().max())}
