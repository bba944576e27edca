"""A mask's result is the pruned network's: calibrated, evaluated; whichever way it is found, and however many at once."""

import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from noise import noise
from torch import nn
from torchvision.models import VisionTransformer

from graphprune import data, models, prune, trace, train
from graphprune.pruning.evaluator import MaskEvaluator, largest_map
from graphprune.training.splits import TensorSplit

SEEN, SHOWN = 24, 40


@dataclass(frozen=True, eq=False)
class DoubleSplit(TensorSplit):
    """Its images in double precision, for networks in double precision."""

    def _prepare(self, *arguments):
        return ((x.double(), y) for x, y in super()._prepare(*arguments))


def doubled(channels, side):
    """Noise in double precision, 60 images, the same in all three splits."""
    small = noise(60, channels, side)
    split = DoubleSplit(**vars(small.train))
    return replace(small, train=split, val=split, test=split)


def awake(model):
    """In double precision, BN scales, shifts and biases drawn: fresh ones are 1 and 0 and would hide mistakes."""
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = torch.rand(parameter.shape, generator=draw) + 0.2
    return model.double()


def masks_of(graph, n, share=0.6):
    """n random masks that leave every group a channel."""
    kept = torch.rand(n, graph.num_atoms, generator=torch.Generator().manual_seed(0)) < share
    for span in graph.slices.values():
        kept[:, span.start] = True
    return kept


def oracle(model, graph, dataset, kept, images=SHOWN, calibration=SEEN, seed=0):
    """prune, train.reestimate_bn, train.evaluate, one after the other: (B,) accuracies, (B,) losses."""
    found = []
    for mask in kept:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="prune removes nothing")
            small = prune(model, graph, graph.unflatten(mask))
        train.reestimate_bn(small, dataset, batches=1, batch_size=calibration, seed=seed)
        found.append(train.evaluate(small, dataset.val.take(torch.arange(images))))
    return torch.tensor([[one.accuracy, one.loss] for one in found], dtype=torch.float64).T


class FlattenNet(nn.Module):
    """As the first VGGs end: places and channels flattened into a linear layer, dropout, and no BN in the head."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(5 * 16, 12), nn.Sigmoid(), nn.Dropout(), nn.Linear(12, 10))

    def forward(self, x):
        return self.head(self.features(x))


class DenseNet(nn.Module):
    """BN before the convolution, over all that was concatenated; BN without scale; a linear layer over rows."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(4), nn.BatchNorm2d(7, affine=False), nn.BatchNorm1d(12)
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.one(torch.sigmoid(self.bn1(x)))], 1)
        x = torch.cat([x, self.two(self.bn2(x).relu())], 1)
        return self.last(self.bn3(x.mean((2, 3))))


