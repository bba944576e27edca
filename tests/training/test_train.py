import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphprune import data, models, train
from graphprune.runs import runtime, store
from graphprune.train import Evaluation, Recipe

CPU = "cpu"
SHORT = Recipe(epochs=1, lr=0.1, batch_size=64)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device=CPU)


@pytest.fixture
def net():
    return models.seeded("resnet8", 0, num_classes=10, in_channels=1)


def part(digits, n):
    """The data set with its first n training images only."""
    return replace(digits, train=digits.train.take(torch.arange(n)))


def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    nn.init.zeros_(model[1].weight)
    return model


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", -1), ("epochs", math.inf), ("epochs", math.nan), ("lr", 0.0), ("lr", math.nan),
        ("batch_size", 0), ("batch_size", 1.5), ("batch_size", True), ("momentum", 1.0), ("momentum", -0.1),
        ("weight_decay", -1e-4), ("label_smoothing", 1.0), ("warmup", 1.0), ("temperature", 0), ("teacher_weight", 1.5),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named_with_the_remedy(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}: must be "):
        replace(SHORT, **{name: value})


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match=r"nesterov=True.*momentum is 0"):
        replace(SHORT, nesterov=True, momentum=0.0)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "images", "steps"),
    [(1, 64, 1137, 18), (2, 64, 1137, 36), (0.5, 64, 1137, 9), (0.01, 64, 1137, 1), (1.1, 10, 100, 11),
     (0.3, 10, 100, 3),
     (1, 64, 65, 1), (1, 64, 66, 2), (3, 1, 4, 12), (1, 64, 1, 1)],
)  # fmt: skip
def test_epochs_may_be_fractions(epochs, batch_size, images, steps):
    assert Recipe(epochs, 0.1, batch_size).steps(images) == steps


def test_the_rate_follows_a_cosine_per_step():
    rates = [replace(SHORT, lr=2.0).rate(step, 4) for step in range(4)]
    assert rates == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])


