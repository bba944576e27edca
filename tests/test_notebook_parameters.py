"""Every notebook runs to its end with any of its parameters changed, as `python -m graphprune run -p NAME VALUE` does it.

Changes that do not depend on each other go into one run, all sizes as small as they may be: a run costs 20 to 40 seconds of
one core, a third of it the imports.
"""

import ast
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

import graphprune
from graphprune.report.notebook import parameters, run

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
STEMS = {path.stem[:2]: path for path in NOTEBOOKS}
UNTRAINED = {"base_epochs": 0.2, "base_lr": 0.05, "base_warmup": 0.0, "base_batch_size": 32}
LIGHT = {"light_epochs": 0.05, "light_lr": 0.02, "light_batch_size": 32}
QUICK = {"resamples": 5, "few_resamples": 5, "replay_count": 20, "live_lessons": 16, "live_epochs": 1, "live_draws": 1000}

CHANGES: dict[str, dict[str, Any]] = {
    "01": {
        **{"networks": "resnet8", "paper_networks": {"resnet20": 0.5}, "cloud_network": "resnet20", "samples": 10, "shown": 3},
        **{"band": 1e-4, "example_ratio": 0.5, "seed": 1},
    },
    "02": {
        **{"network": "resnet8", "base_epochs": 1, "base_lr": 0.05, "base_batch": 128, "labelled": 8, "min_ratio": 0.2},
        **{"finetune_epochs": 0.1, "finetune_lr": 0.03, "finetune_batch": 32, "finetune_seeds": [0, 1, 2], "cost_bands": 2},
        **{"validation_images": 50, "train_configurations": 16, "encoder_epochs": 1, "encoder_batch": 8, "temperature": 0.2},
        **{"encoder_seeds": 1, "untrained_seeds": 1, "n_jobs": 2, "seed": 1},
    },
    "03": {
        **{"network": "resnet8", "seeds": [0, 3], "n_jobs": 1, "budgets": [[0.2, 0.3, 0.5], [0.1, 0.4, 0.7]]},
        **{"arms": ["SACP", "random search", "bee colony", "global L1"], "anchor": "anchor_l1", "loss": "loss_repel_own"},
        **{"temperature": 0.2, "n_train": 8, "contrast_epochs": 1, "n_candidates": 50, "n_random": 200, "proof_seconds": 1.0},
        **{"m": 2, "k": 1, "criterion": "loss", **LIGHT, **UNTRAINED, "full_epochs": 0.05, "full_lr": 0.02, "full_warmup": 0.0},
        **{"full_batch_size": 32, "latency_batch": 2, "latency_threads": 2, "latency_repeats": 3, "proven_seeds": [3]},
    },
    "04": {
        **{"families": ["mlp", "residual"], "train_count": 4, "test_count": 3, "width": 4, "world_steps": 20, "n_jobs": 1},
        **{"budgets": [3, 5], "evaluations": [1, 4, 8], "climbs": 2, "updates": 3, "hidden": 8, "seeds": [0]},
        **{"few_counts": [2], "shares": [0.5, 0.7], "constraint_updates": 3, "constraint_seeds": [1]},
        **{"multipliers": [2.0, 5.0], "design_count": 2, "confirm_count": 2, "confirm_climbs": 2, "ratio_draws": 2},
        **{"sacp": [16, 1, 5000]},
        **{"other_count": 1, "other_share": 0.6},
        **{"pair_count": 2, "network": "tiny_cnn", "real_seeds": [0, 1], "real_share": 0.47, "real_evaluations": [1, 4, 20]},
        **{"images": 40, **UNTRAINED, "long_seeds": [0], "long_evaluations": 20, "single_evaluations": [32, 64]},
        **{"single_count": 2, "test_images": 100, "deep_seeds": [1], "deep_starts": ["agent", "L1"]},
        **{"deep_evaluations": [1, 4, 12]},
    },
    "05": {"k_main": 5, "m_main": 20, "band_count": 10, "seed": 1, **QUICK},
    "06": {
        **{"seeds": [0, 1], "sparsities": [0.5, 0.9], "judged": 0.9, "readings_at": 0.9, "batch_size": 64, "augment": True},
        **{"plans": {"mlp": {"base": [1.0, 0.1], "tune": [0.2, 0.05], "scratch": [0.2, 0.1]}}, "spectra": False},
        **{"ways": ["magnitude, ER", "SNIP", "paths, global (ours)"], "channels_kept": 0.6, "test_images": 200},
        **{"starts": "trained", "tuned_ways": ["magnitude, ER", "paths, global (ours)"]},
    },
    "07": {
        **{"cases": [["digits", "fc-12-8"]], "seeds": [0, 1], "shares": 0.5, "thresholds": 0.1, "base": [2.0, 0.2]},
        **{"tune": [0.2, 0.02], "scratch": [0.2, 0.05], "batch_size": 32, "augment": True, "lam": 2.0, "radius": 1e-4},
        **{"time_limit": 1.0, "class_seconds": 0.1, "head_images": 100, "ways": ["MIP, published", "L1", "random"]},
        **{"radii": 1e-4, "lams": 2.0, "sweep_seconds": 0.5, "batches": 2, "second_dataset": "digits", "sizes": "fc-8"},
    },
    "08": {
        **{"tasks": [["karate", "gin"]], "seeds": [1, 2], "methods": ["dense", "uniform"], "ways": ["global"], "levels": 0.5},
        **{"epochs": 3, "tune_epochs": 2, "sparsities": [0.0, 0.5], "widths": [4, 8], "latency_widths": 8},
        **{"latency_nodes": 50, "latency_rounds": 1},
    },
    "09": {
        **{"side": 16, "network": "timm:test_resnet", "macs": 0.4, "round_to": 2, "base_epochs": 0.2, "tune_epochs": 0.1},
        **{"lr": 0.01, "batch_size": 128, "compare_epochs": 0.1, "seeds": 2, "scenes": 40, "unet_width": 4, "unet_epochs": 1.0},
        **{"unet_tune_epochs": 0.5, "unet_lr": 0.002, "seed": 1},
    },
    "05 tables": {"table_name": "digits_resnet8", "transfer_table": "digits", "other_table": "digits", **QUICK},
}
ELSEWHERE = {"profile", "dataset", "public_weights"}
"""Not changed here: every run changes `profile`; the others need data sets of many images, the profile cifar changes them."""


