import pytest
import torch
from digits_task import setting, task

from graphprune.pruning.cost import cost
from graphprune.pruning.window import Window, into_window
from graphprune.runs import runtime
from graphprune.search import baselines
from graphprune.search.funnel import Funnel, rank_draws


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arms")


@pytest.fixture(
    scope="module", params=[baselines.uniform_l1, baselines.global_l1, baselines.random_search, baselines.bee_colony]
)
def result(request, folder):
    return request.param(*task(), **setting(folder))


def test_every_arm_spends_the_same_budget(result):
    assert result.epochs == pytest.approx(4 * 0.3 + 2 * 0.6)


def test_every_network_of_every_arm_is_in_the_window(result):
    model, _, data = task()
    shares = result.trials["macs"] / cost(model, data.example()).macs
    assert shares.between(0.3, 0.4).all()


def test_what_comes_back_is_the_chosen_network(result):
    _, graph, data = task()
    small = cost(result.model, data.example())
    assert (small.macs, small.params) == (result.best["macs"], result.best["params"])
    assert [int(result.keep[group.name].sum()) for group in graph.groups] == result.best["counts"]


def test_one_network_is_tested_and_it_is_the_best_on_validation(result):
    full = result.trials[result.trials["stage"] == "full"]
    tested = full[full["accuracy_test"].notna()]
    assert len(tested) == 1
    assert result.trials["accuracy_test"].notna().sum() == 1
    assert tested["accuracy_val"].item() == full["accuracy_val"].max()


def test_uniform_takes_the_same_share_of_every_group(tmp_path):
    _, graph, _ = task()
    funnel = Funnel(*task(), **setting(tmp_path))
    kept = baselines.cut_to_window(funnel, baselines.rank_in_group(funnel.scores))
    shares = [kept[span].float().mean().item() for span in graph.slices.values()]
    for share, group in zip(shares, graph.groups, strict=True):
        assert abs(share - min(shares)) <= 1 / group.channels
    for name, mask in graph.unflatten(kept).items():
        assert funnel.scores[name][mask].min() >= funnel.scores[name][~mask].max()


def test_global_has_one_threshold_for_all_channels(tmp_path):
    _, graph, _ = task()
    funnel = Funnel(*task(), **setting(tmp_path))
    keep = graph.unflatten(
        baselines.cut_to_window(funnel, {name: score / score.mean() for name, score in funnel.scores.items()})
    )
    normal = {name: score / score.mean() for name, score in funnel.scores.items()}
    weakest = min(normal[name][keep[name]].min() for name in keep)
    strongest = max(normal[name][~keep[name]].max() for name in keep)
    assert strongest <= weakest


def test_a_cut_takes_no_more_than_it_must_and_leaves_every_group_a_channel(tmp_path):
    _, graph, data = task()
    funnel = Funnel(*task(), **setting(tmp_path, macs_window=(0.0, 0.012)))
    first = graph.groups[0].name  # all of it goes first, but for its best channel
    priority = {name: score + (0 if name == first else 1000) for name, score in funnel.scores.items()}
    kept = graph.unflatten(baselines.cut_to_window(funnel, priority))
    counts = torch.tensor([[int(mask.sum()) for mask in kept.values()]])
    window = Window(graph, data.example())
    assert counts.min() == 1
    assert counts[0, 0] == 1
    assert kept[first].nonzero().item() == int(funnel.scores[first].argmax())
    assert window.shares(counts).item() <= 0.012
    more = counts.repeat(6, 1) + torch.eye(6, dtype=torch.int64)
    assert window.shares(more).max() > 0.012


def test_a_window_finer_than_a_channel_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the shares of MACs next to it here are \[0\.3\d+, 0\.3\d+\]"):
        baselines.uniform_l1(*task(), **setting(tmp_path, macs_window=(0.35, 0.35001)))


def test_repair_leads_into_the_window_and_leaves_alone_what_is_in_it():
    _, graph, data = task()
    window = Window(graph, data.example(), 0.3, (0.2, 0.25))
    generator = runtime.seed_generator(0)
    rows = torch.randint(10, (30, len(graph.groups)), generator=generator)
    inside = window.allows(rows)
    repaired = into_window(window, rows, generator)
    assert window.allows(repaired).all()
    assert torch.equal(repaired[inside], rows[inside])
    near = (repaired - rows).abs().sum(1)[~inside].float()
    anew = (window.draw(30, generator) - rows).abs().sum(1).float()
    assert near.mean() < anew.mean() / 2


@pytest.mark.parametrize("foods", [1, 5])
def test_bees_need_two_sources_and_an_evaluation_for_each(tmp_path, foods):
    with pytest.raises(ValueError, match=f"foods={foods}: must be at least 2"):
        baselines.bee_colony(*task(), foods=foods, **setting(tmp_path))


def test_random_search_is_the_first_of_uniform_draws(folder):
    result = baselines.random_search(*task(), **setting(folder))
    funnel = Funnel(*task(), **setting(folder))
    drawn = funnel.window.draw(400, runtime.seed_generator(0, "candidates"))
    light = result.trials[result.trials["stage"] == "light"]
    assert light["indices"].tolist() == drawn[:4].tolist()


def test_chance_takes_the_first_draws_from_however_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("graphprune.pruning.window.BLOCK", 3)
    funnel = Funnel(*task(), **setting(tmp_path))
    picked = rank_draws(funnel, baselines.score_at_random(), 60)
    drawn = funnel.window.draw(60, runtime.seed_generator(0, "candidates"))
    assert picked["indices"].tolist() == drawn[:4].tolist()
    assert picked["score"].tolist() == [0, -1, -2, -3]


def test_repair_and_bees_know_how_many_rates_there_are(tmp_path):
    funnel = Funnel(*task(), **setting(tmp_path, m=10), rates=(0, 0.25, 0.5))
    generator = runtime.seed_generator(0)
    rows = torch.randint(3, (30, len(funnel.graph.groups)), generator=generator)
    repaired = into_window(funnel.window, rows, generator)
    assert funnel.window.allows(repaired).all()
    assert repaired.max() == 2
    visited, _ = baselines.forage_in(funnel, lambda indices: indices.sum(1).double(), foods=3)
    assert funnel.window.allows(visited).all()
