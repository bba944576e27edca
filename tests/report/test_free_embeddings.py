"""Embeddings that go freely down a contrastive loss, and the menus that choose it."""

from typing import Any

import pytest
import torch

from graphprune import contrast
from graphprune.encoders import readings
from graphprune.report import free_embeddings

LOSSES = {"printed": contrast.loss_printed, "repel own": contrast.loss_repel_own, "joint": readings.loss_joint}


@pytest.mark.parametrize("name", ["printed", "joint"])
def test_one_anchor_and_attracted_negatives_make_all_rows_equally_similar(name):
    ends = free_embeddings.descend(LOSSES[name], shared=True)[-1, :2]
    assert (ends.amax() - ends.amin() if name == "joint" else (ends.amax(1) - ends.amin(1)).max()) < 0.02


def test_a_repelled_negative_ends_opposite_to_the_positive():
    positive, negative, _ = free_embeddings.descend(contrast.loss_repel_own, shared=False)[-1]
    assert positive.min() > 0.9
    assert negative.max() < -0.9


def test_cosines_by_hand():
    eye = torch.eye(2)
    found = free_embeddings._cosines(eye, eye, -eye)
    assert found.tolist() == [[1, 1], [-1, -1], [0, 0]]


def test_the_same_seed_starts_at_the_same_place():
    one, two, other = (free_embeddings.descend(contrast.loss_printed, True, 4, 1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_one_row_has_no_others():
    with pytest.raises(ValueError, match="rows=1"):
        free_embeddings.descend(contrast.loss_printed, True, rows=1)


def test_choosing_in_a_menu_draws_anew(monkeypatch):
    shown: list[Any] = []

    class Picture:
        def update(self, image: Any) -> None:
            shown.append(image)

    def display(value: Any, display_id: bool = False) -> Any:
        shown.append(value)
        return Picture() if display_id else None

    monkeypatch.setattr(free_embeddings, "display", display)
    monkeypatch.setattr(free_embeddings, "is_interactive", lambda: True)
    free_embeddings.show(LOSSES)
    menus, picture = shown
    menus.children[0].value = "an anchor for each row"
    menus.children[1].value = "joint"
    assert len(shown) == 4
    assert len({image.data for image in (picture, *shown[2:])}) == 3
    assert "joint, an anchor for each row" in shown[-1]._repr_mimebundle_()[1]["image/png"]["alt"]


def test_without_a_person_there_is_one_picture(monkeypatch):
    shown: list[Any] = []
    monkeypatch.setattr(free_embeddings, "display", lambda value, display_id=False: shown.append(value))
    free_embeddings.show(LOSSES)
    assert [image.data[:4] for image in shown] == [b"\x89PNG"]