class Shared(nn.Module):
    """One BN layer called twice: its statistics are the mean over both calls."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.bn = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 10)

    def forward(self, x):
        return self.last(self.bn(self.two(self.bn(self.one(x)).relu())).mean((2, 3)))


def sequential(*middle):
    return nn.Sequential(nn.Conv2d(3, 8, 3), *middle, nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 10))


FAST = {
    "resnet8": (lambda: models.seeded("resnet8", 0), 8),
    "resnet20a": (lambda: models.seeded("resnet20a", 0), 16),
    "flattened": (FlattenNet, 14),
    "dense": (DenseNet, 8),
    "mobilenet": (lambda: models.seeded("torchvision:mobilenet_v3_small", 0), 32),
}


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("name", FAST)
def test_a_masks_result_is_the_pruned_networks(name, at_once):
    build, side = FAST[name]
    model, dataset = awake(build()), doubled(3, side)
    graph = trace(model, dataset.example())
    evaluator = MaskEvaluator(model, graph, dataset, images=SHOWN, calibration=SEEN, at_once=at_once)
    assert (evaluator.fallback, evaluator.at_once) == ("", at_once)
    kept = masks_of(graph, 4)
    accuracy, loss = oracle(model, graph, dataset, kept)
    found = evaluator(kept)
    assert torch.equal(found.accuracy, accuracy)
    assert torch.allclose(found.loss, loss, rtol=1e-10, atol=1e-10)
    assert len(loss.unique()) == 4  # masks do matter


OTHERS = {
    "grouped": (lambda: sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2)), "grouped"),
    "layer norm": (lambda: sequential(nn.LayerNorm([8, 6, 6])), "what only pruning knows of"),
    "group norm": (lambda: sequential(nn.GroupNorm(2, 8)), "what only pruning knows of"),
    "untracked": (lambda: sequential(nn.BatchNorm2d(8, track_running_stats=False)), "keeps no running statistics"),
    "shared": (Shared, "hidden channels change its outputs"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_of_another_kind_is_pruned_for_every_mask(name):
    build, why = OTHERS[name]
    torch.manual_seed(0)
    model, dataset = awake(build()), doubled(3, 8)
    graph = trace(model, dataset.example())
    evaluator = MaskEvaluator(model, graph, dataset, images=SHOWN, calibration=SEEN, at_once=2)
    assert why in evaluator.fallback
    assert evaluator.at_once == 1
    kept = masks_of(graph, 3)
    accuracy, loss = oracle(model, graph, dataset, kept)
    found = evaluator(kept)
    assert torch.equal(found.accuracy, accuracy)
    assert torch.allclose(found.loss, loss, rtol=1e-10, atol=1e-10)


def test_a_functional_convolution_is_pruned_for_every_mask():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.last = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.Linear(4, 10)

        def forward(self, x):
            return self.last(nn.functional.conv2d(x, self.weight).mean((2, 3)))

    model, dataset = Functional(), noise(60, 3, 8)
    evaluator = MaskEvaluator(model, trace(model, dataset.example()), dataset, calibration=SEEN)
    assert "is a function with weights" in evaluator.fallback


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture
def net():
    return models.seeded("resnet8", 0, in_channels=1)


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_full_mask_is_the_network_itself(net, resnet8, digits, at_once):
    evaluator = MaskEvaluator(net, resnet8, digits, seed=5, at_once=at_once)
    found = evaluator(torch.ones(1, resnet8.num_atoms, dtype=torch.bool))
    train.reestimate_bn(net, digits, batches=1, batch_size=128, seed=5)
    expected = train.evaluate(net, digits.val)
    assert found.accuracy.tolist() == [expected.accuracy]
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5)
    assert found.accuracy.dtype == found.loss.dtype == torch.float64


@pytest.mark.parametrize("at_once", [1, 3])
def test_neither_the_number_nor_the_order_of_masks_counts(net, resnet8, digits, at_once):
    evaluator, kept = MaskEvaluator(net, resnet8, digits, images=100, at_once=at_once), masks_of(resnet8, 5)
    order = torch.tensor([3, 0, 4, 2, 1])
    together, turned = evaluator(kept), evaluator(kept[order])
    single = torch.cat([evaluator(mask[None]).loss for mask in kept])
    assert torch.allclose(together.loss[order], turned.loss, rtol=1e-5)
    assert torch.allclose(together.loss, single, rtol=1e-5)
    assert evaluator(kept[:0]).accuracy.shape == (0,)


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_model_is_left_alone_and_later_changes_do_not_count(net, resnet8, digits, at_once):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluator, kept = MaskEvaluator(net, resnet8, digits, images=50, at_once=at_once), masks_of(resnet8, 2)
    first = evaluator(kept)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks and not module._forward_hooks for module in net.modules())
    with torch.no_grad():
        net.conv1.weight.zero_()
    assert torch.equal(evaluator(kept).loss, first.loss)
    assert not first.loss.is_inference()


def test_a_cpu_takes_masks_one_at_a_time(net, resnet8, digits):
    assert MaskEvaluator(net, resnet8, digits).at_once == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, r"images=0: must be a whole number, 1 to 300 \(the validation images there are; None takes all\)"),
        ({"images": 301}, r"images=301: .* 1 to 300"),
        ({"calibration": 1}, r"calibration=1: .* 2 to 1137"),
        ({"calibration": 1138}, r"calibration=1138: .* 2 to 1137"),
        ({"at_once": 0}, r"at_once=0: .* at least 1"),
        ({"at_once": 1.5}, r"at_once=1.5: .* whole number"),
    ],
)
def test_bad_arguments_are_named(net, resnet8, digits, changes, message):
    with pytest.raises(ValueError, match=message):
        MaskEvaluator(net, resnet8, digits, **changes)


def test_data_with_fewer_training_images_than_usual_calibrates_with_all_of_them(net, resnet8, digits):
    few = replace(digits, train=digits.train.take(torch.arange(20)))
    kept = masks_of(resnet8, 2)
    found, all_of_them = MaskEvaluator(net, resnet8, few)(kept), MaskEvaluator(net, resnet8, few, calibration=20)(kept)
    assert torch.equal(found.loss, all_of_them.loss)


def test_modules_that_put_out_tuples_are_evaluated():
    """Attention puts out its result and None, or its weights."""
    vit = VisionTransformer(8, 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=6, num_classes=10)
    images = noise(40, 3, 8)
    graph = trace(vit, images.example())
    kept = masks_of(graph, 2)
    found = MaskEvaluator(vit, graph, images, calibration=8)(kept)
    accuracy, loss = oracle(vit.eval(), graph, images, kept, images=len(images.val), calibration=8)
    assert found.accuracy.tolist() == accuracy.tolist()
    torch.testing.assert_close(found.loss, loss)


def test_the_largest_map_is_found_in_whatever_a_module_puts_out():
    """None, and tensors in tuples and dictionaries: 3 * 8 * 8 numbers in, at most 5 * 100 out."""

    class Nested(nn.Module):
        def forward(self, x):
            return {"a": (x[:, :1], None), "b": [x.new_zeros(5, 100)]}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Nested()

        def forward(self, x):
            return self.inner(x)["a"][0]

    assert largest_map(Net(), torch.zeros(1, 3, 8, 8)) == 500


def test_a_model_that_fits_not_the_graph_or_the_data_is_refused(net, resnet8, digits):
    with pytest.raises(ValueError, match="model is not the network that was traced"):
        MaskEvaluator(models.tiny_cnn(), resnet8, digits)
    with pytest.raises(ValueError, match="model: it does not take images of shape"):
        MaskEvaluator(net, resnet8, noise(200, 3, 8))


def test_bad_masks_are_named(net, resnet8, digits):
    evaluator, kept = MaskEvaluator(net, resnet8, digits, images=10, calibration=8), masks_of(resnet8, 3)
    atoms = resnet8.num_atoms
    for wrong in (kept[0], kept[:, 1:], kept.float(), kept.tolist()):
        with pytest.raises(ValueError, match=rf"kept must be a bool tensor of shape \(B, {atoms}\).*, got"):
            evaluator(wrong)
    group = resnet8.groups[1].name
    kept[2, resnet8.slices[group]] = False
    with pytest.raises(ValueError, match=rf"kept\[2\] keeps no channel of group '{group}': at least one must stay"):
        evaluator(kept)


@pytest.mark.parametrize("shape", [(12,), (4, 6, 6, 50)], ids=["tables", "volumes"])
def test_inputs_that_are_no_images_are_evaluated(shape):
    """300 rows of 12 numbers, or volumes of 300 places a slice: channels last is a layout of images alone."""
    draw = torch.Generator().manual_seed(3)
    if len(shape) == 1:
        net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    else:
        net = nn.Sequential(nn.Conv3d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3))
    count = 300 if len(shape) == 1 else 4
    x, y = torch.rand(count, *shape, generator=draw), torch.arange(count) % 3
    own = data.from_tensors(train=(x, y), val=(x, y), device="cpu")
    graph = trace(net, x[:1])
    masks = masks_of(graph, 3)
    found = MaskEvaluator(net, graph, own, calibration=4)(masks)
    for mask, accuracy, loss in zip(masks, found.accuracy.tolist(), found.loss.tolist(), strict=True):
        right = train.evaluate(prune(net, graph, graph.unflatten(mask)), own.val)
        assert accuracy == pytest.approx(right.accuracy)
        assert loss == pytest.approx(right.loss, abs=1e-4)
