"""What a trial that runs out of memory leaves, tried beside others and alone; what distilled trials of one seed share."""

from dataclasses import replace

import pytest
import torch
from digits_task import LIGHT, task

from graphprune.pruning.cost import CostModel
from graphprune.runs import jobs, safe_files
from graphprune.search import trial

CROWDED = "DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def trials(tmp_path):
    """Three trials that train nothing: a network each, the whole one without one channel."""
    model, graph, data = task()
    about = trial.Task(model, CostModel(graph, data.example()), data, "base", LIGHT, True, 1, tmp_path, False)
    masks = torch.ones(3, graph.num_atoms, dtype=torch.bool)
    masks[torch.arange(3), torch.arange(3)] = False
    return [trial.Trial(about, mask, 0) for mask in masks]


@pytest.fixture
def memory(monkeypatch):
    """Calls of the training; `memory["fails"](number of the call, trial)` says which run out of memory."""
    calls = {"fails": lambda number, one: False, "trained": []}

    def done(one):
        calls["trained"].append(one.path.name)
        if calls["fails"](len(calls["trained"]), one):
            raise RuntimeError(CROWDED)
        return {**trial._about(one), "failed": "", "accuracy_val": 0.5}

    monkeypatch.setattr(trial, "_done", done)
    return calls


def test_what_ran_out_of_memory_beside_others_is_tried_alone(trials, memory) -> None:
    memory["fails"] = lambda number, one: number == 2
    rows = trial.run_all(trials, 1, "test")
    assert [row["failed"] for row in rows] == ["", "", ""]
    assert memory["trained"] == [trials[place].path.name for place in (0, 1, 2, 1)]
    assert not trials[1].failure.exists()


def test_what_runs_out_of_memory_alone_has_failed(trials, memory) -> None:
    memory["fails"] = lambda number, one: one.path == trials[1].path
    for _ in range(2):  # and is not tried a third time
        with pytest.warns(UserWarning, match="1 of 3 trainings failed"):
            rows = trial.run_all(trials, 1, "test")
        assert [row["failed"] for row in rows] == ["", f"RuntimeError: {CROWDED}", ""]
        assert memory["trained"].count(trials[1].path.name) == 2
    assert trials[1].failure.is_file()


def test_alone_means_one_job_in_processes_of_its_own(trials, memory, monkeypatch) -> None:
    asked = []

    def run(function, shared, items, n_jobs, desc):
        asked.append((len(items), n_jobs))
        return [trial.OutOfMemory("full") if len(items) > 1 else {"failed": ""} for _ in items]

    monkeypatch.setattr(jobs, "run", run)
    trial.run_all(trials, 2, "test")
    assert asked == [(3, 2), (1, 2), (1, 2), (1, 2)]


def test_one_trial_by_itself_is_alone(trials, memory) -> None:
    memory["fails"] = lambda number, one: True
    assert trial.run_trial(trials[0])["failed"] == f"RuntimeError: {CROWDED}"
    assert trial.load_result(trials[0])["failed"] == f"RuntimeError: {CROWDED}"


def test_other_errors_are_defects(trials, monkeypatch) -> None:
    def done(one):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(trial, "_done", done)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trial.run_all(trials, 1, "test")


def test_the_allocators_error_is_known() -> None:
    """torch's own, provoked: another version may word it otherwise."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert trial.is_out_of_memory(caught.value)
    assert trial.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert trial.is_out_of_memory(MemoryError())
    assert not trial.is_out_of_memory(RuntimeError("the loss ran out of its range"))


# --- what the teacher says --------------------------------------------------------------------------------------------


def distilled(one: trial.Trial, folder) -> trial.Trial:
    return replace(one, task=replace(one.task, recipe=replace(LIGHT, distil=True, augment=True), folder=folder))


def without_times(row):
    return {name: value for name, value in row.items() if "seconds" not in name}


def test_distilled_trials_of_one_seed_compute_what_the_teacher_says_once(trials, tmp_path) -> None:
    rows, files = [], []
    for one in (trials[0], trials[1], replace(trials[1], seed=1)):
        rows.append(trial.run_trial(distilled(one, tmp_path / "shared")))
        files.append(len(list((tmp_path / "shared" / "teacher").rglob("*.safetensors"))))
    assert files[0] == files[1] < files[2]
    assert files[0] >= LIGHT.steps(len(trials[0].task.data.train))
    alone = trial.run_trial(distilled(trials[1], tmp_path / "alone"))
    assert without_times(alone) == without_times(rows[1])
    assert without_times(alone) != without_times(rows[0])


def test_a_trial_that_reads_what_the_teacher_says_counts_the_time_it_took(trials, tmp_path, monkeypatch) -> None:
    assert trial.run_trial(distilled(trials[0], tmp_path))["core_seconds"] < 100
    monkeypatch.setattr(safe_files, "header", lambda content: {"seconds": [200.0, 100.0]})
    row, steps = trial.run_trial(distilled(trials[1], tmp_path)), LIGHT.steps(len(trials[0].task.data.train))
    assert 100 * steps <= row["core_seconds"] < 100 * (steps + 2)
    assert 200 * steps <= row["seconds"] < 200 * (steps + 2)


def test_another_number_of_threads_or_precision_asks_the_teacher_anew(trials, tmp_path) -> None:
    first = distilled(trials[0], tmp_path)
    half = replace(first.task, recipe=replace(first.task.recipe, precision="bfloat16"))
    stored = []
    for task_of_one in (first.task, replace(first.task, threads=2), half):
        trial.run_trial(replace(first, task=task_of_one))
        stored.append(len(list((tmp_path / "teacher").rglob("*.safetensors"))))
    assert stored == [stored[0], 2 * stored[0], 3 * stored[0]]
