"""Scores of a network's neurons and channels by a mixed integer program: how little of each a few images need."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.groups import trace
from graphprune.neurons import gradient, replay
from graphprune.neurons.bounds import propagate
from graphprune.neurons.chain import Chain, Score
from graphprune.neurons.program import build, point
from graphprune.neurons.reading import check_program, read
from graphprune.neurons.solver import solve
from graphprune.pruning.importance import per_atom
from graphprune.runs.checks import demand_number

SOLVERS = ("mip", "relaxation", "gradient")
RADIUS = {"published": 1e-5, "exact": 0.0}


class Scores(dict[str, Tensor]):
    """Group name -> (C,) float32 in [0, 1], higher = needed more; it fits wherever `importance.l1` does.

    Attributes:
        status: "optimal"; "time limit": the time was up, and these are the best scores seen; "relaxation": optimal with
            gates between 0 and 1; "local": by gradient descent, nothing is proved.
        objective: of these scores, by a run of the network.
        bound: no feasible scores lie below it; -inf where nothing is known.
        seconds: wall clock.
        sizes: images, variables, binaries, rows, nonzeros, rounds, cuts and retried (runs repeated without presolve).
    """

    def __init__(
        self,
        groups: Mapping[str, Tensor],
        status: str,
        objective: float,
        bound: float,
        seconds: float,
        sizes: Mapping[str, int],
    ) -> None:
        super().__init__(groups)
        self.status, self.objective, self.bound, self.seconds = status, objective, bound, seconds
        self.sizes = dict(sizes)

    @property
    def gap(self) -> float:
        """objective - bound, in the objective's unit. Below zero by rounding, or for a relaxation of `published` whose
        scores its gates would not allow."""
        return self.objective - self.bound


def scores(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    program: str = "exact",
    solver: str = "mip",
    lam: float = 5.0,
    radius: float | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
    graph: ChannelGraph | None = None,
) -> Scores:
    """Score every neuron and channel of a chain network by a program over a few images, solved together.

    Source: ElAraby, Wolf and Carvalho 2023, "Identifying critical neurons in ANN architectures using mixed integer
    programming" (arXiv 2002.07259).

    A unit's score s in [0, 1] lowers its pre-activation: x = ReLU(h - (1 - s) u+), with u+ its upper bound. The program
    minimises lam (mean cross-entropy) + (sum of the L - 1 largest of I_l), I_l = mean_j(s_lj - 2).

    Args:
        model: a chain of linear layers, convolutions, BN, ReLU and pooling; every one but the last is scored.
        images: (B, *input shape), as the network takes them. labels: (B,) class numbers.
        program: `published`: the rows of the authors' code, which allow only s >= 1 - (h - min(l, 0)) / u+. `exact`: ours;
            the formula above for every s in [0, 1].
        solver: `mip`; `relaxation`: its gates free between 0 and 1; `gradient`: projected Adam on the formula.
        lam: weight of the cross-entropy, above 0; 5 in the authors' code.
        radius: of the box around each image from which bounds are propagated; None: 1e-5 for `published`, 0 for `exact`.
        time_limit: seconds of wall clock, about; a share of it goes to the start that gradient descent gives to `exact`.
        seed: of gradient descent's starts.
        graph: the network's `trace`; made here if None.
    Raises:
        TypeError: `lam`, `radius` or `time_limit` is no number.
        ValueError: an argument is out of its range, or the network has a layer that is not supported.
        RuntimeError: HiGHS calls the program infeasible or unbounded, or fails.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[2.0, -2.0, 0.0], [-2.0, 2.0, 0.0]])
    >>> net[0].bias.data, net[2].bias.data = torch.zeros(3), torch.zeros(2)
    >>> found = scores(net, torch.eye(2), torch.tensor([0, 1]))
    >>> found.status, found["0"][2].item()  # the last unit helps neither class
    ('optimal', 0.0)
    """
    begun = time.monotonic()
    check(program, solver, lam, radius, time_limit)
    check_images(images, labels)
    radius = RADIUS[program] if radius is None else float(radius)
    chain = read(model, images, program)
    x, y = _images(chain, images, labels)
    bounds = propagate(chain, x, radius, program)
    graph = trace(model, images[:1]) if graph is None else graph

    def objective(s: Sequence[Tensor]) -> float:
        return float(replay.objective(chain, bounds, x, y, s, lam))

    start, layers = replay.ones(chain), [score.layer for score in chain.scored]
    if solver == "gradient" or program == "exact":
        share = 1.0 if solver == "gradient" else 0.3
        start, _ = gradient.descend(chain, bounds, x, y, lam, seed=seed, time_limit=share * time_limit)
    if solver == "gradient":
        seconds = time.monotonic() - begun
        groups = by_group(graph, layers, start)
        return Scores(groups, "local", objective(start), float("-inf"), seconds, {"images": len(x)})
    rows = build(chain, bounds, x, y, lam, program)
    first = start, point(rows, chain, bounds, x, start)
    left = time_limit - (time.monotonic() - begun)
    found = solve(rows, objective, first, lam, left, relax=solver == "relaxation", feasible=program == "exact")
    sizes = {"images": len(x), **rows.sizes, "rounds": found.rounds, "cuts": found.cuts, "retried": found.retried}
    seconds = time.monotonic() - begun
    return Scores(by_group(graph, layers, found.s), found.status, found.objective, found.bound, seconds, sizes)


def per_class(model: nn.Module, images: Tensor, labels: Tensor, *, time_limit: float = 60.0, **options: object) -> Scores:
    """The scores of each class's images alone, averaged over the classes: the paper's variant with one program a class.

    Small programs can be solved to their optima where one for all images cannot. The status is "optimal" only if each
    one is; objective and bound are means; sizes are added up.

    Args, Raises: as `scores`; `time_limit` is shared equally.
    """
    check_time(time_limit)
    check_images(images, labels)
    classes = labels.unique().tolist()
    parts = []
    for number in classes:
        chosen = labels == number
        limit = time_limit / len(classes)
        parts.append(scores(model, images[chosen], labels[chosen], time_limit=limit, **options))  # type: ignore[arg-type]
    return mean_of(parts)


def mean_of(parts: Sequence[Scores]) -> Scores:
    """Several scores of the same groups as one: scores, objective and bound are means, seconds and sizes sums.

    `sizes["solved"]` says how many are optimal.
    """
    states = [part.status for part in parts]
    worst = next((state for state in ("time limit", "local", "relaxation") if state in states), "optimal")
    groups = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
    objective, bound = (sum(getattr(p, key) for p in parts) / len(parts) for key in ("objective", "bound"))
    sizes = {key: sum(part.sizes.get(key, 0) for part in parts) for key in parts[0].sizes}
    sizes["solved"] = states.count("optimal")
    return Scores(groups, worst, objective, bound, sum(part.seconds for part in parts), sizes)


def by_group(graph: ChannelGraph, layers: Sequence[str], s: Sequence[Tensor]) -> dict[str, Tensor]:
    """Scores of layers, (C,) each, as scores of the graph's groups; coupled layers are averaged.

    Raises:
        ValueError: a group has a channel that no scored layer makes.
    """
    total, hits = per_atom(graph, dict(zip(layers, s, strict=True)))
    for name, span in graph.slices.items():
        if bool((hits[span] == 0).any()):
            raise ValueError(f"group {name!r} has a channel that no scored layer makes; use another importance")
    return {name: (total[span] / hits[span]).clone() for name, span in graph.slices.items()}


def check(program: str, solver: str, lam: float, radius: float | None, time_limit: float) -> None:
    """Raise ValueError for the first argument that is out of its range, TypeError for one that must be a number."""
    check_program(program)
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is unknown: use 'mip', 'relaxation' or 'gradient'")
    demand_number("e.g. 5", lam=lam)
    if not 0 < lam < float("inf"):
        raise ValueError(f"lam={lam!r}: must be a finite number above 0, e.g. 5")
    if radius is not None:
        demand_number("e.g. 1e-5", radius=radius)
    if radius is not None and not 0 <= radius < float("inf"):
        raise ValueError(f"radius={radius!r}: must be a finite number of at least 0, e.g. 1e-5")
    check_time(time_limit)


def check_time(time_limit: float) -> None:
    demand_number("e.g. 60 seconds", time_limit=time_limit)
    if not time_limit > 0:
        raise ValueError(f"time_limit={time_limit!r}: must be above 0 seconds, e.g. 60")


def check_images(images: Tensor, labels: Tensor, of: str = "") -> None:
    """Raise ValueError unless there are images of finite numbers and a whole number for each; `of` begins their names."""
    if len(images) == 0 or not bool(torch.isfinite(images).all()):
        raise ValueError(f"{of}images of shape {tuple(images.shape)}: there must be one or more, of finite numbers only")
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise ValueError(f"{of}labels: {labels.dtype} {tuple(labels.shape)}; must be whole numbers of shape ({len(images)},)")


def _images(chain: Chain, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    x, y = images.detach().cpu().double(), labels.detach().cpu().long()
    made = x
    for op in chain.operations:
        made = made if isinstance(op, Score) else op(made)
    classes = made.shape[1]
    if not bool(torch.isfinite(made).all()):
        raise ValueError("model: its outputs are not finite numbers; train with a lower learning rate")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"labels: from {int(y.min())} to {int(y.max())}; the network has the classes 0 to {classes - 1}")
    return x, y
