"""An experiment at the paper's size, done in pieces: what is made is stored at once, in files small enough to carry.

A folder holds the base network (float16 matrices), the trained encoder, the candidates picked, a row for each network
trained, and the state of the one in training. Weights of pruned networks are not kept: their accuracies are measured the moment
they are trained. What is stored is known by what it is of (rates, recipe, restart), not by the library's sources, so that
machines with other versions of Python and PyTorch may go on with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from graphprune import artifacts, checkpoint, contrast, costs, funnel, importance, models, runtime, train
from graphprune.checkpoint import Checkpoint, Clock
from graphprune.coupling import trace
from graphprune.data import Dataset
from graphprune.encoder import GraphEncoder
from graphprune.funnel import Funnel
from graphprune.graph import ChannelGraph
from graphprune.paper import Sizes
from graphprune.pruning import prune
from graphprune.records import Records
from graphprune.train import Recipe


@dataclass(frozen=True, eq=False)
class Pieces:
    """What one experiment has made so far, and the means to make more until time is up.

    Every method makes what it is asked for, or loads it, or raises `checkpoint.Paused`.

    Args:
        net: the network's name.
        data: what it is trained on.
        sizes: of the experiment.
        folder: where everything is stored; of one experiment alone.
        clock: when to stop.

    Raises:
        ValueError: the folder belongs to another experiment.
    """

    net: str
    data: Dataset
    sizes: Sizes
    folder: Path
    clock: Clock

    def __post_init__(self) -> None:
        known = {"net": self.net, "data": self.data.fingerprint(), "sizes": artifacts.digest(self.sizes)}
        path = self.folder / "experiment.json"
        if path.is_file() and json.loads(path.read_text()) != known:
            raise ValueError(f"folder={str(self.folder)!r} holds another experiment (network, data or sizes); give another one")
        artifacts.demand_writable(path)
        artifacts.replace(path, (json.dumps(known) + "\n").encode())

    # --- what there is --------------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """All that has to be carried to another machine."""
        return sorted(file for file in self.folder.rglob("*") if file.is_file() and not file.name.startswith("."))

    @cached_property
    def records(self) -> Records:
        """Rows and candidates."""
        return Records(self.folder / "results.jsonl")

    def stored(self, key: str, what: str, make: Callable[[], Any]) -> Any:
        """Plain data, made once."""
        if key not in self.records:
            self.clock.begin(what)
            self.records[key] = make()
        return self.records[key]

    def _point(self, name: str, what: str) -> Checkpoint:
        return Checkpoint(self.folder / "training" / name, self.clock, what)

    # --- the stages -------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> tuple[nn.Module, dict[str, Any]]:
        """The base network as it is stored, its matrices rounded to float16, and its row."""
        model = models.seeded(self.net, 0, num_classes=self.data.num_classes, in_channels=self.data.input_shape[0])
        if (content := checkpoint.read(self.folder / "base")) is None:
            self.clock.begin("base network")
            point, recipe = self._point("base", "base network"), self.sizes.base
            if recipe is None:
                model = models.load_public(self.net)
            else:
                train.fit(model, self.data, recipe, seed=0, desc="base network", checkpoint=point)
            weights = checkpoint.halved(model.cpu().state_dict())
            about = {"seconds": point.seconds, "rounded": point.rounded, "hardware": runtime.hardware()}
            content = checkpoint.packed({"weights": weights, **about})
            checkpoint.write(self.folder / "base", content)
        self._point("base", "base network").clear()  # also what a killed process left
        about = checkpoint.unpacked(content)
        model.load_state_dict(about.pop("weights"))  # into float32
        return model.eval(), about | {"failed": "", "epochs": self.sizes.base.epochs if self.sizes.base else 0}

    @cached_property
    def base_row(self) -> dict[str, Any]:
        model, about = self.base
        found = self.stored("base network", "base network's accuracy", lambda: self._measured(model))
        return found | about

    @cached_property
    def graph(self) -> ChannelGraph:
        return trace(self.base[0], self.data.example())

    @cached_property
    def scores(self) -> Mapping[str, Tensor]:
        """The L1 norms that say which channels survive at a given rate (section 3.4)."""
        return importance.l1(self.base[0], self.graph)

    def funnel(self, macs_window: tuple[float, float] = (0.0, 1.0), most: int | None = None) -> Funnel:
        """The experiment in the terms of `funnel`: R(r) >= tau, and a window of MACs; `most` candidates in place of m."""
        size = self.sizes
        sizes: dict[str, Any] = {"m": most or size.m, "k": size.k, "light": size.light, "full": size.full}
        return Funnel(
            self.base[0], self.graph, self.data, folder=self.folder, min_ratio=size.min_ratio, macs_window=macs_window, **sizes
        )

    @cached_property
    def encoder(self) -> GraphEncoder:
        """Trained by contrast (Algorithm 1, lines 2-7)."""
        seed = runtime.seed_generator(0, "encoder").initial_seed()
        encoder = GraphEncoder.seeded(seed, self.graph.feature_index.shape[1])
        if (content := checkpoint.read(self.folder / "encoder")) is None:
            self.clock.begin("encoder")
            point, size = self._point("encoder", "contrastive training"), self.sizes
            generator = runtime.seed_generator(0, "training configurations")
            indices = self.funnel().window.space.sample(size.n_train, 0, generator)
            contrast.fit(
                encoder, self.graph, self.base[0], indices=indices, epochs=size.encoder_epochs, seed=0, checkpoint=point
            )
            content = checkpoint.packed(encoder.state_dict())
            checkpoint.write(self.folder / "encoder", content)
        self._point("encoder", "encoder").clear()
        encoder.load_state_dict(checkpoint.unpacked(content))
        return encoder

    def candidates(self, name: str, setting: Funnel, ranker: Callable[[Tensor], Tensor]) -> Tensor:
        """The best of all candidates by a ranker (lines 9-13), (m, groups) rate indices."""

        def make() -> list[list[int]]:
            found: list[list[int]] = funnel.top(setting, ranker, self.sizes.n_candidates)["indices"].tolist()
            return found

        return torch.tensor(self.stored(f"candidates {name}", f"{name}: candidates", make))

    def networks(self, what: str, kept: Iterable[Tensor], recipe: Recipe, restarts: bool = False) -> pd.DataFrame:
        """A row for each network, trained or loaded: `rank` from 1, accuracies, costs, `failed`, `seconds`, ...

        Args:
            what: said when it stops.
            kept: (num_atoms,) bool each.
            recipe: of the training, from the base network's weights.
            restarts: each trains on the images in another order.
        """
        masks = list(kept)
        rows = [
            self._network(f"{what} {i + 1} of {len(masks)}", mask, recipe, i if restarts else 0) for i, mask in enumerate(masks)
        ]
        return pd.DataFrame(rows).assign(rank=range(1, len(rows) + 1), epochs=float(recipe.epochs))

    def _network(self, what: str, kept: Tensor, recipe: Recipe, restart: int) -> dict[str, Any]:
        name = artifacts.digest([kept, recipe, restart])[:16]

        def make() -> dict[str, Any]:
            small = prune(self.base[0], self.graph, self.graph.unflatten(kept)).to(runtime.device())
            point = self._point(name, what)
            try:
                train.reestimate_bn(small, self.data, seed=restart)
                history = train.fit(small, self.data, recipe, seed=restart, desc=what, checkpoint=point)
                found = {"failed": "", **self._measured(small), "curve": [row["loss"] for row in history]}
            except FloatingPointError as error:
                nothing = dict.fromkeys(("accuracy_val", "loss_val", "accuracy_test", "flops", "params"))
                found = {"failed": str(error), **nothing}
            return found | {"seconds": point.seconds, "rounded": point.rounded, "hardware": runtime.hardware()}

        row: dict[str, Any] = self.stored(f"network {name}", what, make)
        self._point(name, what).clear()
        return row

    def _measured(self, model: nn.Module) -> dict[str, Any]:
        val, test = (train.evaluate(model.to(runtime.device()), split) for split in (self.data.val, self.data.test))
        counted = model.cpu()
        return {
            "accuracy_val": val.accuracy,
            "loss_val": val.loss,
            "accuracy_test": test.accuracy,
            "flops": costs.paper_flops(counted, self.data.example()),
            "params": sum(parameter.numel() for parameter in counted.parameters()),
        }
