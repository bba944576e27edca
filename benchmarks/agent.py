"""Seconds of an episode against the goal, and of the agent's update against the judging that any search pays for.

ResNet-8 on 8x8 digits, half of the multiply-adds, 300 validation and 128 calibration images: an episode that an outside agent
plays in `PruningEnv` (six decisions and the network left), and an update of the default agent (its masks drawn and judged, and
what it learns from them) beside the judging alone. Random weights, for they
change no time; one thread, processor seconds. `make bench` gathers the rows.
"""

from __future__ import annotations

import torch
from timing import Row, row, seconds

from graphprune import data, models
from graphprune.agent import Settings, train
from graphprune.environment import PruningEnv
from graphprune.graph.groups import trace

GOAL, REPEATS, UPDATES = 0.5, 7, 4


def rows() -> list[Row]:
    torch.set_num_threads(1)
    digits = data.load("digits", device="cpu")
    net = models.seeded("resnet8", 0, in_channels=1).eval()
    env, settings = PruningEnv(net, trace(net, digits.example()), digits, 0.5), Settings()
    env.action_space.seed(0)

    def episode() -> None:
        env.reset()
        done = False
        while not done:
            done = env.step(env.action_space.sample())[2]

    def updates() -> None:
        train(env.game, Settings(evaluations=UPDATES * settings.episodes + 1))

    def judged() -> None:
        kept = torch.rand(settings.episodes, env.game.graph.num_atoms)
        env.game.evaluator(env.game.budget.fit(kept))

    size = f"{settings.episodes} networks"
    update = [spent / UPDATES for spent in seconds(updates, 3)]
    return [
        row("an episode of PruningEnv, resnet8 on digits", "s", seconds(episode, REPEATS), "goal", [GOAL]),
        row(f"an update of the agent, {size}", "s", update, f"only {size} judged", seconds(judged, REPEATS)),
    ]


if __name__ == "__main__":
    for line in rows():
        print(line)
