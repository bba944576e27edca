"""An agent that learns which channels stay: the rewards and the update of a `policy`. Read it from the top.

    1 reward and update   2 many small networks   3 one network

Source: graph RL pruning (arXiv 2509.10526: self-competition), whose code is not public; what follows is our reading. The
update is REINFORCE (Williams 1992) with the mean reward of the other masks as baseline (Kool et al. 2019).

Given the budget, the chance of a mask is exp(sum of its channels' scores) over the sum of that for all masks which spend it.
That sum is the same for all masks of one network and budget, and advantages add up to 0 there: it drops out of the gradient
and is never needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from graphprune.rl.game import Game
from graphprune.rl.policy import Policy, Settings, draw, log_chances
from graphprune.rl.world import World
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import read, write
from graphprune.runs.checks import at_least

__all__ = ["Objective", "Policy", "Reinforce", "Settings", "Trained", "learn", "regrets", "scores", "scores_of", "train"]


def __dir__() -> list[str]:
    return __all__


# --- 1 reward and update ----------------------------------------------------------------------------------------------


def advantages(performance: Tensor, past: Tensor, reward: str) -> Tensor:
    """What each mask is worth beside the others of its network and budget: (B, S) -> (B, S), rows that add up to 0.

    Args:
        performance: (B, S).
        past: (B,), the average performance on each network and budget so far; NaN where there is none yet.
        reward: "self" or "standard", see `Settings`.

    >>> import torch
    >>> advantages(torch.tensor([[0.9, 0.5, 0.5, 0.5]]), torch.tensor([0.6]), "self").tolist()
    [[1.5, -0.5, -0.5, -0.5]]
    """
    mean = performance.mean(1)
    if reward == "self":
        gain = (performance - torch.where(past.isnan(), mean, past)[:, None]).sign()
    else:
        gain = (performance - mean[:, None]) / (performance.std(1, keepdim=True) + 1e-3)
    return gain - gain.mean(1, keepdim=True)


def remember(past: Tensor, performance: Tensor, rate: float) -> Tensor:
    """The moving average after an update: past (B,), performance (B, S) -> (B,)."""
    mean = performance.mean(1)
    return torch.where(past.isnan(), mean, past + rate * (mean - past))


def surrogate(scores: Tensor, bits: Tensor, gain: Tensor) -> Tensor:
    """The loss whose gradient is REINFORCE's: scores (B, C), bits (B, S, C), gain (B, S) with rows that add up to 0."""
    return -(gain * torch.einsum("bsc,bc->bs", bits, scores)).mean()


# --- 2 many small networks --------------------------------------------------------------------------------------------

