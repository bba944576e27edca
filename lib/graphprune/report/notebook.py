"""Run a notebook under a profile, compare its tables with the committed ones, and publish them.

A profile is a set of parameters: `laptop` is every notebook's own parameters cell, any other is a file
`notebooks/profiles/<profile>.yaml` nested by notebook (`03_search: {seeds: 5}`). Runs live in `reports/runs/<profile>`,
published results in `reports/<profile>`.
"""

from __future__ import annotations

import ast
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from graphprune.runs import runtime

if TYPE_CHECKING:
    import pandas as pd

LAPTOP = "laptop"
CUSTOM = "custom"  # where a run with hand-given parameters goes, so that it never passes for a profile's own run
HEARTBEAT = 30.0  # seconds between two lines about a notebook that is still running
KINDS: dict[str, tuple[type, ...]] = {
    "a truth value": (bool,),
    "a number": (int, float),
    "text": (str,),
    "a list": (list, tuple),
    "a mapping": (dict,),
}
LIST = (list, tuple)


class NotebookFailed(RuntimeError):
    """A cell of a notebook raised, or its kernel died."""


def profiles() -> list[str]:
    """The names of the profiles there are, `laptop` first."""
    return [LAPTOP, *sorted(file.stem for file in (runtime.root() / "notebooks" / "profiles").glob("*.yaml"))]


