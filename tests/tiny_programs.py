"""Networks of hand size, and programs solved by another way: every pattern of gates as a linear program of its own."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.neurons import bounds, program, read, replay, rows, solver


def fc(seed: int, *sizes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers[:-1])
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
    return net


def conv(seed: int, pool: nn.Module) -> nn.Sequential:
    """A convolution with BN and ReLU, a pooling, a convolution, a ReLU and a linear layer, for images of 1 x 5 x 5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), pool, nn.Conv2d(2, 3, 2), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3, 2))
        nn.init.normal_(net[1].weight)
        nn.init.normal_(net[1].running_mean)
    return net.eval()


def images(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Parts:
    """The steps of `scores`, one by one."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, which: str, lam: float, radius: float) -> None:
        self.chain = read(model, x, which)
        self.x, self.y, self.lam = x.double(), y, lam
        self.bounds = bounds.propagate(self.chain, self.x, radius, which)
        self.program = program.build(self.chain, self.bounds, self.x, y, lam, which)

    def objective(self, s: list[Tensor]) -> float:
        return float(replay.objective(self.chain, self.bounds, self.x, self.y, s, self.lam))

    def start(self) -> tuple[list[Tensor], np.ndarray]:
        ones = replay.ones(self.chain)
        return ones, program.point(self.program, self.chain, self.bounds, self.x, ones)

    def solve(self, **options: object) -> solver.Solution:
        return solver.solve(self.program, self.objective, self.start(), self.lam, 60.0, **options)  # type: ignore[arg-type]

    def enumerate(self) -> float:
        """The least bound over all patterns of the binary columns, each pattern fixed and solved without gates."""
        best, whole = np.inf, self.program.whole
        for pattern in itertools.product((0.0, 1.0), repeat=len(whole)):
            try:
                best = min(best, self._fixed(dict(zip(whole.tolist(), pattern, strict=True))))
            except RuntimeError:  # this pattern leaves no point
                continue
        return best

    def _fixed(self, values: dict[int, float]) -> float:
        fixed = rows.Rows()
        fixed.__dict__.update(self.program.rows.__dict__)
        lower, upper, cost, _ = (part.copy() for part in self.program.rows.bounds())
        for column, value in values.items():
            lower[column] = upper[column] = value
        fixed._bounds = [(lower, upper, cost, np.zeros_like(cost))]
        about = {**vars(self.program), "rows": fixed}
        start = (self.start()[0], self.start()[1])
        return solver.solve(program.Program(**about), lambda s: np.inf, start, self.lam, 60.0).bound
