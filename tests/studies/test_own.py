"""A network of one's own from start to end: within the budget, saved so that it loads, gone on with after a stop."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import ResNetConfig

import graphprune
from graphprune.studies import own
from graphprune.studies.own import Wish, load_weights, make_data, make_model, prune_own

MODULE = """
import torch, graphprune

def model():
    return graphprune.models.seeded("tiny_cnn", 3, num_classes=2, in_channels=1)

def larger():
    return graphprune.models.seeded("resnet8", 3, num_classes=2, in_channels=1)

def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 8, 8, generator=generator)
    y = (x.mean((1, 2, 3)) > 0.5).long()
    return graphprune.data.from_tensors(train=(x[:40], y[:40]), val=(x[40:50], y[40:50]), test=(x[50:], y[50:]), device="cpu")

def chain():
    # Units 0 and 1 say by how much the sum of the pixels lies above or below 32; units 2 and 3 are large, and not read.
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0, -1.0, 3.0, 3.0])[:, None].expand(4, 64))
        net[1].bias.copy_(torch.tensor([-32.0, 32.0, 0.0, 0.0]))
        net[3].weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
        net[3].bias.zero_()
    return net

def words():
    return "no network"

MODELS = 3

def sized(size):
    return model()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_own_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def wish(**changes: object) -> Wish:
    quick = {"epochs": 0.5, "batch_size": 16, "m": 2, "candidates": 60}
    return Wish(**{"model": "my_own_module:model", "data": "my_own_module:data", **quick, **changes})  # type: ignore[arg-type]


def test_the_network_meets_the_budget_and_loads(here: Path) -> None:
    lines: list[str] = []
    outcome = prune_own(wish(), here / "out", lines.append)
    example = torch.zeros(1, 1, 8, 8)
    small = graphprune.load_pruned(here / "out" / "small.safetensors", graphprune.models.tiny_cnn(2))
    assert graphprune.cost(small, example).macs == outcome.facts["after"]["macs"] <= 0.5 * outcome.facts["before"]["macs"]
    x = torch.rand(4, 1, 8, 8)
    assert small.eval()(x).equal(outcome.network(x))
    assert json.loads((here / "out" / "result.json").read_text()) == outcome.facts
    assert outcome.facts["onnx"]["difference"] < 1e-4
    assert lines[0].startswith("Dataset('own': train 40, val 10, test 10")
    assert lines[-1].startswith("training takes 1 min or less on this machine")


def test_a_search_is_rounded_and_gone_on_with(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "sacp", partial(own.sacp, n_train=32, epochs=1))
    monkeypatch.setattr(own, "_onnx", lambda small, example, path: {"skipped": "not looked at here"})
    asked = wish(model="my_own_module:larger", method="sacp", round_to=4, macs=0.6)
    outcome = prune_own(asked, here / "out", lambda line: None)
    assert all(now % 4 == 0 for was, now in outcome.facts["widths"].values())
    assert outcome.facts["after"]["macs"] <= 0.6 * outcome.facts["before"]["macs"]
    before = {path: path.stat().st_mtime_ns for path in (here / "out" / "work").rglob("*.json")}
    assert len(before) >= 3
    prune_own(asked, here / "out", lambda line: None)
    assert {path: path.stat().st_mtime_ns for path in (here / "out" / "work").rglob("*.json")} == before, "trained once"


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_onnx", lambda small, example, path: {"skipped": "not looked at here"})


@pytest.mark.parametrize(("method", "kept"), [("l1", [False, False, True, True]), ("mip", [True, True, False, False])])
def test_a_program_finds_the_units_that_are_read_and_l1_the_large_ones(
    here: Path, no_onnx: None, method: str, kept: list[bool]
) -> None:
    outcome = prune_own(wish(model="my_own_module:chain", method=method, epochs=0.1), here / method, lambda line: None)
    loaded = graphprune.load_pruned(here / method / "small.safetensors", make_model("my_own_module:chain", "digits"))
    assert outcome.facts["widths"] == {"1": [4, 2]}
    assert loaded[1].weight.sign()[:, 0].tolist() == [sign for sign, stays in zip([1, -1, 1, 1], kept, strict=True) if stays]