def parameters(notebook: Path) -> dict[str, Any]:
    """A notebook's parameters and their default values, read from its cell tagged `parameters` without running it.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: the cell is missing, or assigns something that is not a literal.
    """
    if not notebook.is_file():
        known = ", ".join(sorted(file.stem for file in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(f"notebook={str(notebook)!r} does not exist; notebooks there: {known}")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"notebook={notebook.name!r} has {len(tagged)} cells tagged 'parameters': give it exactly one")
    found: dict[str, Any] = {}
    for line in ast.parse("".join(tagged[0]["source"])).body:
        try:
            found |= _assigned(line)
        except ValueError as error:
            text = ast.unparse(line)
            raise ValueError(
                f"notebook={notebook.name!r}: {text!r} among the parameters is no literal; move it to the next cell"
            ) from error
    return found


def _assigned(line: ast.stmt) -> dict[str, Any]:
    if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
        return {line.targets[0].id: ast.literal_eval(line.value)}
    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
        return {line.target.id: ast.literal_eval(line.value)}
    raise ValueError("no assignment")


def settings(notebook: Path, profile: str = LAPTOP, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters a run hands to a notebook: the profile's, then `overrides`, and the `profile` it writes under.

    A single value given for a parameter that is a list becomes a list of one: `seeds` 3 means `[3]`.

    Raises:
        ValueError: the profile, the notebook's entry in it or a parameter name is unknown, or a value is of another
            kind than the parameter's default, or holds values of another kind than the default list does.
    """
    known, given = parameters(notebook), dict(overrides or {})
    if "profile" not in known:
        raise ValueError(f"notebook={notebook.name!r} has no parameter 'profile': add profile = 'laptop' to its cell")
    values = {name: _checked(name, value, known, notebook) for name, value in (_named(notebook.stem, profile) | given).items()}
    if given.get("profile") in profiles():
        raise ValueError(f"profile={given['profile']!r} would overwrite that profile's own run: choose another name")
    return values | {"profile": given.get("profile", CUSTOM) if given else profile}


def notebooks(profile: str = LAPTOP) -> list[str]:
    """The names of the notebooks a profile runs: all for `laptop`, else those its file has an entry for."""
    if profile == LAPTOP:
        return sorted(file.stem for file in (runtime.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return list(_nested(profile))


def check_profile(profile: str) -> None:
    """Raise a ValueError that lists the profiles if `profile` is none of them."""
    if profile not in profiles():
        raise ValueError(f"profile={profile!r} is unknown: use one of {', '.join(profiles())}")


def profile_of(stem: str, values: Mapping[str, Any]) -> str | None:
    """The profile whose parameters these are, or None where one of them was changed.

    A notebook asks this before it checks what its text claims: those numbers were found with a profile's own parameters.

    Args:
        stem: the notebook's name; it is looked up in `notebooks/` of the project.
        values: at least its parameters, e.g. `globals()`. `profile` is not looked at: it only names a folder.

    Returns:
        `"laptop"` for the defaults, else the name of another profile; None also where the notebook is not in the project.

    >>> profile_of("05_ablations", parameters(runtime.root() / "notebooks" / "05_ablations.ipynb"))
    'laptop'
    """
    notebook = runtime.root() / "notebooks" / f"{stem}.ipynb"
    if not notebook.is_file():
        return None
    known = parameters(notebook)
    for profile in profiles():
        if stem in notebooks(profile):
            wanted = known | settings(notebook, profile)
            if all(values[name] == wanted[name] for name in known if name != "profile"):
                return profile
    return None


def trains_alike() -> bool:
    """Whether a training on this CPU ends in the same bits as on the one that the committed results come from.

    CPUs with other instructions add up in another order, and a training magnifies the last digit into another network. So
    what a text states of trained networks can be checked to the stated digit on CPUs with AVX-512 alone; a notebook asks this
    before it does.

    >>> isinstance(trains_alike(), bool)
    True
    """
    return runtime.has_avx512()


def published(profile: str, name: str) -> pd.DataFrame | None:
    """A table of `reports/<profile>` as it was committed, so that a notebook can quote another profile's rows.

    Args:
        name: the file's, without `.csv`, e.g. "weight_rows" or "07_mip_neurons/contest".
    Returns:
        the table, or None where there is none.
    Raises:
        ValueError: the profile is unknown.

    >>> published("cifar", "nothing") is None
    True
    """
    check_profile(profile)
    path = runtime.root() / "reports" / profile / f"{name}.csv"
    import pandas as pd  # here, so that the command line starts at once

    return pd.read_csv(path) if path.is_file() else None


def _nested(profile: str) -> dict[str, dict[str, Any]]:
    check_profile(profile)
    file = runtime.root() / "notebooks" / "profiles" / f"{profile}.yaml"
    import yaml  # here, so that the command line needs it for profiles only

    nested = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(nested, dict) or not all(isinstance(entry, dict) for entry in nested.values()):
        raise ValueError(f"{file.name}: must map notebook names to mappings of parameters, as in '03_search: {{seeds: 5}}'")
    return nested


def _named(stem: str, profile: str) -> dict[str, Any]:
    if profile == LAPTOP:
        return {}
    nested = _nested(profile)
    if stem not in nested:
        raise ValueError(f"profile={profile!r} has no entry for {stem!r}: it names {', '.join(nested)}")
    return nested[stem]


def _checked(name: str, value: Any, known: Mapping[str, Any], notebook: Path) -> Any:
    """The value, of the default's kind: a single one given for a list becomes a list of one."""
    if name not in known:
        raise ValueError(f"{name!r} is no parameter of {notebook.stem}: its parameters are {', '.join(known)}")
    default = known[name]
    if value is None or default is None:
        return value
    if isinstance(default, LIST):
        value = list(value) if isinstance(value, LIST) else [value]
        kinds = {_kind(part) for part in default}
        for part in value:
            if default and _kind(part) not in kinds:
                wanted = " or ".join(sorted(kinds))
                raise ValueError(f"{name}={value!r} of {notebook.stem}: {part!r} in it must be {wanted}, as in {default!r}")
    elif _kind(default) != _kind(value):
        raise ValueError(
            f"{name}={value!r} of {notebook.stem} is {_kind(value)}, but must be {_kind(default)} like {default!r}"
        )
    return value


def _kind(value: Any) -> str:
    return next((kind for kind, types in KINDS.items() if isinstance(value, types)), type(value).__name__)


def run(notebook: Path, profile: str = LAPTOP, overrides: Mapping[str, Any] | None = None) -> Path:
    """Execute a notebook with papermill; its executed copy appears, whole, at `reports/runs/<profile>/<name>.ipynb`.

    Progress goes to the terminal. With `overrides` the run is written under the profile `custom`, or under the name
    that `overrides["profile"]` gives.

    Raises:
        ValueError, FileNotFoundError: see `settings`; nothing has run then.
        NotebookFailed: the executed copy, with the error on top, is at `<name>.failed.ipynb`; an earlier good copy
            stays.

    >>> run(Path("notebooks/03_search.ipynb"), "cifar")  # doctest: +SKIP
    """
    values = settings(notebook, profile, overrides)
    folder = runtime.run_dir(values["profile"])
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = folder / f"{notebook.stem}.ipynb", folder / f"{notebook.stem}.failed.ipynb"
    partial, label = folder / f".{notebook.stem}.running.ipynb", f"{notebook.stem} [{values['profile']}]"
    with FileLock(folder / f".{notebook.stem}.lock"):
        begun = time.monotonic()
        partial.write_bytes(notebook.read_bytes())
        before = partial.stat().st_mtime_ns
        try:
            with _heartbeat(partial, label):
                _execute(notebook, partial, values)
        except Exception as error:
            partial.replace(failed)
            message = f"{label}: failed after {time.monotonic() - begun:.0f} s; see {failed}\n{str(error).strip()}"
            raise NotebookFailed(message) from error
        for file in outputs(folder / notebook.stem):  # an earlier version of the notebook wrote these
            if file.stat().st_mtime_ns < before:
                file.unlink()
        failed.unlink(missing_ok=True)
        partial.replace(done)
    print(f"{label}: done in {time.monotonic() - begun:.0f} s", flush=True)
    return done


def _execute(notebook: Path, output: Path, values: Mapping[str, Any]) -> None:
    import nbformat
    import papermill

    try:
        papermill.execute_notebook(
            notebook.resolve(),
            output,
            dict(values),
            kernel_name="python3",
            language="python",
            cwd=notebook.resolve().parent,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # each kernel start would warn about its transport
        )
    except papermill.PapermillExecutionError:
        raise  # papermill has put the error on top
    except Exception as error:  # a dead kernel, say
        executed = nbformat.read(output, as_version=4)
        executed.cells.insert(0, nbformat.v4.new_markdown_cell(f"**{type(error).__name__}**: {error}"))
        nbformat.write(executed, output)
        raise


@contextmanager
def _heartbeat(partial: Path, label: str) -> Iterator[None]:
    stop, begun = threading.Event(), time.monotonic()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            try:  # papermill saves the notebook after every cell
                cells = json.loads(partial.read_text(encoding="utf-8"))["cells"]
            except (OSError, ValueError):
                continue
            ran = sum(cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells)
            print(f"{label}: {ran} of {len(cells)} cells, {time.monotonic() - begun:.0f} s", flush=True)

    print(f"{label}: started", flush=True)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def outputs(folder: Path) -> list[Path]:
    """The tables and figures a notebook has written into its folder, sorted by name."""
    return sorted(file for file in folder.glob("*") if file.suffix in {".csv", ".png", ".svg"})
