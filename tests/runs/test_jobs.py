"""Jobs on the real engines: this process, loky's processes, a Dask cluster, each with jobs that kill theirs."""

import os
import signal
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
