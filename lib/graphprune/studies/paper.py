"""What SACP's paper prints of its experiments (Liu et al., section 4): sizes, recipe and results on CIFAR-10.

What it leaves open is ours [our reading]: five epochs of light fine-tuning at the same rate, fifteen of the encoder's
training, and the window of MACs, about the FLOPs it prints, in which methods are compared. The recipe `desk` is ours
throughout: the same table from public weights in some hours on one core.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphprune.training.recipe import Recipe

TRAINING = Recipe(epochs=200, lr=0.01, batch_size=128)  # section 4.2; "200 to 250 epochs"
LIGHT = replace(TRAINING, epochs=5)  # ours


@dataclass(frozen=True)
class Sizes:
    """How large an experiment is.

    Attributes:
        n_train: N, configurations the encoder is trained on.
        n_candidates: candidates ranked.
        min_ratio: tau, candidates have R(r) >= tau.
        m, k: networks fine-tuned lightly, and retrained.
        macs_window: shares of the base network's MACs in which methods are compared [our reading].
        many: the values of m in figure 2.
        base: how the base network is trained; None = the public weights.
        light, full: how the m and the k are trained.
        encoder_epochs: of the encoder's training.
        looks: networks that the suite's own ranker looks at [ours].
    """

    n_train: int
    n_candidates: int
    min_ratio: float
    m: int
    k: int
    macs_window: tuple[float, float]
    many: tuple[int, ...] = (50, 100, 150, 200)
    base: Recipe | None = TRAINING
    light: Recipe = LIGHT
    full: Recipe = TRAINING
    encoder_epochs: int = 15
    looks: int = 256


@dataclass(frozen=True)
class Printed:
    """A published row, in per cent; None where none is printed. By SACP's paper unless `source` names another."""

    accuracy: float
    flops_cut: float
    params_cut: float | None
    source: str = "SACP, table 3"


SIZES = {
    "vgg16": Sizes(10_000, 1_000_000, 0.60, 150, 10, (0.16, 0.19)),
    "resnet18": Sizes(10_000, 1_000_000, 0.70, 150, 10, (0.13, 0.16)),
    "resnet56": Sizes(50_000, 5_000_000, 0.30, 300, 10, (0.20, 0.23), many=(100, 200, 300, 400)),
    "resnet20a": Sizes(10_000, 1_000_000, 0.30, 150, 10, (0.20, 0.23), base=None),  # not in the paper: all ours
}

TABLE3 = {
    "vgg16": {
        "Base": Printed(92.60, 0.0, 0.0),
        "GAL-0.05": Printed(90.86, 39.71, 77.19),
        "HRank": Printed(91.26, 65.44, 82.08),
        "ABCPruner-80%": Printed(93.08, 73.65, 88.68),
        "SACP": Printed(92.76, 82.23, 92.12),
    },
    "resnet18": {
        "Base": Printed(92.32, 0.0, 0.0),
        "OTOv2": Printed(92.86, 79.70, None),
        "ATO": Printed(94.51, 79.80, None),
        "SACP": Printed(93.41, 84.99, 92.67),
    },
    "resnet56": {
        "Base": Printed(94.58, 0.0, 0.0),
        "GAL-0.6": Printed(92.98, 38.79, 12.79),
        "FPGM": Printed(92.93, 52.60, 45.35),
        "HRank": Printed(92.17, 50.00, 43.02),
        "ABCPruner-70%": Printed(93.23, 54.24, 54.65),
        "ATO": Printed(93.74, 55.00, None),
        "SACP": Printed(90.06, 78.06, 70.48),
    },
}
TABLE4 = {  # ResNet-18; the prose gives SACP 91.54 %, the table 93.41 %
    "SACP-1": Printed(88.73, 91.49, 91.32),
    "SACP-2": Printed(88.91, 80.46, 92.47),
    "SACP": Printed(93.41, 84.99, 92.67),
}

PUBLISHED = {  # by network as the figures name it; ours has parameter-free shortcuts (option A), which hardly change the cost
    "resnet56": {
        **{name: row for name, row in TABLE3["resnet56"].items() if name != "Base"},
        "CHIP": Printed(92.43, 74.1, None, "CORING, README"),
        "CORING": Printed(92.84, 72.3, None, "CORING, README"),
        "DECORE": Printed(90.85, 81.5, None, "CORING, README"),
        "DepGraph": Printed(93.64, 61.0, None, "Torch-Pruning, README"),
    }
}

_DESK_FULL = Recipe(epochs=15, lr=0.05, batch_size=128, warmup=0.1, precision="bfloat16", distil=True)
DESK = Sizes(
    n_train=10_000,
    n_candidates=100_000,
    min_ratio=0.30,
    m=12,
    k=1,
    macs_window=(0.49, 0.50),
    base=None,
    light=replace(_DESK_FULL, epochs=0.25, lr=0.02),
    full=_DESK_FULL,
)
"""Between tiny and paper: networks trained to the end from public weights, about half a core-hour each; all ours."""


def _tiny(epochs: float) -> Recipe:
    return Recipe(epochs=epochs, lr=0.05, batch_size=64)


TINY = Sizes(64, 300, 0.3, 4, 2, (0.2, 0.5), many=(2, 4, 6), base=_tiny(2), light=_tiny(0.3), full=_tiny(0.6), encoder_epochs=2)
"""A rehearsal: everything, at a size that takes a minute on digits with ResNet-8."""


def sizes(net: str, recipe: str) -> Sizes:
    """The sizes of an experiment.

    Raises:
        ValueError: the paper has no such network, or there is no such recipe.
    """
    if recipe not in ("paper", "tiny"):
        raise ValueError(f"recipe={recipe!r}: there are paper (the paper's sizes), desk (table3 alone) and tiny (a rehearsal)")
    known = [*SIZES, *(["resnet8"] if recipe == "tiny" else [])]
    if net not in known:
        raise ValueError(f"net={net!r}: recipe {recipe} has {', '.join(known)}")
    return TINY if recipe == "tiny" else SIZES[net]
