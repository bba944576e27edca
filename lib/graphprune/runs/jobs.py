"""Many independent jobs: in processes of their own, or on several machines through Dask; none takes the others with it.

joblib's active backend does them, so `with joblib.parallel_config("dask"):` around a search is all that spreads it over a
cluster. A job is repeated when its process dies, so it must be idempotent: it stores its result itself, and finds it.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from graphprune.runs import runtime

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3  # how often a job may lose its process, alone, before it is given up
PATIENCE = 60.0  # seconds that a Dask cluster has to replace a lost worker
PROCESS = uuid.uuid4().hex  # this one, among those of all machines


@dataclass(frozen=True)
class Died:
    """What a job leaves that killed its process every time."""

    reason: str


class Shared(Generic[S]):
    """What jobs have in common, e.g. a data set: sent to a process once, and opened there once.

    joblib maps the bytes into the memory of processes on this machine, and Dask scatters them to those on others.

    >>> import cloudpickle
    >>> both = Shared([1, 2])
    >>> cloudpickle.loads(cloudpickle.dumps(both)).value
    [1, 2]
    """

    def __init__(self, value: S) -> None:
        self.value = value

    @cached_property
    def _parcel(self) -> tuple[str, np.ndarray]:
        import cloudpickle

        content = cloudpickle.dumps(self.value)
        return hashlib.sha256(content).hexdigest(), np.frombuffer(content, np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, self._parcel

    def __sizeof__(self) -> int:
        return self._parcel[1].nbytes  # Dask scatters what is large


_opened: dict[str, Shared[Any]] = {}


def _open(name: str, content: np.ndarray) -> Shared[Any]:
    if name not in _opened:
        import cloudpickle

        _opened.clear()  # one at a time: it may be a whole data set
        _opened[name] = Shared(cloudpickle.loads(content.data))
    return _opened[name]


def run(function: Callable[[Shared[S], T], R], shared: Shared[S], items: Sequence[T], n_jobs: int, desc: str) -> list[R | Died]:
    """`function(shared, item)` for every item, `n_jobs` at a time, in the order of the items.

    When a process dies, the jobs left are done in ever smaller parts, until the one that kills its process is alone; it is
    given up after `ATTEMPTS`. With `n_jobs=1` jobs run in this process, and nothing outlives it.

    Args:
        function: at the top level of a module; idempotent, see above. What it raises ends the run.
        n_jobs: as in joblib; -1 is every core of this machine, or of the Dask cluster.
        desc: what the progress bar says.
    """
    with warnings.catch_warnings(), closing(_outcomes(function, shared, items, n_jobs)) as found:
        # joblib replaces a process that holds 300 MB more than after its first job, as one that trains networks may. It says so
        # in the thread that manages the pool: where warnings are errors, that thread would end, and the run wait for ever.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
        # Whoever interrupts a run knows that jobs are left.
        warnings.filterwarnings("ignore", ".*tasks (which were still|have been successfully)", UserWarning)
        outcomes = dict(runtime.progress(found, desc, total=len(items)))
    return [outcomes[index] for index in range(len(items))]


def _outcomes(
    function: Callable[[Shared[S], T], R], shared: Shared[S], items: Sequence[T], n_jobs: int
) -> Generator[tuple[int, R | Died], None, None]:
    from joblib import Parallel, delayed, effective_n_jobs

    deaths: Counter[int] = Counter()
    parts, workers = deque([list(range(len(items)))]), effective_n_jobs(n_jobs)
    alone_since = time.monotonic()
    while parts:
        part = parts.popleft()
        try:
            todo = [delayed(_job)(PROCESS, workers > 1, function, shared, items[index]) for index in part]
            with closing(Parallel(n_jobs, return_as="generator")(todo)) as results:
                for result in results:
                    yield part.pop(0), result
                    alone_since = time.monotonic()
        except _InDriverError:  # a cluster that lost all workers but one: joblib turns to this process
            if time.monotonic() > alone_since + PATIENCE:
                raise
            time.sleep(0.5)
            parts.appendleft(part)
        except Exception as error:
            if not _lost_a_process(error):
                raise
            alone_since = time.monotonic()
            if len(part) > 1:
                size = max(1, min(workers, len(part) // 2))
                parts.extendleft(reversed([part[start : start + size] for start in range(0, len(part), size)]))
                continue
            deaths[part[0]] += 1
            if deaths[part[0]] < ATTEMPTS:
                parts.appendleft(part)
            else:
                yield part[0], Died(f"its process died {ATTEMPTS} times ({type(error).__name__}: killed, or out of memory)")


class _InDriverError(RuntimeError):
    """A job was about to run in the process that it must not take with it."""


def _job(driver: str, elsewhere: bool, function: Callable[[Shared[S], T], R], shared: Shared[S], item: T) -> R:
    if driver != PROCESS:
        os.environ["GRAPHPRUNE_QUIET"] = "1"  # the driver's bar counts the jobs; a worker's would run through it
    elif elsewhere:
        raise _InDriverError(f"the cluster has had fewer than two workers for {PATIENCE:.0f} s: start some and run again")
    return function(shared, item)


def _lost_a_process(error: Exception) -> bool:
    """Whether a worker went, and with it (under Dask) perhaps what the jobs share."""
    if type(error).__module__.startswith("distributed"):
        return type(error).__name__ in {"KilledWorker", "FutureCancelledError"}
    return isinstance(error, BrokenExecutor)
