import copy
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import pandas as pd
import pytest
import torch
from dask_cluster import cluster
from digits_task import FULL, LIGHT, setting, task
from filelock import FileLock

import graphprune
from graphprune import train
from graphprune.pruning.channels import prune
from graphprune.pruning.cost import CostModel
from graphprune.runs import runtime, store
from graphprune.search import trial
from graphprune.search.funnel import Funnel, rank_draws, run_ranking, sort_trials

SMALL = {"ranking": {"by": "last"}, "n_candidates": 300}


def by_last(indices):
    """Ranks candidates by their last group's rate: a ranker whose choice can be checked."""
    return indices[:, -1].double()


def search(folder, ranker=by_last, **changes):
    return run_ranking(Funnel(*task(), **setting(folder, **changes)), ranker, **SMALL)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("[!.]*") if path.is_file()}


def table(result):
    return result.trials.drop(columns="seconds")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, search(folder)


def test_the_funnel_narrows_from_candidates_to_one(done):
    _, result = done
    trials = result.trials
    assert trials["stage"].tolist() == ["light"] * 4 + ["full"] * 2
    assert trials["rank"].tolist() == [1, 2, 3, 4, 1, 2]
    light, full = trials[:4], trials[4:]
    assert full["indices"].tolist() == sort_trials(light, "accuracy")["indices"].head(2).tolist()
    assert result.best["accuracy_val"] == full["accuracy_val"].max()
    assert trials["epochs"].tolist() == [0.3] * 4 + [0.6] * 2


def test_the_top_are_the_best_of_the_draws_and_no_network_twice(tmp_path):
    asked = Funnel(*task(), **setting(tmp_path, m=60, min_ratio=0.3))
    rows = rank_draws(asked, by_last, 300)
    drawn = asked.window.draw(300, runtime.seed_generator(0, "candidates"))
    assert rows["score"].tolist() == drawn[:, -1].double().sort(descending=True).values[:60].tolist()
    assert len({tuple(row) for row in rows["indices"]}) == 60
    again = Funnel(*task(), **setting(tmp_path, m=5))
    again.window.__dict__["table"] = torch.ones_like(again.window.table) * 4  # all rates keep 4 channels: one network
    with pytest.raises(ValueError, match="m=5: only 1 different networks among n_candidates=300 draws"):
        rank_draws(again, by_last, 300)


def test_what_is_reported_is_what_the_network_does(done):
    _, result = done
    _, graph, data = task()
    found = train.evaluate(result.model, data.val)
    assert (found.accuracy, found.loss) == (result.best["accuracy_val"], result.best["loss_val"])
    assert train.evaluate(result.model, data.test).accuracy == result.best["accuracy_test"]
    assert [int(result.keep[group.name].sum()) for group in graph.groups] == result.best["counts"]


def test_a_trial_is_prune_then_finetune_from_the_base_weights(done):
    _, result = done
    model, graph, data = task()
    small = train.finetune(prune(model, graph, result.keep), data, FULL, seed=0)
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name])


def test_a_second_call_loads_everything(done, monkeypatch):
    folder, result = done
    before = files(folder)
    monkeypatch.setattr(trial, "_fit", None)
    again = search(folder, ranker=None)
    assert files(folder) == before
    pd.testing.assert_frame_equal(again.trials, result.trials)
    assert all(torch.equal(again.keep[name], result.keep[name]) for name in result.keep)


def test_two_processes_give_the_table_of_one(done, tmp_path):
    _, result = done
    pd.testing.assert_frame_equal(table(search(tmp_path, n_jobs=2)), table(result))


def test_a_dask_cluster_gives_the_table_of_one(done, tmp_path):
    _, result = done
    with cluster(tmp_path), joblib.parallel_config("dask"):
        assert table(search(tmp_path / "search", n_jobs=-1)).equals(table(result))


