"""What every test shares: one thread, no progress bars, and the rule for tests that need real data sets."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRAPHPRUNE_QUIET", "1")

ROOT = Path(__file__).resolve().parent.parent
LOCATIONS = {  # what is there when a data set is, below $GRAPHPRUNE_DATA or data/
    "cifar10": ["cifar-10-batches-py/test_batch"],
    "mnist": ["MNIST/raw/train-images-idx3-ubyte"],
    "fashion_mnist": ["FashionMNIST/raw/train-images-idx3-ubyte"],
    "weights": ["weights/resnet20-*.th", "weights/resnet56-*.th"],
    "imagenette_mini": ["imagenette_mini/train", "imagenette_mini/val"],
    "graphs": ["Planetoid/Cora", "TUDataset/PROTEINS", "MoleculeNet/bbbp"],
}
DESELECTED = pytest.StashKey[list[str]]()


def _is_here(name: str) -> bool:
    named = os.environ.get("GRAPHPRUNE_DATA")
    folders = [*([Path(named).expanduser()] if named else []), ROOT / "data"]
    return any(all(any(folder.glob(place)) for place in LOCATIONS[name]) for folder in folders)


def _missing(item: pytest.Item) -> list[str]:
    """The data sets the test's `data` markers name and that are not here."""
    names = [name for marker in item.iter_markers("data") for name in marker.args]
    unknown = set(names) - set(LOCATIONS)
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: unknown data set {sorted(unknown)}, known are {sorted(LOCATIONS)}")
    return [name for name in names if not _is_here(name)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = {item: _missing(item) for item in items}
    config.stash[DESELECTED] = []
    if os.environ.get("GRAPHPRUNE_DATA"):
        return  # pytest_runtest_setup fails them
    gone = [item for item in items if lacking[item]]
    config.stash[DESELECTED] = [" ".join(lacking[item]) for item in gone]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if not lacking[item]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _missing(item):
        pytest.fail(
            f"data set {name!r} is neither in data/ nor under GRAPHPRUNE_DATA={os.environ['GRAPHPRUNE_DATA']}", pytrace=False
        )


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if hasattr(session.config, "workeroutput"):  # an xdist worker: the controller prints the line
        session.config.workeroutput["deselected"] = session.config.stash.get(DESELECTED, [])
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: pytest.Item) -> None:
    node.config.stash[DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", [])  # the same from each worker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    gone = config.stash.get(DESELECTED, [])
    if gone:
        names = ", ".join(sorted({name for line in gone for name in line.split()}))
        terminalreporter.write_line(
            f"{len(gone)} tests need data sets that are not here: {names}. "
            "Set GRAPHPRUNE_DATA to their folder or put them into data/ (data/README.md says how)."
        )


@pytest.fixture(scope="session")
def resnet8():
    """The channel graph of a ResNet-8 for digits; graphs are never changed."""
    import torch

    from graphprune import models, trace

    return trace(models.build("resnet8", in_channels=1), torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="session")
def tiny():
    """The channel graph of `tiny_cnn`."""
    import torch

    from graphprune import models, trace

    return trace(models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