Objective = Callable[[World, Tensor, Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""(world, networks (B,), places of their budgets (B,), allowed (B, 2^C), scores (B, C), generator) -> the loss."""


class Reinforce:
    """Draw masks within the budget, reward them, and learn from the difference: the agent's objective.

    Attributes:
        past: (networks, budgets), the average performance so far; the memory that it competes with.
        regrets: points of the masks drawn below the best, a mean an update.
    """

    def __init__(self, settings: Settings, networks: int, budgets: int) -> None:
        self.settings, self.past = settings, torch.full((networks, budgets), torch.nan)
        self.regrets: list[float] = []

    def __call__(
        self, world: World, rows: Tensor, places: Tensor, allowed: Tensor, scores: Tensor, generator: torch.Generator
    ) -> Tensor:
        chances = log_chances(scores, world.masks, allowed)
        drawn = chances.detach().exp().multinomial(self.settings.episodes, replacement=True, generator=generator)
        performance = world.performance[rows[:, None], drawn]
        gain = advantages(performance, self.past[rows, places], self.settings.reward)
        self.past[rows, places] = remember(self.past[rows, places], performance, self.settings.rate)
        self.regrets.append(regrets(world, rows, allowed, drawn).mean().item())
        entropy = -(chances.exp() * chances.masked_fill(~allowed, 0)).sum(1).mean()
        return surrogate(scores, world.masks[drawn], gain) - self.settings.entropy * entropy


def regrets(world: World, rows: Tensor, allowed: Tensor, drawn: Tensor) -> Tensor:
    """Points of accuracy below the best mask allowed: rows (B,), allowed (B, 2^C), drawn (B, S) indices -> (B, S)."""
    best = world.accuracy[rows].masked_fill(~allowed, -1).amax(1, keepdim=True)
    return 100 * (best - world.accuracy[rows[:, None], drawn])


def learn(
    world: World,
    settings: Settings,
    budgets: Sequence[float],
    *,
    of: Literal["channels", "macs"] = "channels",
    seed: int = 0,
    objective: Objective | None = None,
) -> Policy:
    """Train a policy on a world's networks and budgets; the same seed gives the same bits.

    Args:
        settings: `evaluations` look-ups in all, in updates of `pairs` x `episodes`.
        budgets, of: as `World.allowed` takes them.
        seed: of the first weights and of every draw.
        objective: the loss; the agent's own, `Reinforce`, unless given.

    Raises:
        ValueError: fewer evaluations than one update takes.

    >>> import graphprune
    >>> from graphprune.rl import world
    >>> few = world.make(["mlp"], graphprune.data.load("digits"), 2, seed=0, width=3, steps=1)
    >>> policy = learn(few, Settings(evaluations=32, pairs=2, hidden=8), [2, 3])
    >>> scores(policy, few, 3).shape
    torch.Size([2, 6])
    """
    updates = settings.evaluations // (settings.pairs * settings.episodes)
    if not updates:
        raise ValueError(f"evaluations={settings.evaluations}: one update takes {settings.pairs} x {settings.episodes}")
    with runtime.seeded(runtime.seed_generator(seed, "policy").initial_seed()):
        policy = Policy(world.x.shape[2], world.pairs.shape[3], settings)
    objective = objective or Reinforce(settings, len(world), len(budgets))
    generator = runtime.seed_generator(seed, "episodes")
    allowed = torch.stack([world.allowed(budget, of) for budget in budgets])  # (budgets, n, 2^C)
    shares = torch.tensor([budget / world.channels if of == "channels" else budget for budget in budgets])
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.lr, weight_decay=1e-4)
    slope = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30) * (1 - step / updates))
    for _ in runtime.progress(range(updates), "agent"):
        rows = torch.randint(len(world), (settings.pairs,), generator=generator)
        places = torch.randint(len(budgets), (settings.pairs,), generator=generator)
        found = policy(world.x[rows], world.pairs[rows], shares[places])[:, : world.channels]
        loss = objective(world, rows, places, allowed[places, rows], found, generator)
        _step(policy, optimizer, loss, settings)
        slope.step()
    return policy


@torch.no_grad()
def scores(policy: Policy, world: World, budget: float, of: Literal["channels", "macs"] = "channels") -> Tensor:
    """What a policy says of every network of a world at a budget: (n, C). The likeliest mask is that of the largest sum."""
    share = torch.full((len(world),), budget / world.channels if of == "channels" else budget)
    return policy(world.x, world.pairs, share)[:, : world.channels]


@torch.no_grad()
def scores_of(policy: Policy, game: Game) -> Tensor:
    """What a policy says of the channels of one network at its budget: (num_atoms,)."""
    seen = game.observation
    share = torch.tensor([game.budget.share])
    return policy(seen.x[None], seen.pairs()[None], share)[0, : game.graph.num_atoms]


def _step(policy: Policy, optimizer: torch.optim.Optimizer, loss: Tensor, settings: Settings) -> None:
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    if not torch.isfinite(loss) or not torch.isfinite(norm):
        found = f"loss {loss.item()}, norm of the gradient {norm.item()}"
        raise FloatingPointError(f"{found}; lower settings.lr={settings.lr}")
    optimizer.step()


# --- 3 one network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trained:
    """What the agent learned from one network.

    Attributes:
        policy: what it ends up with.
        kept: (num_atoms,) bool, the best on validation of all masks judged; within the budget. `game.prune(kept)` is that
            network.
        performance: its share of correct validation images.
        scores: (num_atoms,), the policy's at the end.
        history: a row an update: `evaluations` so far, the means of `performance` and `reward` (its gain over the past)
            over the update's masks, and `best` so far.
    """

    policy: Policy
    kept: Tensor
    performance: float
    scores: Tensor
    history: pd.DataFrame

    def __repr__(self) -> str:
        judged = int(self.history["evaluations"].iloc[-1]) + 1  # the last is the policy's own mask
        kept = f"{int(self.kept.sum())} of {len(self.kept)} channels kept"
        return f"Trained({kept}, validation {self.performance:.4f}, {judged} networks judged)"


@dataclass
class _State:
    """All that a training goes on from."""

    policy: Policy
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    past: Tensor
    kept: Tensor
    best: tuple[float, float] = (-1.0, 0.0)  # accuracy, -loss
    history: list[dict[str, float]] = field(default_factory=list)

    def packed(self) -> dict[str, Any]:
        learned = {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict(), "past": self.past}
        told = {"kept": self.kept, "best": list(self.best), "history": list(self.history)}
        return copy.deepcopy(learned | told | {"random": self.generator.get_state()})

    def restore(self, stored: dict[str, Any]) -> None:
        self.policy.load_state_dict(stored["policy"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.generator.set_state(stored["random"])
        self.past, self.kept, self.history = stored["past"], stored["kept"], stored["history"]
        self.best = (stored["best"][0], stored["best"][1])


def train(
    game: Game,
    settings: Settings | None = None,
    *,
    policy: Policy | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 4,
) -> Trained:
    """Train an agent on one network and budget, judging real pruned networks; the same seed gives the same bits.

    Args:
        settings: how; `Settings()` unless given. Of all `evaluations` the last one is the policy's own mask.
        policy: a policy to begin with, of the same settings for its size, say one that `learn` made; a new one unless given.
        seed: of a new policy's first weights and of every draw.
        checkpoint: where to store the state every few updates and at the end, and to go on from if it is there. The file
            is kept. A training that is done goes on from it, too, when more `settings.evaluations` are asked: the result is
            then, bit for bit, that of a training of so many from the beginning.
        every: how many updates, at least 1.

    Raises:
        FloatingPointError: a performance or a gradient is not a finite number.
        ValueError: `checkpoint` holds another training or a longer one, or `every` is below 1.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> game = graphprune.environment.game(model, graph, graphprune.data.load("digits"), 0.5)
    >>> trained = train(game, Settings(evaluations=8, episodes=4, hidden=4))
    >>> small = graphprune.prune(model, graph, graph.unflatten(trained.kept))
    >>> graphprune.cost(small, torch.zeros(1, 1, 8, 8)).macs <= 0.5 * 18_462
    True
    """
    at_least(1, every=every)
    settings = settings or Settings()
    state = _begin(game, settings, policy, seed)
    known = [game.digest, replace(settings, evaluations=settings.episodes), store.digest(state.policy.state_dict()), seed]
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None:
        _restore(file, store.digest(known), state, settings)
    seen = (game.observation.x[None], game.observation.pairs()[None], torch.tensor([game.budget.share]))
    full = (settings.evaluations - 1) // settings.episodes
    for update in runtime.progress(range(len(state.history), full), "agent"):
        _update(game, state, seen, settings, settings.episodes)
        if file is not None and ((update + 1) % every == 0 or update + 1 == full):
            write(file, {"known": store.digest(known), **state.packed()})
    if rest := settings.evaluations - 1 - full * settings.episodes:
        _update(game, state, seen, settings, rest)
    final = scores_of(state.policy, game)
    _judge(game, state, game.budget.fit(final[None]))
    return Trained(state.policy, state.kept, state.best[0], final, pd.DataFrame(state.history))


def _begin(game: Game, settings: Settings, policy: Policy | None, seed: int) -> _State:
    seen = game.observation
    if policy is None:
        with runtime.seeded(runtime.seed_generator(seed, "policy").initial_seed()):
            policy = Policy(seen.x.shape[1], seen.pairs().shape[2], settings)
    else:
        policy = copy.deepcopy(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.lr, weight_decay=1e-4)
    whole = torch.ones(game.graph.num_atoms, dtype=torch.bool)
    return _State(policy, optimizer, runtime.seed_generator(seed, "episodes"), torch.tensor([torch.nan]), whole)


def _restore(file: Path, known: str, state: _State, settings: Settings) -> None:
    """Put the stored state into `state`, if there is one."""
    if (stored := read(file)) is None:
        return
    if stored.get("known") != known:
        raise ValueError(f"checkpoint={str(file)!r} holds another training (game, settings, policy or seed): name another")
    judged = stored["history"][-1]["evaluations"]
    if judged > settings.evaluations:
        raise ValueError(
            f"checkpoint={str(file)!r} holds {judged} evaluations, more than evaluations={settings.evaluations}: "
            "ask for at least as many, or name another"
        )
    state.restore(stored)


def _update(game: Game, state: _State, seen: tuple[Tensor, Tensor, Tensor], settings: Settings, size: int) -> None:
    """Judge `size` masks, and learn from them if there are two."""
    found = state.policy(*seen)[0, : game.graph.num_atoms]
    masks = draw(game.budget, found.detach(), size, state.generator)
    performance = _judge(game, state, masks)[None]
    gain = advantages(performance, state.past, settings.reward)
    reward = (performance - torch.where(state.past.isnan(), performance.mean(1), state.past)[:, None]).mean().item()
    state.past = remember(state.past, performance, settings.rate)
    if size > 1:
        chance = found.sigmoid()
        entropy = torch.distributions.Bernoulli(chance, validate_args=False).entropy().sum()
        _step(
            state.policy,
            state.optimizer,
            surrogate(found[None], masks[None].float(), gain) - settings.entropy * entropy,
            settings,
        )
    judged = (state.history[-1]["evaluations"] if state.history else 0) + size
    state.history.append(
        {"evaluations": judged, "performance": performance.mean().item(), "reward": reward, "best": state.best[0]}
    )


def _judge(game: Game, state: _State, masks: Tensor) -> Tensor:
    """Performance of masks, (B,) float32; the best is remembered."""
    found = game.evaluator(masks)
    performance = (found.accuracy - 0.1 * found.loss).float()
    if not bool(performance.isfinite().all()):
        raise FloatingPointError(f"a performance is not a finite number: {performance.tolist()}")
    for kept, result in zip(masks, zip(found.accuracy.tolist(), (-found.loss).tolist(), strict=True), strict=True):
        if result > state.best:
            state.best, state.kept = result, kept.clone()
    return performance
