"""The picture of one decision of the agent."""

import pytest
import torch

from graphprune import data
from graphprune.report import mask_figure
from graphprune.rl import agent, world
from graphprune.rl.policy import Settings


@pytest.fixture(scope="module")
def played():
    here = world.make(["mlp"], data.load("digits", device="cpu"), 2, seed=0, width=3, steps=20)
    return agent.learn(here, Settings(evaluations=64, pairs=4, hidden=8), [2, 3]), here


def test_chances_add_up_to_the_budget_and_the_draw_spends_it(played):
    policy, here = played
    chance, mask = mask_figure.decide(policy, here, 1, 3, 0)
    assert chance.sum().item() == pytest.approx(3, abs=1e-4)
    assert int(here.masks[mask].sum()) == 3
    often = torch.stack([here.masks[mask_figure.decide(policy, here, 1, 3, number)[1]] for number in range(400)]).mean(0)
    assert (often - chance).abs().max() < 0.12


def test_the_picture_says_the_regret_and_the_reward_of_the_mask(played):
    policy, here = played
    _, mask = mask_figure.decide(policy, here, 0, 3, 5)
    one = here.take([0])
    regret = one.regret(torch.tensor([mask]), one.allowed(3))
    title = mask_figure.draw(policy, here, 0, 3, 5).axes[1].get_title()
    assert title.endswith(f"regret {regret.item():.1f} points")
    assert title.startswith("reward beside the average: ")


def test_moving_a_slider_draws_anew(played, watch, monkeypatch):
    shown = watch(mask_figure)
    mask_figure.show(*played, budget=3)
    shown[0].children[2].value = 1
    assert shown[1].startswith(b"\x89PNG")
    monkeypatch.setattr(mask_figure, "is_interactive", lambda: False)
    mask_figure.show(*played, budget=3)
    assert len(shown) == 2


def test_what_is_not_there_is_named(played):
    with pytest.raises(ValueError, match=r"network=2: must be 0 \.\. 1"):
        mask_figure.draw(*played, 2, 3, 0)
    with pytest.raises(ValueError, match=r"budget=7: must be 2 \.\. 6"):
        mask_figure.draw(*played, 0, 7, 0)