def test_the_rate_climbs_during_warm_up():
    rates = [replace(SHORT, lr=1.0, warmup=0.4).rate(step, 10) for step in range(10)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1


# --- fit --------------------------------------------------------------------------------------------------------------


def test_one_step_is_the_gradient_of_the_mean_loss(digits):
    """From zero weights softmax is 1/10 everywhere, so the gradient is known without autograd."""
    few, model = part(digits, 20), linear()
    history = train.fit(model, few, Recipe(1, 0.5, 20, augment=False), seed=0, device=CPU)
    x, y = next(few.train.batches(20))
    gradient = (torch.full((20, 10), 0.1) - F.one_hot(y, 10)).t() @ x.flatten(1) / 20
    torch.testing.assert_close(model[1].weight.detach(), -0.5 * gradient)
    assert history == [
        {"epoch": 1.0, "lr": 0.5, "loss": pytest.approx(math.log(10)), "accuracy_train": (y == 0).sum().item() / 20}
    ]


def test_training_equals_a_loop_written_out(digits):
    """Momentum, Nesterov, weight decay, label smoothing and schedule against torch's own parts."""
    few = part(digits, 100)
    recipe = Recipe(3, 0.2, 100, weight_decay=0.01, augment=False, label_smoothing=0.1, warmup=0.34, nesterov=True)
    ours, theirs = linear(), linear()
    train.fit(ours, few, recipe, seed=0, device=CPU)
    x, y = next(few.train.batches(100))
    velocity = torch.zeros(10, 64)
    for lr in (0.2, 0.2, 0.1):
        loss = F.cross_entropy(theirs(x), y, label_smoothing=0.1)
        gradient = torch.autograd.grad(loss, theirs[1].weight)[0] + 0.01 * theirs[1].weight.detach()
        velocity = 0.9 * velocity + gradient
        theirs[1].weight.data -= lr * (gradient + 0.9 * velocity)
    torch.testing.assert_close(ours[1].weight, theirs[1].weight)


def test_a_network_learns_real_digits(digits, net):
    history = train.fit(net, digits, Recipe(5, 0.1, 64, warmup=0.1), seed=0, device=CPU, validate=True)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < 0.25 < 0.5 < history[0]["loss"]
    assert history[-1]["accuracy_val"] == train.evaluate(net, digits.val).accuracy
    assert train.evaluate(net, digits.test).accuracy > 0.95
    assert not any(module.training for module in net.modules())
    assert all(tensor.is_contiguous() for tensor in net.state_dict().values())


def test_the_same_seed_gives_the_same_bits_whatever_the_global_state(digits):
    def run(seed, state):
        torch.manual_seed(state)
        model = nn.Sequential(models.seeded("tiny_cnn", 0, in_channels=1), nn.Dropout(0.5))
        before = torch.get_rng_state()
        history = train.fit(model, part(digits, 200), SHORT, seed=seed, device=CPU)
        assert torch.equal(torch.get_rng_state(), before)
        return bits(model), history

    first, again, other = run(0, 1), run(0, 2), run(1, 1)
    assert equal(first[0], again[0])
    assert first[1] == again[1]
    assert not equal(first[0], other[0])


def test_half_an_epoch_is_one_row_of_half_the_steps(digits):
    history = train.fit(linear(), digits, replace(SHORT, epochs=0.5), seed=0, device=CPU)
    assert [row["epoch"] for row in history] == [0.5]
    history = train.fit(linear(), digits, replace(SHORT, epochs=1.5), seed=0, device=CPU)
    assert [row["epoch"] for row in history] == [1.0, 1.5]


def test_a_single_left_over_image_does_not_stop_batch_norm(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    history = train.fit(model, part(digits, 65), replace(SHORT, epochs=2), seed=0, device=CPU)
    assert len(history) == 2
    assert int(model[2].num_batches_tracked) == 2


def test_frozen_parameters_stay(digits, net):
    net.requires_grad_(False)
    head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1].requires_grad_(True)
    before, head_before = bits(net), head.weight.clone()
    train.fit(net, part(digits, 64), SHORT, seed=0, device=CPU)
    still = [name for name, _ in net.named_parameters() if not name.startswith("fc") and "linear" not in name]
    assert all(torch.equal(before[name], net.state_dict()[name]) for name in still if before[name] is not head.weight)
    assert not torch.equal(head.weight, head_before)


class Exploding(nn.Module):
    """Gives NaN from the given call on; the first call is fit's look at the shapes."""

    def __init__(self, step):
        super().__init__()
        self.inner, self.step, self.calls = linear(), step, -1

    def forward(self, x):
        self.calls += 1
        return self.inner(x) * (math.nan if self.calls >= self.step else 1.0)


@pytest.mark.parametrize("step", [1, 3, 25, 61])
def test_a_diverged_run_names_step_seed_and_remedy(digits, step):
    recipe = Recipe(5, 0.1, 64)
    with pytest.raises(FloatingPointError, match=rf"nan at step {step} \(seed 7\): lower lr"):
        train.fit(Exploding(step), digits, recipe, seed=7, device=CPU)


class Steep(nn.Module):
    """A finite loss whose gradient is not finite: the square root's at zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(10))

    def forward(self, x):
        return self.scale.sqrt().expand(len(x), 10)


def test_a_last_step_that_overflows_is_noticed(digits):
    with pytest.raises(FloatingPointError, match=r"scale holds .*seed 0"):
        train.fit(Steep(), part(digits, 64), SHORT, seed=0, device=CPU)


def test_a_model_that_does_not_fit_the_data_is_refused(digits):
    with pytest.raises(ValueError, match=r"model: .*shape \(1, 8, 8\)"):
        train.fit(models.tiny_cnn(in_channels=3), digits, SHORT, seed=0, device=CPU)
    with pytest.raises(ValueError, match=r"model: .*num_classes=10"):
        train.evaluate(models.tiny_cnn(num_classes=7), digits.val)
    with pytest.raises(ValueError, match="seed=-1"):
        train.fit(models.tiny_cnn(), digits, SHORT, seed=-1, device=CPU)


# --- distillation -----------------------------------------------------------------------------------------------------


def test_distillation_is_zero_for_equal_logits_and_literal_for_two_classes():
    logits = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
    assert train.distillation(logits, logits + 5, 3.0).item() == pytest.approx(0, abs=1e-6)
    # teacher (3/4, 1/4), student (1/2, 1/2), T = 2: 4 (3/4 log 3/2 + 1/4 log 1/2)
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert train.distillation(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_a_student_follows_a_teacher_that_lies(digits):
    """A teacher that shifts every digit by one: with weight 1 the labels do not count."""
    few = part(digits, 300)
    recipe = Recipe(20, 0.1, 64, augment=False, teacher_weight=1.0, temperature=2.0)
    teacher = linear()
    train.fit(teacher, few, Recipe(20, 0.1, 64, augment=False), seed=0, device=CPU)
    teacher[1].weight.data = teacher[1].weight.data.roll(1, 0)
    before, student = bits(teacher), linear()
    train.fit(student, few, recipe, seed=1, device=CPU, teacher=teacher)
    x, _ = next(digits.test.batches(360))
    assert (student(x).argmax(1) == teacher(x).argmax(1)).float().mean() > 0.95
    assert train.evaluate(student, digits.test).accuracy < 0.1
    assert equal(bits(teacher), before)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluation_counts_and_averages_over_images_not_batches(digits):
    class Always(nn.Module):
        def forward(self, x):
            return torch.tensor([math.log(11.0), *[0.0] * 9]).expand(len(x), 10)  # softmax: 11/20 for class 0, else 1/20

    few = digits.val.take(torch.arange(50))
    zeros = (few.labels == 0).sum().item()
    loss = (zeros * math.log(20 / 11) + (50 - zeros) * math.log(20)) / 50
    found = train.evaluate(Always(), few, batch_size=7, device=CPU)
    assert found == Evaluation(zeros / 50, pytest.approx(loss), 50)


def test_evaluation_changes_nothing_and_uses_the_running_statistics(digits, net):
    net.train()
    next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes, before = [module.training for module in net.modules()], bits(net)
    found = train.evaluate(net, digits, batch_size=300)
    assert [module.training for module in net.modules()] == modes
    assert equal(bits(net), before)
    assert found.n == 300
    assert found.accuracy == train.evaluate(net, digits.val, batch_size=11).accuracy
    with pytest.raises(ValueError, match="batch_size=0"):
        train.evaluate(net, digits, batch_size=0)


# --- BN statistics and fine-tuning ------------------------------------------------------------------------------------


def test_re_estimated_statistics_are_the_mean_over_batches(digits):
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10)).train()
    model[0].running_mean.fill_(99.0)
    train.reestimate_bn(model, digits, batches=2, batch_size=568)
    x = torch.cat([x for x, _ in digits.train.batches(1137)])
    assert model[0].running_mean.item() == pytest.approx(x.mean().item(), abs=1e-3)  # 1,136 of 1,137 images
    assert model[0].running_var.item() == pytest.approx(x.var().item(), abs=2e-3)
    assert int(model[0].num_batches_tracked) == 2
    assert model[0].momentum == 0.3
    assert all(module.training for module in model.modules())


def test_re_estimation_leaves_weights_and_networks_without_bn_alone(digits, net):
    before = dict(net.named_parameters())
    copies = {name: weight.clone() for name, weight in before.items()}
    train.reestimate_bn(net, digits, batches=1)
    assert all(torch.equal(copies[name], weight) for name, weight in net.named_parameters())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LayerNorm(10), nn.BatchNorm1d(10, track_running_stats=False))
    weights = bits(plain)
    train.reestimate_bn(plain, digits)
    assert equal(bits(plain), weights)
    with pytest.raises(ValueError, match="batches=0"):
        train.reestimate_bn(net, digits, batches=0)


def test_re_estimation_repairs_spoilt_statistics(digits, net):
    train.fit(net, digits, replace(SHORT, epochs=3), seed=0, device=CPU)
    good = train.evaluate(net, digits.val).accuracy
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(3.0)
    assert train.evaluate(net, digits.val).accuracy < good - 0.2
    train.reestimate_bn(net, digits)
    assert train.evaluate(net, digits.val).accuracy > good - 0.05


def test_fine_tuning_returns_a_trained_copy(digits, net):
    before = bits(net)
    tuned = train.finetune(net, part(digits, 256), SHORT, seed=0, device=CPU)
    assert equal(bits(net), before)
    by_hand = copy.deepcopy(net)
    train.reestimate_bn(by_hand, part(digits, 256))
    train.fit(by_hand, part(digits, 256), SHORT, seed=0, device=CPU)
    assert equal(bits(tuned), bits(by_hand))
    assert not equal(bits(tuned), before)


# --- optimiser, callback, best epoch ----------------------------------------------------------------------------------


def test_adamw_takes_torchs_steps(digits):
    recipe = Recipe(epochs=0.2, lr=0.01, batch_size=64, optimizer="adamw", weight_decay=0.1, augment=False)
    model, right = linear(), linear()
    train.fit(model, digits, recipe, seed=0, device=CPU)
    optimizer = torch.optim.AdamW(right.parameters(), 0.01, (0.9, 0.999), weight_decay=0.1)
    generator = runtime.seed_generator(0, "batches")
    steps = recipe.steps(len(digits.train))
    batches = digits.train.batches(64, shuffle=True, generator=generator)
    for step, (x, y) in zip(range(steps), batches, strict=False):
        optimizer.param_groups[0]["lr"] = recipe.rate(step, steps)
        optimizer.zero_grad()
        F.cross_entropy(right(x), y).backward()
        optimizer.step()
    assert torch.allclose(model[1].weight, right[1].weight, atol=1e-7)
    with pytest.raises(ValueError, match="optimizer='lion': must be 'sgd' or 'adamw'"):
        replace(SHORT, optimizer="lion")


def test_the_optimizer_counts_in_a_recipes_digest_only_where_it_is_another():
    assert (
        store.digest(SHORT) == store.digest(replace(SHORT, optimizer="sgd")) != store.digest(replace(SHORT, optimizer="adamw"))
    )


def test_a_callback_sees_every_epoch_and_may_end_the_training(digits):
    seen = []
    history = train.fit(linear(), digits, replace(SHORT, epochs=2), seed=0, device=CPU, callback=seen.append)
    assert seen == history
    short = train.fit(linear(), digits, replace(SHORT, epochs=3), seed=0, device=CPU, callback=lambda row: row["epoch"] == 2)
    assert [row["epoch"] for row in short] == [1, 2]
    rows = []
    train.finetune(linear(), digits, SHORT, seed=0, device=CPU, callback=rows.append)
    assert set(rows[0]) == {"epoch", "lr", "loss", "accuracy_train"}


def test_the_best_epochs_weights_come_back(digits):
    recipe = replace(SHORT, epochs=4, lr=8.0, momentum=0.0)  # so large a rate that accuracy goes up and down
    model = linear()
    history = train.fit(model, digits, recipe, seed=1, device=CPU, best=True)
    accuracies = [row["accuracy_val"] for row in history]
    assert train.evaluate(model, digits.val).accuracy == max(accuracies)


def test_the_best_epoch_survives_an_interruption(digits, tmp_path):
    recipe = replace(SHORT, epochs=4, lr=8.0, momentum=0.0)
    whole = linear()
    train.fit(whole, digits, recipe, seed=1, device=CPU, best=True)
    states, per_epoch = [], recipe.steps_per_epoch(len(digits.train))

    class Point:
        """Stops after two and a half epochs, and goes on from there."""

        def load(self):
            return states[-1] if states else None

        def offer(self, state):
            if (found := state())["step"] == per_epoch * 5 // 2 and not states:
                states.append(copy.deepcopy(found))
                raise InterruptedError

    again = linear()
    with pytest.raises(InterruptedError):
        train.fit(again, digits, recipe, seed=1, device=CPU, best=True, checkpoint=Point())
    train.fit(again, digits, recipe, seed=1, device=CPU, best=True, checkpoint=Point())
    assert equal(bits(again), bits(whole))


def test_a_loss_of_ones_own_is_minimised_and_told(digits):
    def squared(outputs, targets):
        return (outputs - F.one_hot(targets, 10)).square().sum(1)

    model = linear()
    history = train.fit(model, digits, replace(SHORT, lr=0.01), seed=0, device=CPU, loss=squared, validate=True)
    x, y = next(digits.val.batches(300))
    assert history[0]["loss_val"] == pytest.approx(squared(model(x), y).mean().item(), rel=1e-5)
    assert history[0]["accuracy_val"] == pytest.approx(-history[0]["loss_val"])
    with pytest.raises(ValueError, match="distillation is of classes"):
        train.fit(model, digits, SHORT, seed=0, device=CPU, loss=squared, teacher=linear())
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1: cross-entropy alone"):
        train.fit(model, digits, replace(SHORT, label_smoothing=0.1), seed=0, device=CPU, loss=squared)
    with pytest.raises(ValueError, match="loss, metric: they do not take outputs and targets of shapes"):
        train.fit(model, digits, SHORT, seed=0, device=CPU, loss=lambda outputs, targets: outputs @ outputs)


def test_a_model_may_return_what_hugging_face_models_return(digits):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return {"logits": self.inner(x), "hidden": x}

    wrapped, plain = Wrapped(), linear()
    assert train.fit(wrapped, digits, SHORT, seed=0, device=CPU) == train.fit(plain, digits, SHORT, seed=0, device=CPU)
    assert train.evaluate(wrapped, digits.val) == train.evaluate(plain, digits.val)


def test_a_network_of_volumes_trains():
    """Weights of five dimensions have no layout of channels last; the step is that of a loop written out."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 1, 3, 5, 5, generator=draw), torch.tensor([0, 1, 0, 1])
    own = data.from_tensors(train=(x, y), device="cpu")
    with runtime.seeded(0):
        net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    right = copy.deepcopy(net)
    recipe = Recipe(epochs=1, lr=0.1, batch_size=4, momentum=0.0, weight_decay=0.0, nesterov=False)
    train.fit(net, own, recipe, seed=0, device="cpu")
    F.cross_entropy(right(x), y).backward()
    for weight, other in zip(net.parameters(), right.parameters(), strict=True):
        assert weight.allclose(other - 0.1 * other.grad, atol=1e-6)


def narrow(width, groups=1):
    """A 1x1 convolution with a stride on so many channels, as pruning makes of a ResNet's shortcut."""
    with runtime.seeded(0):
        layers = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4 * groups, 1, stride=2, groups=groups)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * groups, 10))


