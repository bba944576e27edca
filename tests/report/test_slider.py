"""The slider figure: what it shows, that its sliders redraw it, and what a notebook stores of it."""

import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from graphprune.report import slider
from graphprune.report.slider import at_budget, budgets, controls, draw, rankers, show


def made_up(n: int = 120) -> pd.DataFrame:
    """A table with the committed ones' columns: two budgets, two seeds, full trainings of most under the first seed."""
    generator = np.random.default_rng(0)
    quality = generator.normal(0, 1, n)
    share = np.where(np.arange(n) % 3 == 0, 0.2, 0.4) + generator.uniform(-0.0025, 0.0025, n)
    rows = []
    for i in range(n):
        for seed in (0, 1):
            light, full = quality[i] + generator.normal(0, 0.5), quality[i] + generator.normal(0, 0.1)
            fully = seed == 0 and i % 10 != 1
            rows.append({
                "indices": np.array([i % 10, i // 10]),
                "seed": seed,
                "macs_share": share[i],
                "accuracy_val": 0.9 + light / 50,
                "loss_val": 0.3 - light / 50,
                "full_accuracy_val": 0.95 + full / 50 if fully else np.nan,
                "full_loss_val": 0.2 - full / 50 if fully else np.nan,
                "full_accuracy_test": 0.94 + quality[i] / 50 if fully else np.nan,
                "score_default": quality[i],
                "score_backwards": -quality[i],
            })  # fmt: skip
    return pd.DataFrame(rows)


TABLE = made_up()


def texts(figure) -> list[str]:
    """All that is written in a figure: titles, legends, annotations."""
    written = []
    for axes in figure.axes:
        written += [axes.get_title(), *(text.get_text() for text in axes.texts)]
        written += [text.get_text() for text in axes.get_legend().get_texts()]
    return written


def points(axes) -> list[int]:
    """How many points stand in each of the axes' collections."""
    return [len(collection.get_offsets()) for collection in axes.collections]


def png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30, metadata={"Software": None})
    return buffer.getvalue()


def test_candidates_stand_in_the_rankers_order_and_are_fully_trained():
    found = at_budget(TABLE, "default", 0.4)
    rows = TABLE[(TABLE["macs_share"] > 0.3) & TABLE["full_accuracy_test"].notna()].sort_values("score_default")
    assert found.full_test[0].tolist() == rows["full_accuracy_test"].tolist()[::-1]
    assert found.light_accuracy.shape == (2, len(rows))


def test_budgets_are_where_the_networks_are():
    found = budgets(TABLE, 41)
    assert {round(value / 0.2) for value in found} == {1, 2}
    assert max(found.values()) == 72
    assert all(len(at_budget(TABLE, "default", budget)) == near for budget, near in found.items())


def test_every_network_is_one_point_marked_by_how_far_it_came():
    left, right = draw(TABLE, "default", 0.4, 30, 5).axes
    assert points(left) == [72 - 30, 30 - 5, 5 - 1, 1]
    assert len(right.collections[0].get_offsets()) == 3
    assert left.get_title() == "72 networks at 0.4 of the MACs, ± 10%"
    assert right.get_title() == "m = 30 light, k = 5 full trainings"


def test_the_means_written_are_those_of_the_replays():
    networks = at_budget(TABLE, "default", 0.4)
    found = slider.replays(networks, [30], 5).test[:, 0, 4].mean()
    figure = draw(TABLE, "default", 0.4, 30, 5)
    assert figure.axes[1].texts[0].get_text() == f"{100 * found:.2f}"
    assert f"chosen: test accuracy {slider.replay_once(networks, 30, 5).test:.1%}" in texts(figure)


@pytest.mark.parametrize("change", [{"ranker": "backwards"}, {"budget": 0.2}, {"m": 8}, {"k": 1}])
def test_each_argument_changes_what_is_written_and_drawn(change):
    usual = {"ranker": "default", "budget": 0.4, "m": 30, "k": 5}
    before, after = draw(TABLE, **usual), draw(TABLE, **usual | change)
    assert texts(before) != texts(after)
    assert png(before) != png(after)


def test_the_ranker_that_knows_beats_random_and_the_backward_one_does_not():
    mean = {name: float(draw(TABLE, name, 0.4, 10, 3).axes[1].texts[0].get_text()) for name in rankers(TABLE)}
    random, oracle = (float(draw(TABLE, "default", 0.4, 10, 3).axes[1].texts[i].get_text()) for i in (1, 2))
    assert mean["backwards"] < random < mean["default"] <= oracle


def test_m_and_k_are_at_most_what_is_there():
    assert draw(TABLE, "default", 0.4, 150, 150).axes[1].get_title() == "m = 72 light, k = 72 full trainings"
    assert draw(TABLE, "default", 0.4, 3, 5).axes[1].get_title() == "m = 3 light, k = 3 full trainings"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranker": "best"}, r"ranker='best': the table holds the scores of \['default', 'backwards'\]"),
        ({"budget": 0.9}, "budget=0.9: the table has no fully trained network within 10% of it"),
        ({"m": 0}, "m=0: must be 1 <= k <= m"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw(TABLE, **{"ranker": "default", "budget": 0.4, "m": 30, "k": 5} | change)


def test_a_table_without_full_trainings_is_refused():
    with pytest.raises(ValueError, match="fewer than 5 fully trained networks"):
        show(TABLE.assign(full_accuracy_test=np.nan))
    with pytest.raises(ValueError, match="budget=17: must be one of"):
        show(TABLE, budget=17)


def test_each_slider_redraws_the_figure():
    drawn = []
    first, *_, last = budgets(TABLE)
    panel = controls(TABLE, drawn.append, "default", last, 30, 5)
    knobs = {knob.description: knob for knob in panel.children}
    for name, value, title in [
        ("m (light)", 12, "m = 12 light, k = 5 full trainings"),
        ("k (full)", 2, "m = 12 light, k = 2 full trainings"),
    ]:
        knobs[name].value = value
        assert drawn[-1].axes[1].get_title() == title
    knobs["ranker"].value = "backwards"
    assert "backwards" in [label.get_text() for label in drawn[-1].axes[1].get_yticklabels()]
    knobs["MACs share"].value = first
    assert drawn[-1].axes[0].get_title().startswith(f"{budgets(TABLE)[first]} networks at {first:.3g} of the MACs")
    assert len(drawn) == 4
    assert next(label for label, _ in knobs["MACs share"].options).endswith(f"({budgets(TABLE)[first]} networks)")


IMPORT = """
import sys; sys.path[:0] = {tests!r}
from test_slider import TABLE
from graphprune.report import slider
"""
SHOW = "slider.show(TABLE, m=30, k=5)"
BY_A_PERSON = SHOW + "  # a person ran it"


class Client(NotebookClient):
    """One that sends the id of a cell that a person ran, as JupyterLab does."""

    async def async_start_new_kernel_client(self):
        client = await super().async_start_new_kernel_client()
        make = client.session.msg

        def msg(kind, content=None, **others):
            message = make(kind, content, **others)
            if kind == "execute_request" and content["code"] == BY_A_PERSON:
                message["metadata"] = {"cellId": "a"}
            return message

        client.session.msg = msg
        return client


def test_a_notebook_stores_a_picture_alone_and_a_person_gets_sliders_too():
    tests = [str(folder) for folder in Path(__file__).parents[:2]]
    sources = [IMPORT.format(tests=tests), SHOW, SHOW, BY_A_PERSON]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    Client(notebook, kernel_name="python3").execute()
    _, first, second, person = (cell.outputs for cell in notebook.cells)
    assert [sorted(output["data"]) for output in first] == [["image/png", "text/plain"]]
    assert first[0]["data"] == second[0]["data"] == person[0]["data"]
    assert [sorted(output["data"]) for output in person[1:]] == [["application/vnd.jupyter.widget-view+json", "text/plain"]]
