"""What the agent is compared with: searches over masks that learn nothing, at the same budget and number of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphprune.rl.game import Game
from graphprune.runs import runtime
from graphprune.runs.checks import at_least


@dataclass(frozen=True, eq=False)
class Found:
    """A search's result.

    Attributes:
        kept: (num_atoms,) bool, the best on validation of all that were evaluated; within the budget.
        performance: its share of correct validation images.
        curve: (evaluations,) float64, the best share so far after each evaluation.
    """

    kept: Tensor
    performance: float
    curve: Tensor


def best_of(game: Game, kept: Tensor) -> Found:
    """The best of given masks, ties broken by the loss. kept: (n, num_atoms) bool, n at least 1, all within the budget.

    Raises:
        ValueError: a mask misses the budget, or there is none.
    """
    if not len(kept):
        raise ValueError("kept: has no mask; give at least 1, e.g. those of Budget.fit")
    if bool((game.excess(kept) > 0).any()):
        raise ValueError(f"kept: a mask costs more than share={game.budget.share} of the {game.budget.of}; see Budget.fit")
    found = game.evaluator(kept)
    accuracy, loss = found.accuracy, found.loss
    best = min(range(len(kept)), key=lambda index: (-accuracy[index].item(), loss[index].item()))
    return Found(kept[best], accuracy[best].item(), accuracy.cummax(0).values)


def random_masks(game: Game, evaluations: int, seed: int) -> Found:
    """The best of random masks: channels dropped in random order until the budget is met.

    Args:
        evaluations: masks drawn, at least 1.
        seed: which.
    """
    at_least(1, evaluations=evaluations)
    generator = runtime.seed_generator(seed, "random masks")
    return best_of(game, game.budget.fit(torch.rand(evaluations, game.graph.num_atoms, generator=generator)))


def random_ratios(game: Game, evaluations: int, seed: int) -> Found:
    """The best of random shares for the groups, in each of them the smallest L1 norms first, at the budget.

    Args:
        evaluations: masks drawn, at least 1.
        seed: which.
    """
    at_least(1, evaluations=evaluations)
    generator = runtime.seed_generator(seed, "random ratios")
    ratios = torch.rand(evaluations, len(game.graph.groups), generator=generator).double()
    return best_of(game, game.budget.fit(game.places - ratios[:, game.graph.owner]))


def hill_climbing(game: Game, evaluations: int, seed: int, *, start: Tensor | None = None) -> Found:
    """From a mask, flip a few bits at a time, and stay wherever it is no worse.

    Each bit flips with probability 2 / num_atoms, at least one does; where that misses the budget random kept channels go,
    and where it leaves room random dropped ones come back, so that every mask stands at the budget.

    Args:
        evaluations: masks tried, the first one included.
        seed: of all that is random.
        start: (num_atoms,) bool, the first mask tried, within the budget; a random one unless given.

    Raises:
        ValueError: a number out of its range, or a start that misses the budget.
    """
    at_least(1, evaluations=evaluations)
    generator, size = runtime.seed_generator(seed, "hill climbing"), game.graph.num_atoms
    here = game.budget.fit(torch.rand(1, size, generator=generator)) if start is None else start[None]
    if float(game.excess(here)) > 0:
        raise ValueError(f"start: costs more than share={game.budget.share} of the {game.budget.of}; see Budget.fit")
    found = game.evaluator(here)
    best, curve = (found.accuracy.item(), -found.loss.item()), [found.accuracy.item()]
    for _ in range(evaluations - 1):
        flip = _flip(size, generator)
        changed = (here ^ flip).double() + 2.0 * (flip & ~here)  # what just came stays
        there = game.budget.fit(changed - 2.0 * (flip & here) + 0.5 * torch.rand(1, size, generator=generator))
        found = game.evaluator(there)
        if (result := (found.accuracy.item(), -found.loss.item())) >= best:
            here, best = there, result
        curve.append(best[0])
    return Found(here[0], best[0], torch.tensor(curve, dtype=torch.float64))


def climb_from_ratios(game: Game, evaluations: int, seed: int, draws: int = 8) -> Found:
    """The best of a few random shares for the groups, as in `random_ratios`, and hill climbing from it.

    Args:
        evaluations: masks judged in all, the draws included.
        seed: of all that is random.
        draws: shares drawn first, at least 1; no more than `evaluations` are.
    """
    at_least(1, evaluations=evaluations, draws=draws)
    first = random_ratios(game, min(draws, evaluations), seed)
    climbed = hill_climbing(game, evaluations - len(first.curve) + 1, seed, start=first.kept)  # its start is known already
    return Found(climbed.kept, climbed.performance, torch.cat([first.curve, climbed.curve[1:]]))


def free_climbing(game: Game, evaluations: int, seed: int) -> Found:
    """From the whole network, flip a few bits at a time and put nothing right: the budget is met by the climb or not at all.

    While the budget is missed a mask of lower cost is the better one; of those within it the more accurate one is.

    Args:
        evaluations: masks tried, the whole network included.
        seed: of all that is random.

    Returns:
        What it ends at, which may miss the budget. The curve, and the performance, are 0 as long as the budget is missed.
    """
    at_least(1, evaluations=evaluations)
    generator, size = runtime.seed_generator(seed, "free climbing"), game.graph.num_atoms
    here = torch.ones(1, size, dtype=torch.bool)
    best, curve = _standing(game, here), []
    for _ in range(evaluations - 1):
        curve.append(max(best[1], 0.0))
        there = game.never_empty(here ^ _flip(size, generator))
        if (result := _standing(game, there)) >= best:
            here, best = there, result
    curve.append(max(best[1], 0.0))
    return Found(here[0], curve[-1], torch.tensor(curve, dtype=torch.float64))


def _flip(size: int, generator: torch.Generator) -> Tensor:
    """(1, size) bool: which bits to flip, two on average and at least one."""
    flip = torch.rand(1, size, generator=generator) < 2.0 / size
    flip[0, torch.randint(size, (1,), generator=generator)] = True
    return flip


def _standing(game: Game, kept: Tensor) -> tuple[float, float, float]:
    """(less excess, accuracy, -loss) of one mask, (1, num_atoms); a mask over the budget has no accuracy."""
    excess, found = max(0.0, float(game.excess(kept))), game.evaluator(kept)
    return (0.0, found.accuracy.item(), -found.loss.item()) if excess == 0 else (-excess, -1.0, 0.0)