def test_a_narrow_shortcut_trains_to_the_weights_of_a_loop_written_out():
    """Channels last, oneDNN writes the gradient of its weights outside a buffer on CPUs without AVX-512."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(64, 1, 8, 8, generator=draw), torch.randint(10, (64,), generator=draw)
    own = data.from_tensors(train=(x, y), device=CPU)
    recipe = Recipe(epochs=3, lr=0.1, batch_size=64, momentum=0.0, weight_decay=0.0, nesterov=False)
    for width in (1, 2, 3, 5, 7, 8):
        net = narrow(width)
        right = copy.deepcopy(net)
        train.fit(net, own, recipe, seed=0, device=CPU)
        optimizer = torch.optim.SGD(right.parameters(), 0.1)
        for step in range(3):
            optimizer.param_groups[0]["lr"] = recipe.rate(step, 3)
            loss = F.cross_entropy(right(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for weight, other in zip(net.parameters(), right.parameters(), strict=True):
            assert weight.allclose(other, atol=1e-5)


@pytest.mark.parametrize(("net", "capability", "last"), [
    (narrow(7), "AVX2", False), (narrow(7), "DEFAULT", False), (narrow(7), "AVX512", True),
    (narrow(8), "AVX2", True), (narrow(8, groups=2), "AVX2", False), (narrow(16, groups=2), "AVX2", True),
])  # fmt: skip
def test_channels_last_is_left_where_a_fault_of_the_cpus_library_would_be_met(net, capability, last, digits, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: None)
    seen = []
    net[2].register_forward_hook(lambda layer, given, out: seen.append(given[0].is_contiguous()))
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: None)  # the fault itself is not to be met here
    train.fit(copy.deepcopy(net), replace(digits, train=digits.train.take(torch.arange(8))), SHORT, seed=0, device=CPU)
    assert seen[-1] is not last


def test_targets_that_are_no_classes_are_refused_with_what_to_do():
    x, y, model = torch.rand(4, 5), torch.tensor([0, 1, 2, 1]), nn.Linear(5, 3)
    recipe = Recipe(epochs=1, lr=0.1, batch_size=4)
    for wrong in (y[:, None], F.one_hot(y)):
        with pytest.raises(
            ValueError, match=r"do not take .* and \(1, [13]\): .*y.squeeze\(1\), of one-hot rows y.argmax\(1\)"
        ):
            train.fit(model, data.from_tensors(train=(x, wrong), device="cpu"), recipe, seed=0, device="cpu")
