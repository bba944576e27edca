"""Jobs on the real engines: this process, loky's processes, a Dask cluster, each with jobs that kill theirs."""

import os
import signal
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import joblib
import pytest
from dask_cluster import cluster

from graphprune.runs import jobs
from graphprune.runs.jobs import Died, Shared


def work(shared, item):
    """Square a number; leave a mark for each try; 7 kills its process always, 5 the first time."""
    marks = Path(shared.value["marks"])
    tries = len(list(marks.glob(f"{item}-*"))) + 1
    (marks / f"{item}-{tries}").touch()
    if os.getpid() != shared.value["driver"] and (item == 7 or (item == 5 and tries == 1)):
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item, os.getpid()


def fail(shared, item):
    raise ZeroDivisionError(f"a defect at {item}")


@pytest.fixture
def shared(tmp_path):
    return Shared({"marks": str(tmp_path), "driver": os.getpid(), "weight": bytes(3_000_000)})


def test_one_process_does_the_jobs_in_order(shared):
    assert jobs.run(work, shared, [3, 1, 2], 1, "test") == [(9, os.getpid()), (1, os.getpid()), (4, os.getpid())]


def test_own_processes_survive_a_job_that_kills_them(shared, tmp_path):
    *found, died = jobs.run(work, shared, [1, 2, 5, 3, 4, 7], 2, "test")
    assert [value for value, _ in found] == [1, 4, 25, 9, 16]
    assert all(process != os.getpid() for _, process in found)
    assert isinstance(died, Died)
    assert died.reason.startswith("its process died 3 times (TerminatedWorkerError")
    assert len(list(tmp_path.glob("7-*"))) >= jobs.ATTEMPTS


def test_dask_survives_a_job_that_kills_its_worker(shared, tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("dask")), joblib.parallel_config("dask"):
        found = jobs.run(work, shared, [1, 5, 2, 7, 3], -1, "test")
    assert [value for value, _ in found[:3]] == [1, 25, 4]
    assert isinstance(found[3], Died)
    assert found[3].reason.startswith("its process died 3 times")
    assert found[4][0] == 9
    assert os.getpid() not in {process for _, process in (found[0], found[1], found[2], found[4])}


def test_a_defect_is_no_failed_job(shared):
    with pytest.raises(ZeroDivisionError, match=r"a defect at [34]"):
        jobs.run(fail, shared, [3, 4], 2, "test")


def opened(shared, item):
    return id(shared.value), os.getpid()


def test_what_is_shared_is_opened_once_a_process(shared):
    found = jobs.run(opened, shared, range(12), 2, "test")
    assert len(set(found)) == len({process for _, process in found}) <= 2


held = []


def hold(shared, item):
    """Keep so much memory that joblib replaces the process: it looks for that a second after its first job, and later."""
    time.sleep(0.3)
    held.append(bytearray(os.urandom(1)) * 90_000_000)
    return os.getpid()


@contextmanager
def a_limit(seconds):
    """Raise in this thread when a block takes longer, so that a pool that waits for ever fails its test."""

    def over(*_):
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_process_that_grows_is_replaced_without_a_warning(shared):
    with warnings.catch_warnings(), a_limit(120):
        warnings.simplefilter("error")  # raised inside the pool, a warning would end its managing thread
        found = jobs.run(hold, shared, range(24), 2, "test")
    assert len(found) == 24
    assert len(set(found)) > 2


def test_a_run_that_is_given_up_leaves_the_next_one_alone(shared, monkeypatch):
    """joblib ends the shared processes when the generator of a run goes, which must not be while another one uses them."""
    kept = []

    def stop_after_one(outcomes, *_, **__):
        kept.append(outcomes)  # as a traceback does
        yield next(outcomes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs.runtime, "progress", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            jobs.run(work, shared, [1, 2, 3, 4, 6, 8], 2, "test")
    with a_limit(120), monkeypatch.context() as patched:

        def forget_after_one(outcomes, *_, **__):
            yield next(outcomes)
            kept.clear()
            yield from outcomes

        patched.setattr(jobs.runtime, "progress", forget_after_one)
        found = jobs.run(work, shared, [1, 2, 3, 4, 6, 8], 2, "test")
    assert [value for value, _ in found] == [1, 4, 9, 16, 36, 64]
