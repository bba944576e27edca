"""Where and how a run happens: seeds, device, folders, the environment stamp, progress bars."""

import gc
import hashlib
import importlib
import importlib.metadata
import os
import platform
import sys
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

T = TypeVar("T")


def _accept_jit() -> None:
    """torch-geometric calls torch.jit.script while it is imported: no notebook should store that warning."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", category=category)


_accept_jit()  # for every module that imports torch-geometric at its top, after this one


def import_pyg() -> None:
    """Import torch-geometric without its warning, whatever the filters are by now: call it before a late import."""
    with warnings.catch_warnings():
        _accept_jit()
        importlib.import_module("torch_geometric")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's search for circular garbage waits, a tenth of the time where many objects are made and most are kept.

    What was made meanwhile counts as old afterwards: the next full search looks at it, not the next short one.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()  # young ones become old ones, unsearched
            gc.enable()


def seed_generator(seed: int, *stream: str | int) -> torch.Generator:
    """One of the independent random streams of a seed, on the CPU.

    The generator's seed is a hash of `(seed, *stream)`, so streams of one seed, and equal streams of neighbouring
    seeds, have nothing in common.

    Args:
        seed: the run's seed, any integer >= 0.
        stream: names or numbers that say what the randomness is for.
    Raises:
        ValueError: `seed` is no integer >= 0.
        TypeError: a part of `stream` is neither text nor an integer.

    >>> import torch
    >>> a, b = seed_generator(0, "shuffle", 3), seed_generator(0, "shuffle", 3)
    >>> bool((torch.rand(5, generator=a) == torch.rand(5, generator=b)).all())
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r}: must be an integer >= 0, e.g. seed=0")
    for part in stream:
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise TypeError(f"stream part {part!r} is a {type(part).__name__}: name a stream with text or integers")
    key = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's global randomness from `seed` inside the `with` block, and as it was after it.

    Args:
        seed: of the CPU's generator, and of the GPU's if `device` is one. No other device's generator is touched, so that
            what runs there draws as if nothing had happened.
        device: where random numbers are drawn; the CPU unless given.

    >>> with seeded(3):
    ...     first = torch.rand(2)
    >>> with seeded(3):
    ...     print(torch.equal(torch.rand(2), first))
    True
    """
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def device(name: str | None = None) -> torch.device:
    """The device to compute on: `name`, else `$GRAPHPRUNE_DEVICE`, else the first GPU, else the CPU.

    Raises:
        ValueError: the name is unknown, or that device is not in this machine.

    >>> device("cpu")
    device(type='cpu')
    """
    source = "device" if name is not None else "GRAPHPRUNE_DEVICE"
    wanted = name if name is not None else os.environ.get("GRAPHPRUNE_DEVICE")
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(wanted)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"{source}={wanted!r} cannot be used here; this machine has: {', '.join(here)}") from error
    return found


def root() -> Path:
    """The project's folder: the nearest one, from the working folder up, whose pyproject.toml names graphprune."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_project(folder / "pyproject.toml")), here)


def _is_project(file: Path) -> bool:
    try:
        return tomllib.loads(file.read_text()).get("project", {}).get("name") == "graphprune"
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def run_dir(profile: str = "laptop") -> Path:
    """The folder a profile's runs write to, `reports/runs/<profile>` (not created here).

    Raises:
        ValueError: `profile` is no plain folder name.
    """
    if not profile or profile in {".", ".."} or set(profile) & set("/\\"):
        raise ValueError(f"profile={profile!r}: must be a plain name, e.g. 'laptop', 'cifar' or 'paper'")
    return root() / "reports" / "runs" / profile


def data_dirs() -> list[Path]:
    """The folders data sets are looked up in, in order: `$GRAPHPRUNE_DATA`, then the project's `data/`."""
    named = os.environ.get("GRAPHPRUNE_DATA")
    return [*([Path(named).expanduser()] if named else []), root() / "data"]


def environment() -> dict[str, str]:
    """What a result was made with: versions, processor, threads and GPU; no host name, no path, no date."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "torch-geometric", "timm", "numpy")},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cores()} cores {_cpu()}",
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def hardware() -> str:
    """One short line that says what numbers were measured on, e.g. `2 cores Intel Xeon Processor`."""
    cpu = f"{cores()} cores {_cpu()}"
    on_gpu = device().type == "cuda"
    return f"{torch.cuda.get_device_name()} + {cpu}" if on_gpu else cpu


def cores() -> int:
    """The number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def has_avx512() -> bool:
    """Whether torch computes with AVX-512 on this CPU; those without it add up in another order."""
    return bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512"))


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((named[0] if named else platform.processor() or platform.machine()).split())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of a block; each module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the `with` block, and as many as before after it.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count={count!r}: torch needs at least 1 thread")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def progress(iterable: Iterable[T], desc: str, total: int | None = None) -> Iterable[T]:
    """`iterable` with a progress bar that appears after 2 seconds and leaves nothing behind.

    With `$GRAPHPRUNE_QUIET` set there is no bar, so that stored notebook outputs do not hold timings.
    """
    if os.environ.get("GRAPHPRUNE_QUIET"):
        return iterable
    return tqdm(iterable, desc=desc, total=total, delay=2, leave=False)


def tell(bar: Iterable[Any], **numbers: float) -> None:
    """Show numbers beside a progress bar; of another iterable nothing is shown."""
    if isinstance(bar, tqdm):
        bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()})
