"""A graph agent that learns which channels to drop: GATv2 encoder, a bit a channel, PPO; to be read from top to bottom.

    1 settings   2 the network that decides   3 two kinds of decisions   4 an episode   5 the update   6 the training

Source: the graph RL pruner (arXiv 2509.10526: GAT encoder, binary actions, self-competition), whose sizes and code are not
public; sizes and the five points below are our reading. PPO: Schulman et al. 2017; its details follow CleanRL's `ppo.py`.

1. An episode begins at the best network found so far (the first ones at the whole network) and walks over it once more: the
   agent competes with its own best by changing it. Policies that build each mask anew learn, too, but their noise of a bit
   a channel costs more accuracy than hundreds of episodes win back.
2. A step decides dozens of channels at once. The policy's ratio is clipped for each channel by itself: the ratio of their
   joint probability would leave the clip's range after the smallest step.
3. All logits are shifted by one number, found by bisection at each step, so that the cost to be expected at the walk's end
   stands a little below the budget: *where* to cut is learned, *how much* in all is not. Without it the shared weights
   swing the whole network's size from update to update, and nothing else is learned.
4. An episode is judged at the budget, whatever its decisions cost (see `environment`): the channels that come and go are
   those nearest to the threshold.
5. The policy's own mask, from the whole network on, keeps the shares of the groups that it expects, and in each group the
   likeliest channels. A threshold on the logits would empty whole groups while all probabilities are still alike.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal

from graphprune import artifacts, runtime
from graphprune.checkpoint import packed, read, unpacked, write
from graphprune.environment import Game, Position
from graphprune.rewards import Memory, Reward, SelfCompetition

runtime.import_pyg()

from torch_geometric.nn import GATv2Conv  # noqa: E402 (after its warning is dealt with)

# --- 1 settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How the agent learns.

    Args:
        evaluations: networks judged in all; the agent's cost, equal to its rivals'.
        episodes: networks judged in an update: the policy's own mask, and the episodes it learns from. The last update has
            what is left of `evaluations`; if that is one network, it is the policy's own mask and nothing is learned.
        epochs: passes over those episodes; 0 learns nothing and only tries changes (an ablation).
        minibatches: parts of a pass, an optimizer step each.
        lr: Adam's learning rate at first.
        anneal: evaluations over which the learning rate falls linearly towards 0; after them it stays what it was in their
            last update. It does not depend on `evaluations`, so that a training can be extended.
        clip, gae_lambda, value, max_norm: PPO's, as in CleanRL; nothing is discounted.
        hidden: channels of the encoder, over all its heads.
        layers: graph attention layers; 0 looks at no neighbour (an MLP on each channel by itself: the ablation).
        heads: attention heads.
        hold: the logit, at first, of leaving a channel as it is: 3 changes one in 20.
        slack: share of the cost that the policy is expected to stay below the budget by.
        actions: "channels", a bit each (the paper), or "ratios", one for each group (AMC, GNN-RL).

    Raises:
        ValueError: a value out of its range.
    """

    evaluations: int = 512
    episodes: int = 8
    epochs: int = 2
    minibatches: int = 4
    lr: float = 1e-2
    anneal: int = 512
    clip: float = 0.5
    gae_lambda: float = 0.95
    value: float = 0.5
    max_norm: float = 0.5
    hidden: int = 16
    layers: int = 2
    heads: int = 2
    hold: float = 3.0
    slack: float = 0.02
    actions: Literal["channels", "ratios"] = "channels"

    def __post_init__(self) -> None:
        least_of = {"episodes": 3, "epochs": 0, "minibatches": 1, "anneal": 1, "hidden": 1, "heads": 1, "layers": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name in ("lr", "clip", "max_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda={self.gae_lambda}: must be 0 .. 1")
        if not self.value >= 0:
            raise ValueError(f"value={self.value}: must be at least 0")
        if not abs(self.hold) < float("inf"):
            raise ValueError(f"hold={self.hold}: must be a finite number, e.g. 3")
        if self.evaluations < self.episodes:
            raise ValueError(f"evaluations={self.evaluations}: must be at least episodes={self.episodes}, for one update")
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden}: must be a multiple of heads={self.heads}")
        if not 0 <= self.slack < 1:
            raise ValueError(f"slack={self.slack}: must be at least 0 and below 1")
        if self.actions not in ("channels", "ratios"):
            raise ValueError(f"actions={self.actions!r}: must be 'channels' or 'ratios'")

    @property
    def updates(self) -> int:
        """How many, the last one of fewer networks where `episodes` does not divide `evaluations`."""
        return -(-self.evaluations // self.episodes)

    def rate(self, judged: int) -> float:
        """The learning rate of the update before which so many networks were judged."""
        return self.lr * (1 - min(judged, max(0, self.anneal - self.episodes)) / self.anneal)


# --- 2 the network that decides ---------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Channels -> embeddings: a linear layer, then residual GATv2 layers (Brody et al. 2022, eq. 7) along the data flow."""

    def __init__(self, features: int, edge_features: int, hidden: int, layers: int, heads: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.attend = nn.ModuleList(
            GATv2Conv(hidden, hidden // heads, heads=heads, edge_dim=edge_features) for _ in range(layers)
        )
        self.mix = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(max(1, layers)))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """x (B, N, F), edge_index (2, E), edge_attr (E, D) -> (B, N, hidden)."""
        h, (batch, nodes, _) = self.first(x), x.shape
        if not len(self.attend):
            return h + self.mix[0](h)
        starts = nodes * torch.arange(batch)
        edges, attr = (edge_index[:, None] + starts[:, None]).flatten(1), edge_attr.repeat(batch, 1)
        for attend, mix in zip(self.attend, self.mix, strict=True):
            h = h + mix(torch.relu(attend(h.flatten(0, 1), edges, attr).view_as(h)))
        return h


class Policy(nn.Module):
    """Encoder, a logit of keeping for each decision, and the value of the position from the mean over all nodes.

    It knows no network: what it has learned on one game it can play on another. It lives on the CPU.
    """

    def __init__(self, features: int, edge_features: int, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(features, edge_features, settings.hidden, settings.layers, settings.heads)
        self.decide, self.judge = nn.Linear(settings.hidden, 1), nn.Linear(settings.hidden, 1)
        self.hold = nn.Parameter(torch.tensor(settings.hold))
        self.log_std = nn.Parameter(torch.tensor(-2.0))  # of a ratio
        nn.init.normal_(self.decide.weight, std=settings.hidden**-0.5)  # logits of order 1: opinions to begin with
        nn.init.zeros_(self.decide.bias)

    def forward(self, game: Game, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, F) -> logits of keeping (B, decisions), values (B,).

        A logit is what the encoder thinks of the channel, or of the group, and what it is now.
        """
        h = self.encoder(x, game.observation.edge_index, game.observation.edge_attr)
        channels, value = h[:, : game.graph.num_atoms], self.judge(h.mean(1)).squeeze(1)
        kept = x[:, : game.graph.num_atoms, game.observation.x.shape[1]]
        if self.settings.actions == "channels":
            return self.decide(channels).squeeze(2) + self.hold * (2 * kept - 1), value
        groups, share = game.group_means(channels), game.group_means(kept[..., None]).squeeze(2)
        return self.decide(groups).squeeze(2) + share.clamp(0.02, 0.98).logit(), value


# --- 3 two kinds of decisions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Channels:
    """A bit for each channel, 1 = keep: the paper's."""

    game: Game

    @property
    def stages(self) -> Tensor:
        """(steps, decisions) bool: what is decided when."""
        return self.game.stages

    def choice(self, logits: Tensor, _std: Tensor) -> Distribution:
        return Bernoulli(logits=logits, validate_args=False)

    def draw(self, logits: Tensor, _std: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, decisions), the masks they mean and the order in which channels would come and go (B, num_atoms).

        logit + logistic noise > 0 has the Bernoulli's probability, and says how close the draw was.
        """
        perturbed = logits + torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6).logit()
        return (perturbed > 0).float(), perturbed > 0, perturbed

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, num_atoms): of keeping each channel."""
        return logits.sigmoid()

    def order(self, logits: Tensor) -> Tensor:
        """(B, num_atoms): a channel's place in its group by its logit, less the share of the group expected to go."""
        order = torch.empty_like(logits)
        for span in self.game.graph.slices.values():
            place = logits[:, span].argsort(dim=1, stable=True).argsort(dim=1) / (span.stop - span.start)
            order[:, span] = place - (-logits[:, span]).sigmoid().mean(1, keepdim=True)
        return order


@dataclass(frozen=True, eq=False)
class Ratios:
    """A share to drop for each group, smallest L1 norms first: the ancestor's."""

    game: Game

    @property
    def stages(self) -> Tensor:
        first = torch.tensor([span.start for span in self.game.graph.slices.values()])
        return self.game.stages[:, first]

    def choice(self, logits: Tensor, std: Tensor) -> Distribution:
        return Normal((-logits).sigmoid(), std, validate_args=False)

    def draw(self, logits: Tensor, std: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        ratios = (-logits).sigmoid() + std * torch.randn(logits.shape, generator=generator)
        return ratios, self.game.by_ratios(ratios), self.game.places - ratios[:, self.game.budget.group]

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()[:, self.game.budget.group]

    def order(self, logits: Tensor) -> Tensor:
        return self.game.places - (-logits).sigmoid()[:, self.game.budget.group]


def decisions(game: Game, policy: Policy) -> Channels | Ratios:
    return Channels(game) if policy.settings.actions == "channels" else Ratios(game)


def shift(game: Game, kind: Channels | Ratios, logits: Tensor, position: Position, slack: float) -> Tensor:
    """What to add to all logits, (B, decisions), so that the cost to be expected at the walk's end is share - slack: (B, 1).

    What is decided in this walk stands; the rest will go by the probabilities of now.
    """
    if not bool(logits.isfinite().all()):
        raise FloatingPointError("the policy's logits are not finite numbers; lower settings.lr")
    decided, low = game.decided(position), torch.full((len(logits), 1), -30.0)
    high, target = -low, game.budget.share - slack
    for _ in range(30):
        middle = (low + high) / 2
        expected = torch.where(decided, position.kept.float(), kind.probabilities(logits + middle))
        counts = game.group_means(expected[..., None]).squeeze(2) * game.sizes
        above = (game.budget.shares_of_counts(counts) > target)[:, None]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


# --- 4 an episode -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rollout:
    """B episodes of T steps."""

    x: Tensor  # (T, B, N, F) what was seen
    actions: Tensor  # (T, B, decisions)
    log_probs: Tensor  # (T, B, decisions)
    values: Tensor  # (T, B)
    shift: Tensor  # (T, B, 1), of the logits
    excess: Tensor  # (B,) of what was decided
    settled: Tensor  # (B, num_atoms) bool, what is judged
    entropy: float  # nats a decision


@torch.no_grad()
def play(game: Game, policy: Policy, kept: Tensor, episodes: int, generator: torch.Generator) -> Rollout:
    """Play episodes side by side from one mask on, (num_atoms,) bool, each decision drawn from the policy."""
    kind, position, std = decisions(game, policy), game.start(episodes, kept), policy.log_std.exp()
    order = torch.zeros(episodes, game.graph.num_atoms)
    told: list[tuple[Tensor, ...]] = []
    entropies = []
    for stage, decided in zip(game.stages, kind.stages, strict=True):
        x = game.features(position)
        logits, value = policy(game, x)
        moved = shift(game, kind, logits, position, policy.settings.slack)
        choice = kind.choice(logits + moved, std)
        action, keep, by = kind.draw(logits + moved, std, generator)
        position, order = game.play(position, keep), torch.where(stage, by.float(), order)
        told.append((x, action, choice.log_prob(action), value, moved))
        entropies.append(choice.entropy().expand_as(action)[:, decided].mean().item())
    settled, entropy = game.settle(position.kept, order), sum(entropies) / len(entropies)
    x, actions, log_probs, values, moves = (torch.stack(record) for record in zip(*told, strict=True))
    return Rollout(x, actions, log_probs, values, moves, game.excess(position.kept), settled, entropy)


@torch.no_grad()
def decide(game: Game, policy: Policy) -> tuple[Tensor, Tensor]:
    """The policy's own mask: an episode from the whole network on, without chance; at the budget, no group left empty.

    Returns:
        kept (num_atoms,) bool, and the probability that the policy gave to keeping each channel, (num_atoms,).
    """
    kind, position = decisions(game, policy), game.start(1)
    order, probabilities = torch.zeros(2, 1, game.graph.num_atoms)
    for stage in game.stages:
        logits, _ = policy(game, game.features(position))
        moved = shift(game, kind, logits, position, policy.settings.slack)
        by = kind.order(logits + moved)
        position, order = game.play(position, by >= 0), torch.where(stage, by.float(), order)
        probabilities = torch.where(stage, kind.probabilities(logits + moved), probabilities)
    return game.budget.fit(order)[0], probabilities[0]


# --- 5 the update -----------------------------------------------------------------------------------------------------


def advantages(values: Tensor, rewards: Tensor, gae_lambda: float) -> Tensor:
    """Generalised advantages (Schulman et al. 2016, eq. 16), undiscounted, of episodes rewarded at their end.

    values (T, B), rewards (B,) -> (T, B).

    >>> advantages(torch.zeros(3, 1), torch.ones(1), 0.5).flatten().tolist()
    [0.25, 0.5, 1.0]
    """
    following = torch.cat([values[1:], rewards[None]])
    found, ahead = torch.zeros_like(values), torch.zeros_like(rewards)
    for step in reversed(range(len(values))):
        found[step] = ahead = following[step] - values[step] + gae_lambda * ahead
    return found


def learn(
    game: Game,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    rewards: Tensor,
    generator: torch.Generator,
) -> None:
    """One PPO update.

    Raises:
        FloatingPointError: the loss or a gradient is no longer a finite number.
    """
    settings, kind = policy.settings, decisions(game, policy)
    gains = advantages(rollout.values, rewards, settings.gae_lambda)
    returns, gains = (gains + rollout.values).flatten(), gains.flatten()  # signs already: nothing to normalise
    x, actions, log_probs, moved = (
        part.flatten(0, 1) for part in (rollout.x, rollout.actions, rollout.log_probs, rollout.shift)
    )
    decided = kind.stages.repeat_interleave(rollout.values.shape[1], 0)  # (T B, decisions)
    for _ in range(settings.epochs):
        for part in torch.randperm(len(x), generator=generator).chunk(settings.minibatches):
            logits, value = policy(game, x[part])
            choice = kind.choice(logits + moved[part], policy.log_std.exp())
            ratio, gain = (choice.log_prob(actions[part]) - log_probs[part]).exp(), gains[part, None]
            surrogate = torch.minimum(gain * ratio, gain * ratio.clamp(1 - settings.clip, 1 + settings.clip))
            loss = settings.value * (value - returns[part]).square().mean() - (surrogate * decided[part]).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(policy.parameters(), settings.max_norm)
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                found = f"loss {loss.item()}, norm of the gradient {norm.item()}"
                raise FloatingPointError(f"{found}; lower settings.lr={settings.lr}")
            optimizer.step()


# --- 6 the training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trained:
    """What the agent learned.

    Attributes:
        policy: what it ends up with.
        kept: (num_atoms,) bool, the best on validation of all networks it had judged; within the budget. `game.prune(kept)`
            is that network.
        performance: its share of correct validation images.
        probabilities: (num_atoms,) of keeping each channel, by the final policy.
        history: a row an update: `update`, `evaluations` so far; over its episodes the means `reward`, `performance`,
            `excess`, `entropy` (nats a decision) and `feasible`, the share whose decisions were within the budget;
            `own`, the performance of the policy's own mask before the update, and `best` so far. The means are NaN where a
            last update of one network has no episode.
    """

    policy: Policy
    kept: Tensor
    performance: float
    probabilities: Tensor
    history: pd.DataFrame


@dataclass
class _State:
    """All that a training goes on from."""

    policy: Policy
    optimizer: torch.optim.Adam
    generator: torch.Generator
    memory: Memory
    kept: Tensor
    best: tuple[float, float] = (-1.0, 0.0)  # accuracy, -loss
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """Networks judged so far."""
        return int(self.history[-1]["evaluations"]) if self.history else 0

    def packed(self) -> dict[str, Any]:
        learned = {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}
        told = {"memory": dict(self.memory), "kept": self.kept, "best": list(self.best), "history": list(self.history)}
        return copy.deepcopy(learned | told | {"random": self.generator.get_state()})

    def restore(self, stored: dict[str, Any]) -> None:
        self.policy.load_state_dict(stored["policy"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.generator.set_state(stored["random"])
        self.memory, self.kept, self.history = stored["memory"], stored["kept"], stored["history"]
        self.best = (stored["best"][0], stored["best"][1])


def train(
    game: Game,
    settings: Settings | None = None,
    *,
    reward: Reward | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 4,
) -> Trained:
    """Train an agent on a game; the same seed gives the same bits.

    Args:
        settings: how; `Settings()` unless given.
        reward: what an episode is worth; self-competition unless given.
        seed: of the policy's first weights and of every draw.
        checkpoint: where to store the state every few updates and at the end, and to go on from if it is there. The file
            is kept. A training that is done goes on from it, too, when more `settings.evaluations` are asked: the result is
            then, bit for bit, that of a training of so many from the beginning.
        every: how many updates, at least 1.

    Raises:
        FloatingPointError: a reward or a gradient is not a finite number; the episodes are named.
        ValueError: `checkpoint` holds another training or a longer one, or `every` is below 1.

    >>> model = graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    >>> digits = graphprune.data.load("digits")
    >>> rules = graphprune.environment.game(model, graphprune.trace(model, digits.example()), digits, 0.5)
    >>> trained = train(rules, Settings(evaluations=16))
    >>> small = rules.prune(trained.kept)
    """
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1")
    settings, reward = settings or Settings(), reward or SelfCompetition()
    state = _begin(game, settings, reward, seed)
    store = None if checkpoint is None else _Store(Path(checkpoint), artifacts.digest(_known(game, settings, reward, seed)))
    if store is not None:
        store.restore(state, settings)
    for _ in runtime.progress(range(len(state.history), settings.updates), "agent"):
        size = min(settings.episodes, settings.evaluations - state.judged)
        if store is not None and size < settings.episodes:
            store.whole = state.packed()
        for group in state.optimizer.param_groups:
            group["lr"] = settings.rate(state.judged)
        try:
            _update(game, state, reward, size)
        except FloatingPointError as error:
            raise FloatingPointError(f"episodes {state.judged + 1} to {state.judged + size}: {error}") from error
        if store is not None and (len(state.history) % every == 0 or len(state.history) == settings.updates):
            store.save(state)
    _, probabilities = decide(game, state.policy)
    return Trained(state.policy, state.kept, state.best[0], probabilities, pd.DataFrame(state.history))


def _known(game: Game, settings: Settings, reward: Reward, seed: int) -> list[Any]:
    """What a training depends on, but for how long it is."""
    return [game.digest, replace(settings, evaluations=settings.episodes), reward, seed]


@dataclass
class _Store:
    """A training's state in a file.

    A last update of fewer networks ends a training; one that is extended goes on from the state before it. So both are stored.
    """

    path: Path
    known: str
    whole: dict[str, Any] | None = None  # the state before a last update of fewer networks

    def save(self, state: _State) -> None:
        write(self.path, packed({"known": self.known, "whole": self.whole, **state.packed()}))

    def restore(self, state: _State, settings: Settings) -> None:
        """Put the stored state that the training goes on from into `state`, if there is one."""
        if (content := read(self.path)) is None:
            return
        stored = unpacked(content)
        if stored.get("known") != self.known:
            raise ValueError(
                f"checkpoint={str(self.path)!r} holds another training (game, settings, reward or seed): name another"
            )
        judged = stored["history"][-1]["evaluations"]
        if stored["whole"] is not None and judged != settings.evaluations:
            stored = stored["whole"]
        if judged > settings.evaluations:
            raise ValueError(
                f"checkpoint={str(self.path)!r} holds {judged} evaluations, more than evaluations={settings.evaluations}: "
                "ask for at least as many, or name another"
            )
        state.restore(stored)


def _begin(game: Game, settings: Settings, reward: Reward, seed: int) -> _State:
    features, edge_features = game.features(game.start(1)).shape[2], game.observation.edge_attr.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(runtime.seed_generator(seed, "policy").initial_seed())
        policy = Policy(features, edge_features, settings)
    optimizer = torch.optim.Adam(policy.parameters(), lr=settings.lr, eps=1e-5)
    whole = game.start(1).kept[0]
    return _State(policy, optimizer, runtime.seed_generator(seed, "episodes"), reward.memory, whole)


def _update(game: Game, state: _State, reward: Reward, size: int) -> None:
    """Judge `size` networks, the policy's own mask and episodes; reward these, and learn from them."""
    own, _ = decide(game, state.policy)
    rollout = play(game, state.policy, state.kept, size - 1, state.generator) if size > 1 else None
    masks = own[None] if rollout is None else torch.cat([own[None], rollout.settled])
    found = game.evaluator(masks)
    _demand_finite("performance", found.accuracy)
    for kept, result in zip(masks, zip(found.accuracy.tolist(), (-found.loss).tolist(), strict=True), strict=True):
        if result > state.best:
            state.best, state.kept = result, kept.clone()
    row: dict[str, float] = {"update": len(state.history) + 1, "evaluations": state.judged + size}
    row |= dict.fromkeys(("reward", "performance", "excess", "feasible", "entropy"), float("nan"))
    if rollout is not None:
        rewards, state.memory = reward(state.memory, found.accuracy[1:], rollout.excess)
        _demand_finite("reward", rewards)
        learn(game, state.policy, state.optimizer, rollout, rewards.float(), state.generator)
        row |= {"reward": rewards.mean().item(), "performance": found.accuracy[1:].mean().item()}
        row |= {"excess": rollout.excess.mean().item(), "feasible": (rollout.excess <= 0).double().mean().item()}
        row |= {"entropy": rollout.entropy}
    state.history.append({**row, "own": found.accuracy[0].item(), "best": state.best[0]})


def _demand_finite(what: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise FloatingPointError(f"a {what} is not a finite number: {values.tolist()}")
