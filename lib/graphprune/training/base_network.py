"""The unpruned network an experiment starts from: trained once and stored, or loaded with its public weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from graphprune.runs import store
from graphprune.runs.checkpoint import Checkpoint, Clock
from graphprune.training import models, train
from graphprune.training.data import Dataset
from graphprune.training.train import Recipe


def network(
    name: str, data: Dataset, recipe: Recipe | None, *, seed: int, folder: Path, clock: Clock | None = None
) -> nn.Module:
    """A trained network, in evaluation mode: the same arguments give the same weights, and train only once.

    Args:
        name: as `models.build` takes it.
        data: what it is trained on (its `.train` alone).
        recipe: how. None = load the public CIFAR-10 weights instead; these have seen all 50,000 training images, so `data`
            must be `load("cifar10").for_public_weights()`.
        seed: of the initial weights, the order of the images and the augmentation.
        folder: where the weights are stored, "base-<data>-<name>-seed<seed>.safetensors".
        clock: when to stop, by `checkpoint.Paused`; the same call goes on from there.

    Raises:
        ValueError: an unknown name, or public weights that do not exist or would leak (validation images they were trained on).

    >>> import tempfile, graphprune
    >>> from pathlib import Path
    >>> data, recipe = graphprune.data.load("digits"), graphprune.train.Recipe(epochs=0.2, lr=0.1, batch_size=64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net = network("tiny_cnn", data, recipe, seed=0, folder=Path(folder))
    ...     [path.name for path in Path(folder).glob("*.safetensors")]
    ['base-digits-tiny_cnn-seed0.safetensors']
    """
    if recipe is None:
        if len(data.train) != 50_000 or data.name != "cifar10":
            raise ValueError(
                f"data={data.name!r} with {len(data.train)} training images: public weights have seen all 50,000 of "
                'CIFAR-10, so use data.load("cifar10").for_public_weights(), or give a recipe to train by'
            )
        return models.load_public(name)
    model = models.seeded(name, seed, num_classes=data.num_classes, in_channels=data.input_shape[0])
    return load_or_train(model, name, data, recipe, seed=seed, folder=folder, label="base", clock=clock)


def load_or_train(
    model: nn.Module,
    name: str,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    label: str,
    clock: Clock | None = None,
) -> nn.Module:
    """The model trained by the recipe, in evaluation mode: trained once, and loaded after that.

    Args:
        model: with its initial weights; it is trained in place.
        name, seed: of the network and its weights; with the data's name they make the file's name, after `label`.
        clock: as in `network`.
    """

    def trained() -> dict[str, Tensor]:
        point.clock.begin(point.what)
        train.fit(model, data, recipe, seed=seed, desc=f"training {name}, seed {seed}", checkpoint=point)
        return model.state_dict()

    names = [label, data.name.replace(":", "-").replace("/", "-"), name.replace(":", "-")]
    path = Path(folder) / f"{'-'.join(names)}-seed{seed}.safetensors"
    parameters = {"name": name, "data": data.fingerprint(), "recipe": recipe, "seed": seed}
    known = store.digest(store.provenance(parameters, ("training.train", "training.models")))
    point = Checkpoint(path.with_suffix(".training"), clock, "base network", known)
    model.load_state_dict(store.stage(path, trained, parameters=parameters, modules=("training.train", "training.models")))
    point.clear()
    return model.eval()