def test_a_candidate_that_diverges_is_recorded_and_the_search_goes_on(tmp_path, monkeypatch):
    finite = train.fit

    def fit(model, data, recipe, **options):
        if recipe == LIGHT and len(runs) == 1:
            runs.append("diverged")
            raise FloatingPointError("the loss is nan")
        runs.append("fine")
        return finite(model, data, recipe, **options)

    runs = []
    monkeypatch.setattr(train, "fit", fit)
    with pytest.warns(UserWarning, match="1 of 4 trainings failed and are ranked nowhere.*FloatingPointError: the loss is nan"):
        result = search(tmp_path)
    failed = result.trials[result.trials["failed"] != ""]
    assert failed["failed"].tolist() == ["FloatingPointError: the loss is nan"]
    assert failed["accuracy_val"].isna().all()
    assert failed["counts"].item() not in result.trials.loc[result.trials["stage"] == "full", "counts"].tolist()
    assert len(runs) == 6
    with pytest.warns(UserWarning, match="1 of 4 trainings failed"):
        assert table(search(tmp_path)).equals(table(result))  # and it is not tried again ...
    assert len(runs) == 6
    for file in tmp_path.rglob("*.failed.json"):
        file.unlink()
    assert (search(tmp_path).trials["failed"] == "").all()  # ... unless its file is deleted


def test_a_candidate_out_of_memory_is_recorded(tmp_path, monkeypatch):
    def fit(*_args, **_options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    task()  # trained before, whichever test runs first
    monkeypatch.setattr(train, "fit", fit)
    with (
        pytest.warns(UserWarning, match="4 of 4 trainings failed"),
        pytest.raises(RuntimeError, match=r"all 4 trainings failed, the first by: RuntimeError: .*allocate memory"),
    ):
        search(tmp_path)


def test_a_defect_in_a_network_ends_the_search(tmp_path, monkeypatch):
    def fit(*_args, **_options):
        raise RuntimeError("shapes cannot be multiplied")

    task()  # trained before, whichever test runs first
    monkeypatch.setattr(train, "fit", fit)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        search(tmp_path)


def test_a_second_search_in_the_folder_is_refused(tmp_path):
    (tmp_path / "light").mkdir()
    with (
        FileLock(tmp_path / "light" / ".driver.lock"),
        pytest.raises(RuntimeError, match="another search is training networks there"),
    ):
        search(tmp_path)
    assert not list((tmp_path / "light").glob("*.json"))


def test_a_row_says_how_the_training_went(done):
    folder, _ = done
    file = next((folder / "light").glob("*.json"))
    row = store.load(file)
    small = prune(task()[0], task()[1], {n: mask_of(kept, task()[1], n) for n, kept in row["kept"].items()})
    assert row["params"] == sum(p.numel() for p in small.parameters())
    assert row["macs"] == graphprune.cost(small, task()[2].example()).macs
    assert [epoch["epoch"] for epoch in row["curve"]] == pytest.approx([LIGHT.epochs], abs=0.1)
    assert 0 < row["curve"][-1]["accuracy_train"] <= 1
    assert row["seconds"] > 0


def mask_of(kept, graph, name):
    span = graph.slices[name]
    return torch.isin(torch.arange(span.stop - span.start), torch.tensor(kept))


def test_searches_in_one_folder_share_trials_and_overwrite_nothing(done):
    folder, _ = done
    before = files(folder)
    wider = search(folder, m=5)
    after = files(folder)
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.parent.name == "light" and path.stem.isalnum()]) == 5
    assert wider.trials["stage"].tolist() == ["light"] * 5 + ["full"] * 2


def test_results_of_another_base_network_are_not_mixed_in(done):
    folder, _ = done
    model, graph, data = task()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.conv1.weight[0, 0, 0, 0] += 1e-6
    asked = Funnel(model, graph, data, **setting(folder))
    assert Funnel(other, graph, data, **setting(folder)).base != asked.base
    assert Funnel(copy.deepcopy(model), graph, data, **setting(folder)).base == asked.base


def test_a_damaged_result_is_made_again_and_no_other(tmp_path):
    result = search(tmp_path)
    row = min((tmp_path / "light").glob("*.json"))
    weights = next((tmp_path / "full").glob("*.safetensors"))
    before = files(tmp_path)
    row.write_bytes(row.read_bytes()[:-20])
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="corrupted"):
        again = search(tmp_path)
    pd.testing.assert_frame_equal(table(again), table(result))
    changed = {path.name.split(".")[0] for path, time in files(tmp_path).items() if before[path] != time}
    assert {row.stem, weights.stem} <= changed <= {row.stem, weights.stem, f"{weights.stem}-test"}