@pytest.mark.parametrize("method", ["spectral", "ours", "rl"])
def test_other_methods_go_by_their_names(here: Path, no_onnx: None, method: str) -> None:
    lines: list[str] = []
    asked = wish(method=method, looks=16, macs=0.6, model="my_own_module:larger", round_to=2)
    outcome = prune_own(asked, here / method, lines.append)
    after, before = outcome.facts["after"]["macs"], outcome.facts["before"]["macs"]
    assert 0.5 * before < after <= 0.6 * before
    assert all(now % 2 == 0 for was, now in outcome.facts["widths"].values())
    assert lines[-1].startswith("training takes" if method == "spectral" else "looking and training take")


def test_an_agent_is_gone_on_with(here: Path, no_onnx: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = wish(method="rl", looks=17)  # one update of 16 masks, and the policy's own
    first = prune_own(asked, here / "out", lambda line: None)
    monkeypatch.setattr(own.agent, "_update", lambda *args: pytest.fail("learned again"))
    again = prune_own(asked, here / "out", lambda line: None)
    assert again.facts["widths"] == first.facts["widths"]


def test_a_method_that_does_not_fit_says_why(here: Path) -> None:
    with pytest.raises(ValueError, match="method='mip' scores plain chains of layers alone"):
        prune_own(wish(method="mip"), here / "out", lambda line: None)
    with pytest.raises(ValueError, match="looks=3"):
        wish(looks=3)


def test_networks_of_hugging_face_come_from_a_folder_with_their_weights(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=7)
    config.save_pretrained(tmp_path / "config_alone")
    net = make_model(f"hf:{tmp_path / 'config_alone'}", "digits")
    assert net(torch.zeros(2, 1, 32, 32)).logits.shape == (2, 10), "outputs and inputs as the data have them"
    net.save_pretrained(tmp_path / "trained")
    again = make_model(f"hf:{tmp_path / 'trained'}", "digits")
    assert all(a.equal(b) for a, b in zip(again.parameters(), net.parameters(), strict=True))
    small = graphprune.prune_to(again, torch.zeros(1, 1, 32, 32), macs=0.5)
    assert small.network(torch.zeros(2, 1, 32, 32)).logits.shape == (2, 10)


def test_weights_come_from_safetensors_or_a_state_dict(tmp_path: Path) -> None:
    right = graphprune.models.seeded("tiny_cnn", 5, in_channels=1)
    save_file(right.state_dict(), tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in right.state_dict().items()}}, tmp_path / "b.pt")
    for file in ("a.safetensors", "b.pt"):
        found = load_weights(graphprune.models.tiny_cnn(), tmp_path / file)
        assert all(a.equal(b) for a, b in zip(found.parameters(), right.parameters(), strict=True))
    with pytest.raises(ValueError, match="they are not this network's"):
        load_weights(graphprune.models.build("resnet8"), tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_weights(right, tmp_path / "c.pt")


def test_names_of_networks_and_data(here: Path) -> None:
    assert make_model("resnet8", "digits").linear.out_features == 10
    assert make_model("torchvision:resnet18", "digits").conv1.in_channels == 1
    assert make_data("my_own_module:data").num_classes == 2
    with pytest.raises(ValueError, match=r"model='nothing:here': .*; give module:function, with module.py in this folder"):
        make_model("nothing:here", "digits")
    with pytest.raises(TypeError, match=r"must return a torch.nn.Module, and returned a str"):
        make_model("my_own_module:words", "digits")
    for name in ("my_own_module", "my_own_module:"):
        with pytest.raises(
            ValueError, match=r"unknown model name .*give module:function, for example my_own_module:make_model$"
        ):
            make_model(name, "digits")
    with pytest.raises(ValueError, match=r"unknown data set name .*give module:function, for example my_own_module:make_data$"):
        make_data("my_own_module")
    with pytest.raises(TypeError, match=r"MODELS.: MODELS must be a function, and is 3; give module:function$"):
        make_model("my_own_module:MODELS", "digits")
    with pytest.raises(TypeError, match=r"^model='my_own_module:sized': the function must take \(\), and takes \(size\)$"):
        make_model("my_own_module:sized", "digits")
    with pytest.raises(TypeError, match="must return a graphprune data set"):
        make_data("my_own_module:words")
    with pytest.raises(ValueError, match="method='magic': must be one of l1, spectral, mip, sacp, ours, rl"):
        wish(method="magic")
    with pytest.raises(ValueError, match=r"macs=1.5"):
        wish(macs=1.5)
    assert os.getcwd() == str(here)
