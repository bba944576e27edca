"""graphprune: look at a network as a graph, prune its channels for real, and see in honest numbers what that costs.

Start here: `prune_to` makes a network as small as asked, in one call.

>>> import torch, graphprune
>>> model, image = graphprune.models.build("resnet20", num_classes=10, in_channels=3), torch.zeros(1, 3, 32, 32)
>>> small = graphprune.prune_to(model, image, macs=0.5)  # half of the multiply-adds
>>> small.after.macs <= 0.5 * small.before.macs, type(small.network).__name__
(True, 'ResNet')

Fine-tune it on your data (`data.from_tensors`, `data.from_loaders`, `train.finetune`), or search for a better one
(`search.sacp`, `agent`). The same step by step: `trace` a network, score its channels (`importance`), decide which to keep,
`prune`, compare `cost` and `latency`.

>>> graph = graphprune.trace(model, image)
>>> scores = graphprune.importance.l1(model, graph)
>>> keep = graphprune.keep_from_rates(graph, [5] * len(graph.groups), scores)  # 5 tenths of every group go
>>> half_as_wide = graphprune.prune(model, graph, keep)
>>> graphprune.cost(half_as_wide, image).params < graphprune.cost(model, image).params
True

Each folder is a subpackage: `graph`, `training`, `pruning`, `encoders`, `rl`, `spectral`, `neurons`, `compression`,
`search`, `exact`, `ranking`, `studies`, `report` and `runs`. What most users need stands here under its own name, wherever
its home is, and is loaded on first use.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_WINGS = (
    "compression",
    "encoders",
    "exact",
    "graph",
    "neurons",
    "pruning",
    "ranking",
    "report",
    "rl",
    "runs",
    "search",
    "spectral",
    "studies",
    "training",
)

# Home -> the public names that live there: modules of a subpackage, and objects of a module.
_MODULES = {
    "encoders": ("contrast",),
    "pruning": ("importance",),
    "report": ("figures",),
    "rl": ("agent", "environment"),
    "studies": ("tabular",),
    "training": ("data", "models", "train"),
}
_OBJECTS = {
    "encoders.encoder": ("GraphEncoder",),
    "encoders.scorer": ("Scorer",),
    "graph.channel_graph": ("ChannelGraph",),
    "graph.groups": ("trace",),
    "pruning.channels": ("masked", "prune", "round_keep"),
    "pruning.cost": ("Cost", "CostModel", "cost"),
    "pruning.files": ("load_pruned", "save_pruned"),
    "pruning.goal": ("prune_to",),
    "pruning.latency": ("latency",),
    "pruning.masks": ("keep_from_rates",),
    "pruning.rates": ("RateSpace",),
    "rl.environment": ("PruningEnv",),
}
_MODULE_HOME = {name: f"graphprune.{home}.{name}" for home, names in _MODULES.items() for name in names}
_OBJECT_HOME = {name: f"graphprune.{module}" for module, names in _OBJECTS.items() for name in names}

HOMES = _MODULE_HOME | _OBJECT_HOME
"""Public name -> the full name of the module that it is, or that it stands in."""

__all__ = sorted([*_WINGS, *_MODULE_HOME, *_OBJECT_HOME])


def __getattr__(name: str) -> Any:
    if name in _WINGS or name in _MODULE_HOME:
        return import_module(f"graphprune.{name}")
    if name in _OBJECT_HOME:
        return getattr(import_module(_OBJECT_HOME[name]), name)
    raise AttributeError(f"module 'graphprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _PublicModules(MetaPathFinder, Loader):
    """Makes `import graphprune.train` and `from graphprune.train import fit` find the module at its home."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "graphprune" and name in _MODULE_HOME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(_MODULE_HOME[spec.name.partition(".")[2]])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed at its home; there only its own spec is put back."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_PublicModules())