def test_fresh_weights_are_new_and_reproducible(tmp_path):
    a, b = search(tmp_path / "a", inherit=False, m=1, k=1), search(tmp_path / "b", inherit=False, m=1, k=1)
    inherited = search(tmp_path / "a", m=1, k=1)
    pd.testing.assert_frame_equal(table(a), table(b))
    assert a.best["counts"] == inherited.best["counts"]
    assert a.best["accuracy_val"] < inherited.best["accuracy_val"]


def test_ties_in_accuracy_go_to_the_lower_loss():
    rows = pd.DataFrame({"accuracy_val": [0.9, 0.9, 0.8], "loss_val": [0.4, 0.3, 0.2], "rank": [1, 2, 3], "failed": ""})
    assert sort_trials(rows, "accuracy")["rank"].tolist() == [2, 1, 3]
    assert sort_trials(rows, "loss")["rank"].tolist() == [3, 2, 1]


def test_the_criterion_decides_who_is_retrained(done):
    folder, _ = done
    by_loss = search(folder, criterion="loss").trials
    light = by_loss[by_loss["stage"] == "light"]
    assert by_loss[by_loss["stage"] == "full"]["indices"].tolist() == (
        light.sort_values("loss_val")["indices"].head(2).tolist()
    )


def test_another_seed_draws_and_trains_differently(done):
    folder, result = done
    other = search(folder, seed=1)
    assert other.trials["seed"].tolist() == [1000] * 6
    assert other.trials["indices"].tolist() != result.trials["indices"].tolist()


KILLED = """
    import json, os, signal, sys, time
    from pathlib import Path
    sys.path[:0] = {tests!r}
    from digits_task import task
    from test_funnel import search, files
    folder, waits = Path({folder!r}), {waits!r}
    task()
    for number, (kind, count) in enumerate(waits):
        child = os.fork()
        if not child:
            search(folder)
            os._exit(0)
        while len(list(folder.glob(kind))) < count:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it had ended before it was killed"
    before = {{path: time for path, time in files(folder).items() if path.suffix == ".json"}}
    result = search(folder)
    after = files(folder)
    print(json.dumps([len(before), [p.name for p in before if before[p] != after[p]], result.trials.to_json()]))
"""


def test_a_search_killed_at_three_moments_ends_as_if_it_had_not_been(done, tmp_path):
    _, result = done
    waits = [("top*.parquet", 1), ("light/*.json", 2), ("full/*.safetensors", 1)]
    code = KILLED.format(tests=[str(folder) for folder in Path(__file__).parents[:2]], folder=str(tmp_path), waits=waits)
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # a forked child must not wait for its parent's threads
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    stored, repeated, trials = json.loads(run.stdout.splitlines()[-1])
    assert stored >= 4
    assert repeated == []
    expected = json.loads(table(result).to_json())
    assert {name: values for name, values in json.loads(trials).items() if name != "seconds"} == expected


ANYWHERE = """
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path
    sys.path[:0] = {tests!r}
    from digits_task import task
    from test_funnel import search, files
    folder = Path({folder!r})
    task()
    started = time.monotonic()
    whole = search(folder / "whole").trials.drop(columns="seconds")
    length = time.monotonic() - started
    drawn = random.Random({seed})
    for number in range({kills}):
        place, wait = folder / str(number), length * (number + drawn.random()) / {kills}
        child = os.fork()
        if not child:
            search(place)
            os._exit(0)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        finished = {{path: time for path, time in files(place).items() if path.suffix != ".tmp"}}
        resumed = search(place).trials.drop(columns="seconds")
        after = files(place)
        repeated = [str(path) for path in finished if finished[path] != after[path]]
        print(json.dumps([wait, len(finished), repeated, resumed.equals(whole)]), flush=True)
"""


