"""Weight masks: applied, counted, held through training, saved whole or not at all."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from graphprune import data, models, train
from graphprune.pruning import weight_baselines, weight_masks
from graphprune.runs import runtime
from graphprune.train import Recipe

runtime.import_pyg()
from torch_geometric.nn import GCNConv  # noqa: E402


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))


def half(model):
    return {name: w.detach().abs() > w.detach().abs().median() for name, w in weight_masks.prunable(model).items()}


def test_prunable_weights_are_those_of_convolutions_and_linear_layers():
    assert list(weight_masks.prunable(small())) == ["0.weight", "4.weight"]
    assert list(weight_masks.prunable(nn.Linear(2, 2))) == ["weight"]


def test_the_linear_layers_of_pyg_are_pruned_too():
    """9 of 10 of all 1,433 x 64 + 64 x 64 + 64 x 7 weights, not of the last layer's alone."""
    net = nn.ModuleList([GCNConv(1433, 64), GCNConv(64, 64), nn.Linear(64, 7)])
    weights = weight_masks.prunable(net)
    assert list(weights) == ["0.lin.weight", "1.lin.weight", "2.weight"]
    small = weight_masks.apply(net, weight_baselines.magnitude(net, None, 0.9))
    zeros = sum(int((w == 0).sum()) for w in small.parameters() if w.ndim == 2)
    assert zeros == 96256 - round(0.1 * 96256)


def test_weights_that_no_mask_prunes_are_those_said():
    assert list(weight_masks.prunable(nn.MultiheadAttention(4, 2))) == ["out_proj.weight"]
    with pytest.raises(ValueError, match=r"'lin\.weight' of a lazy layer has no size yet"):
        weight_masks.prunable(GCNConv(-1, 2))


def test_a_shared_weight_is_there_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert list(weight_masks.prunable(net)) == ["0.weight"]


def test_apply_zeroes_what_is_pruned_and_touches_nothing_else():
    net = small()
    mask = {"4.weight": torch.zeros(10, 72, dtype=torch.bool)}
    twin = weight_masks.apply(net, mask)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(twin(x), net[4].bias.expand(2, 10))
    torch.testing.assert_close(twin[0].weight, net[0].weight)
    assert bool((net[4].weight != 0).all())


def test_count_by_hand():
    found = weight_masks.count({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True])})
    assert (found.kept, found.total, found.sparsity) == (2, 5, 0.6)


def test_training_leaves_pruned_weights_at_zero_and_moves_the_others():
    digits, net = data.load("digits", device="cpu"), small()
    mask = half(net)
    recipe = Recipe(epochs=1, lr=0.1, batch_size=128, weight_decay=0.1, nesterov=True)
    tuned = weight_masks.finetune(net, mask, digits, recipe, seed=0)
    for name, weight in weight_masks.prunable(tuned).items():
        assert bool((weight[~mask[name]] == 0).all())
        assert bool((weight[mask[name]] != weight_masks.prunable(net)[name][mask[name]]).any())
    again = weight_masks.finetune(net, mask, digits, recipe, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(tuned.state_dict().values(), again.state_dict().values(), strict=True))
    train.fit(tuned, digits, recipe, seed=0)  # no hook is left behind
    assert any(bool((weight[~mask[name]] != 0).any()) for name, weight in weight_masks.prunable(tuned).items())


def test_saved_masks_come_back_and_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    net, path = small(), tmp_path / "mask.safetensors"
    mask = half(net)
    weight_masks.save(path, mask)
    back = weight_masks.load(path, net)
    assert list(back) == sorted(mask)
    assert all(torch.equal(back[name], mask[name]) for name in mask)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        weight_masks.save(path, {name: ~kept for name, kept in mask.items()})
    assert [file.name for file in tmp_path.iterdir()] == ["mask.safetensors"]
    assert torch.equal(weight_masks.load(path)["0.weight"], mask["0.weight"])


def test_files_that_are_no_mask_are_refused(tmp_path):
    path = tmp_path / "mask.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        weight_masks.load(path)
    weight_masks.save(path, half(small()))
    with pytest.raises(ValueError, match=r"mask: '0\.weight' is no prunable weight"):
        weight_masks.load(path, nn.Linear(2, 2))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        weight_masks.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no weight mask"):
        weight_masks.load(path)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"weight": torch.ones(2, 2)}, r"'weight' is torch\.float32 \(2, 2\), but must be torch\.bool \(2, 2\)"),
        ({"weight": torch.ones(3, 2, dtype=torch.bool)}, r"\(3, 2\), but must be"),
        ({"bias": torch.ones(2, dtype=torch.bool)}, "'bias' is no prunable weight of this network; it has weight"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        weight_masks.apply(nn.Linear(2, 2), mask)


def test_what_is_no_mask_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="'weight' is no bool tensor"):
        weight_masks.save(tmp_path / "mask.safetensors", {"weight": torch.ones(2)})
    with pytest.raises(ValueError, match="no entry"):
        weight_masks.count({})


def test_a_parametrized_weight_is_named():
    net = nn.Sequential(torch.nn.utils.parametrizations.orthogonal(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="the weight of layer '0' is no parameter"):
        weight_masks.prunable(net)


def test_pretrained_names_are_found_in_a_network_of_blocks():
    names = list(weight_masks.prunable(models.build("resnet8", in_channels=1)))
    assert names[0] == "conv1.weight"
    assert names[-1] == "linear.weight"
