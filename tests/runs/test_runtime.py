import gc
import os
import subprocess
import sys
import time

import pytest
import torch

from graphprune import data, models, train
from graphprune.encoders.encoder import GraphEncoder
from graphprune.ranking.surrogate import Surrogate
from graphprune.runs import runtime
from graphprune.search import trial
from graphprune.training.recipe import Recipe


def draws(*stream, n=8):
    return torch.rand(n, generator=runtime.seed_generator(*stream))


def test_a_stream_repeats_bit_for_bit():
    assert torch.equal(draws(7, "shuffle", 2), draws(7, "shuffle", 2))


def test_streams_differ_by_seed_name_number_and_type():
    streams = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (1, "a")]
    values = {tuple(draws(*stream).tolist()) for stream in streams}
    assert len(values) == len(streams)


def test_a_stream_is_the_same_on_every_machine():
    assert runtime.seed_generator(0, "shuffle").initial_seed() == 3700610171012426664


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_a_bad_seed_names_itself_and_the_remedy(seed):
    with pytest.raises(ValueError, match=r"seed=.*integer >= 0"):
        runtime.seed_generator(seed)


def test_a_stream_part_must_be_text_or_integer():
    with pytest.raises(TypeError, match=r"0\.5.*float"):
        runtime.seed_generator(0, 0.5)


def test_the_device_comes_from_argument_then_environment(monkeypatch):
    monkeypatch.setenv("GRAPHPRUNE_DEVICE", "cpu")
    assert runtime.device() == torch.device("cpu")
    monkeypatch.setenv("GRAPHPRUNE_DEVICE", "abacus")
    assert runtime.device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"GRAPHPRUNE_DEVICE='abacus'.*cpu"):
        runtime.device()
    with pytest.raises(ValueError, match=r"device='cuda:99'.*cpu"):
        runtime.device("cuda:99")


def test_without_a_name_the_device_is_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.delenv("GRAPHPRUNE_DEVICE", raising=False)
    assert runtime.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_root_is_found_from_a_folder_below(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "graphprune"\n')
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.chdir(below)
    monkeypatch.setenv("GRAPHPRUNE_DATA", str(tmp_path / "sets"))
    assert runtime.root() == tmp_path
    assert runtime.run_dir("cifar") == tmp_path / "reports" / "runs" / "cifar"
    assert runtime.data_dirs() == [tmp_path / "sets", tmp_path / "data"]


def test_outside_a_project_the_root_is_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("not = [toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAPHPRUNE_DATA", raising=False)
    assert runtime.root() == tmp_path
    assert runtime.data_dirs() == [tmp_path / "data"]


@pytest.mark.parametrize("profile", ["", "..", "a/b", "a\\b"])
def test_a_profile_cannot_leave_its_folder(profile):
    with pytest.raises(ValueError, match="plain name"):
        runtime.run_dir(profile)


def test_the_stamp_names_versions_and_nothing_private():
    stamp = runtime.environment()
    assert torch.__version__.startswith(stamp["torch"])
    assert stamp["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(isinstance(value, str) and value for value in stamp.values())
    assert os.uname().nodename not in " ".join(stamp.values()).split()
    assert not any(str(folder) in " ".join(stamp.values()) for folder in (os.getcwd(), os.path.expanduser("~")))


def test_the_hardware_line_names_the_device_in_use(monkeypatch):
    monkeypatch.setenv("GRAPHPRUNE_DEVICE", "cpu")
    assert runtime.hardware().startswith(f"{runtime.cores()} cores ")
    assert "\n" not in runtime.hardware()


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with runtime.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="count=0"), runtime.threads(0):
        pass


def test_progress_is_silent_when_quiet(monkeypatch, capfd):
    monkeypatch.setenv("GRAPHPRUNE_QUIET", "1")
    for _ in runtime.progress(range(3), "work"):
        time.sleep(0.8)
    assert capfd.readouterr() == ("", "")


def test_progress_is_silent_for_short_work_and_shows_long_work(monkeypatch, capfd):
    monkeypatch.delenv("GRAPHPRUNE_QUIET", raising=False)
    assert list(runtime.progress(iter(range(3)), "short", total=3)) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")
    for _ in runtime.progress(range(4), "long work"):
        time.sleep(0.6)
    assert "long work" in capfd.readouterr().err


@pytest.mark.parametrize(
    "code",
    [
        "import warnings; warnings.simplefilter('error'); import graphprune.runs.runtime, torch_geometric.nn",
        "import warnings, graphprune.runs.runtime as r; warnings.simplefilter('error'); r.import_pyg()",
    ],
)
def test_importing_pyg_warns_of_nothing(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_seeded_block_draws_the_same_and_leaves_the_caller_s_draws_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = []
    for _ in range(2):
        with runtime.seeded(1):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert torch.equal(torch.rand(3), expected)


def test_a_seeded_block_draws_what_manual_seed_would():
    with runtime.seeded(7):
        ours = torch.rand(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert torch.equal(ours, torch.rand(3))


def test_a_seeded_block_is_undone_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), runtime.seeded(1):
        raise KeyError(torch.rand(1))
    assert torch.equal(torch.get_rng_state(), before)


def _train():
    digits = data.load("digits", device="cpu")
    train.fit(models.tiny_cnn(), digits, Recipe(epochs=0.1, lr=0.1, batch_size=64), seed=0, device="cpu")


@pytest.mark.parametrize(
    "work",
    [
        lambda: GraphEncoder.seeded(0, 4),
        Surrogate,
        lambda: models.seeded("tiny_cnn", 0),
        lambda: trial._renew(models.tiny_cnn(), 0),
        _train,
    ],
    ids=["encoder", "surrogate", "model", "trial", "training"],
)
def test_what_is_seeded_on_the_cpu_seeds_no_gpu(monkeypatch, work):
    """Where there is a GPU, its generators' states would be lost: `torch.manual_seed` seeds them all."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded.append("all GPUs"))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append("a GPU"))
    work()
    assert seeded == []


def test_a_gpu_is_seeded_where_it_is_the_place_and_no_other(monkeypatch):
    """Without a GPU: what torch is asked to do, in order."""
    asked = []

    class Named:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            asked.append(self.name)

        def __exit__(self, *_):
            asked.append(f"end of {self.name}")

    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: Named(f"fork {devices}"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: Named(f"on {device}"))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: asked.append(f"seed {seed}"))
    before = torch.get_rng_state()
    with runtime.seeded(3, torch.device("cuda:1")):
        asked.append("work")
    torch.set_rng_state(before)
    fork = "fork [device(type='cuda', index=1)]"
    assert asked == [fork, "on cuda:1", "seed 3", "end of on cuda:1", "work", f"end of {fork}"]


def test_the_collector_waits_and_goes_on_as_before():
    with runtime.collector_paused():
        assert not gc.isenabled()
        with runtime.collector_paused():
            pass
        assert not gc.isenabled()
        made = [[] for _ in range(3)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert any(found is made for found in gc.get_objects(generation=2))
    gc.freeze()
    try:
        with runtime.collector_paused():
            pass
        assert gc.get_freeze_count() > 0  # what the caller set aside stays so
    finally:
        gc.unfreeze()


def test_the_collector_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), runtime.collector_paused():
        _ = 1 / 0
    assert gc.isenabled()
