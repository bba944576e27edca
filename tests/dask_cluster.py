"""A Dask cluster as users start one: `dask scheduler`, and `dask worker` with two processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Inside the block joblib's "dask" backend finds this cluster; everything is ended with it."""
    from distributed import Client

    meeting = ["--scheduler-file", str(folder / "scheduler.json")]
    here = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths, "DASK_DISTRIBUTED__WORKER__DAEMON": "true"}
    log = (folder / "dask.log").open("w")

    def start(*command: str) -> subprocess.Popen[bytes]:
        whole = [sys.executable, "-m", "dask", *command, *meeting]
        return subprocess.Popen(whole, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    processes += [start("worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))]
    try:
        until = time.monotonic() + 60
        while not (folder / "scheduler.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        with Client(scheduler_file=str(folder / "scheduler.json"), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