def test_killed_at_random_moments_a_search_goes_on_where_it_was(tmp_path):
    kills = int(os.environ.get("GRAPHPRUNE_KILLS", "3"))
    code = ANYWHERE.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]], folder=str(tmp_path), kills=kills, seed=0
    )
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    moments = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(moments) == kills
    assert all(repeated == [] for _, _, repeated, _ in moments)
    assert all(same for _, _, _, same in moments)
    assert moments[-1][1] > moments[0][1]  # the last one was killed after more was done


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 5}, ValueError, "k=5, m=4: k of the m"),
        ({"k": 0}, ValueError, "k=0, m=4"),
        ({"light": 3}, TypeError, "light=3: must be a train.Recipe"),
        ({"full": None}, TypeError, "full=None: must be a train.Recipe"),
        ({"criterion": "luck"}, ValueError, "criterion='luck': must be 'accuracy' or 'loss'"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"n_jobs": 0}, ValueError, "n_jobs=0"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"min_ratio": 0.95}, ValueError, "min_ratio=0.95"),
        ({"macs_window": (0.4, 0.3)}, ValueError, "macs_window"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        search(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_too_few_candidates_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_candidates=3: must be at least m=4"):
        run_ranking(Funnel(*task(), **setting(tmp_path)), by_last, n_candidates=3, ranking={})


@pytest.mark.parametrize("scores", [torch.zeros(7), torch.full((300,), float("nan"))])
def test_a_ranker_that_does_not_rank_is_refused(tmp_path, scores):
    with pytest.raises(ValueError, match="ranker: must give one finite score for each of 300 rows"):
        search(tmp_path, ranker=lambda indices: scores)


def test_a_trial_needs_nothing_but_itself(done, tmp_path):
    _, result = done
    model, graph, data = task()
    kept = graph.flatten(result.keep)
    costs = CostModel(graph, data.example())
    job = trial.Trial(trial.Task(model, costs, data, "base", LIGHT, True, 1, tmp_path, False), kept, 0)
    row = trial.run_trial(job)
    assert row["kept"]["conv1"] == result.keep["conv1"].nonzero().flatten().tolist()
    assert store.load(job.path) == row
    assert trial.run_all([job, job], 1, "twice") == [row, row]


def test_an_importance_of_ones_own_picks_the_channels_and_is_stored_apart(tmp_path):
    digits, model = graphprune.data.load("digits", device="cpu"), graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    graph, brief = graphprune.trace(model, digits.example()), graphprune.train.Recipe(epochs=0.1, lr=0.01, batch_size=64)
    last = {group.name: range(group.channels) for group in graph.groups}
    sizes = {"n_train": 32, "epochs": 1, "n_candidates": 50, "m": 2, "k": 1, "n_jobs": 1, "min_ratio": 0.5}
    setting = {"light": brief, "full": brief, "folder": tmp_path, **sizes}
    own = graphprune.search.sacp(model, graph, digits, importance=last, **setting)
    assert all(bool((mask.int().diff() >= 0).all()) for mask in own.keep.values()), "the last channels of every group stay"
    known = graphprune.search.sacp(model, graph, digits, **setting)
    norms = graphprune.importance.l1(model, graph)
    for name, mask in known.keep.items():
        assert norms[name][mask].min() >= norms[name][~mask].max() if not bool(mask.all()) else True
    with pytest.raises(ValueError, match="importance has no entry for group 'conv1'"):
        graphprune.search.sacp(model, graph, digits, importance={}, **setting)


def test_a_result_prints_on_a_line_and_plots(tmp_path):
    digits, model = graphprune.data.load("digits", device="cpu"), graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    graph, brief = graphprune.trace(model, digits.example()), graphprune.train.Recipe(epochs=0.1, lr=0.01, batch_size=64)
    sizes = {"n_candidates": 50, "m": 2, "k": 1, "n_jobs": 1, "min_ratio": 0.5, "ranker": lambda graph, model, r: -r.sum(1)}
    result = graphprune.search.sacp(model, graph, digits, light=brief, full=brief, folder=tmp_path, **sizes)
    text = repr(result)
    assert text.startswith(f"SearchResult({result.best['macs']:,} multiply-adds")
    assert text.endswith("the best of 3 trainings)")
    assert "\n" not in text
    assert result._repr_html_().count("<tr") == 4
    assert [text.get_text() for text in result.plot().axes[0].get_legend().get_texts()] == [
        "light training",
        "full training",
        "chosen",
    ]