def names(notebook: str) -> set[str]:
    """The parameters that some run of a notebook, named by its number, changes."""
    return {name for key, values in CHANGES.items() if key[:2] == notebook for name in values}


@pytest.mark.parametrize(
    ("notebook", "name"),
    [(number, name) for number, path in STEMS.items() for name in parameters(path) if name not in ELSEWHERE],
)
def test_a_run_below_changes_the_parameter(notebook: str, name: str) -> None:
    default = parameters(STEMS[notebook])[name]
    assert name in names(notebook), "give it another value in CHANGES"
    assert any(values.get(name, default) != default for key, values in CHANGES.items() if key[:2] == notebook)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the notebooks alone, so that a run leaves nothing in this one."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "graphprune"\n')
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(graphprune.__file__).parents[1]))
    return tmp_path


def finished(project: Path, notebook: str, changes: dict[str, Any]) -> str:
    """Run a notebook with changed parameters to its end; what it printed."""
    done = run(project / "notebooks" / STEMS[notebook].name, overrides=changes)
    assert (done.parent / STEMS[notebook].stem / "results.csv").is_file()
    outputs = [output for cell in nbformat.read(done, as_version=4).cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    return "\n".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("changes", CHANGES)
def test_notebook_runs_to_its_end_with_other_parameters(changes: str, project: Path) -> None:
    finished(project, changes[:2], CHANGES[changes])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_claims_asks_for_its_own_parameters(path: Path) -> None:
    """`profile_of` finds a notebook by its name; later cells may use a parameter's name for something else."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    asked = [place for place, cell in enumerate(cells) if "notebook.profile_of(" in cell]
    if not any("published" in cell for cell in cells):
        assert asked == []
        return
    assert len(asked) == 1
    between = [line for cell in cells[1 : asked[0]] for line in ast.parse(cell).body]  # the parameters stand in the first cell
    assert all(isinstance(line, ast.Import | ast.ImportFrom) for line in between)
    assert f'published = notebook.profile_of("{path.stem}", globals())' in cells[asked[0]]
