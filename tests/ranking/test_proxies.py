"""Zero-cost proxies against paths and distances counted one by one, and the recalibrated network against its parts."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from digits_task import task
from torch import nn
from torch.nn import functional as F

from graphprune import importance, trace, train
from graphprune.pruning.channels import prune
from graphprune.pruning.masks import keep_from_rates
from graphprune.ranking.proxies import Naswot, Recalibrated, SynFlow, codes, flow, linearise, log_det


def drawn(graph, n, seed=0):
    return torch.randint(10, (n, len(graph.groups)), generator=torch.Generator().manual_seed(seed))


def small(row):
    """The network that a configuration leaves, by `prune`."""
    model, graph, _ = task()
    return prune(model, graph, keep_from_rates(graph, row, importance.l1(model, graph)))


def test_recalibrated_is_pruned_reestimated_and_evaluated() -> None:
    model, graph, digits = task()
    rows = drawn(graph, 2)
    accuracy = Recalibrated(digits, images=100)(graph, model, rows)
    loss = Recalibrated(digits, "loss", images=100)(graph, model, rows)
    for n, row in enumerate(rows):
        net = small(row)
        train.reestimate_bn(net, digits, batches=1, batch_size=128, seed=0)
        images, labels = next(digits.val.batches(100))
        logits = net.eval()(images)
        assert accuracy[n].item() == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        assert loss[n].item() == pytest.approx(-F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_flow_of_a_linear_chain_is_the_sum_over_paths_for_every_layer() -> None:
    """R sums over paths the product of their |weights|, and theta dR/dtheta the paths through theta: all in each layer."""
    layers = [nn.Linear(inputs, outputs, bias=False) for inputs, outputs in ((2, 3), (3, 2), (2, 2))]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    first, second, third = (layer.weight.detach().abs().double().numpy() for layer in layers)
    paths = [first[j, i] * second[k, j] * third[o, k] for i in range(2) for j in range(3) for k in range(2) for o in range(2)]
    assert flow(linearise(net), (torch.ones(1, 2).double(),)).item() == pytest.approx(3 * sum(paths))


def test_flow_of_weights_of_one_counts_paths() -> None:
    """A residual block: 2 inputs, 3 units inside, 4 outputs of each of which 2 * 3 paths go through, and 2 round it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.skip = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x).relu()) + self.skip(x)

    net = Block()
    for name, parameter in net.named_parameters():
        nn.init.constant_(parameter, -1 if name.endswith("weight") else 0)
    assert flow(linearise(net), (torch.ones(1, 2).double(),)).item() == 4 * 6 + 4 * 6 + 4 * 2


def test_batch_norms_are_bypassed_and_the_network_left_alone() -> None:
    conv, norm, linear = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(16, 2, bias=False)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), linear)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    bare = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    ones = (torch.ones(1, 1, 4, 4).double(),)
    assert flow(linearise(net), ones).item() == pytest.approx(flow(linearise(bare), ones).item(), rel=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="1 keeps no running statistics"):
        linearise(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)))


def test_synflow_is_the_flow_of_the_pruned_network() -> None:
    model, graph, digits = task()
    rows = drawn(graph, 3)
    ones = (torch.ones_like(digits.example()).double(),)
    expected = [flow(linearise(small(row)), ones).log().item() for row in rows]
    np.testing.assert_allclose(SynFlow()(graph, model, rows), expected, rtol=1e-12)


def test_codes_are_the_signs_before_each_relu() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    images = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    first = net[0](images)
    assert torch.equal(codes(net, images), torch.cat([first > 0, net[2](first.relu()) > 0], 1))


def test_k_h_is_counted_unit_by_unit() -> None:
    active = torch.rand(7, 40, generator=torch.Generator().manual_seed(1)) < 0.4
    kernel = np.full((7, 7), 40.0)
    for i, j in combinations(range(7), 2):
        kernel[i, j] = kernel[j, i] = sum(int(a == b) for a, b in zip(active[i].tolist(), active[j].tolist(), strict=True))
    assert log_det(active) == pytest.approx(np.linalg.slogdet(kernel)[1])


def test_two_images_of_one_code_are_worse_than_none_and_still_finite() -> None:
    active = torch.rand(7, 40, generator=torch.Generator().manual_seed(1)) < 0.4
    twice = torch.cat([active[:6], active[:1]])
    assert math.isfinite(log_det(twice))
    assert log_det(twice) < log_det(active)


def test_naswot_is_that_of_the_pruned_network_with_the_batchs_statistics() -> None:
    model, graph, digits = task()
    row = drawn(graph, 1)
    net, found = small(row[0]).train(), []
    for layer in net.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _layer, _inputs, out: found.append((out > 0).flatten(1)))
    net(next(train.clean_images(digits, 1, 32, 0)))
    assert len(found) == 7
    assert Naswot(digits, images=32)(graph, model, row).item() == pytest.approx(log_det(torch.cat(found, 1)))


def test_scores_are_the_same_bits_again_whatever_the_other_rows_and_the_model_is_left_alone() -> None:
    model, graph, digits = task()
    rows, before = drawn(graph, 3), {name: value.clone() for name, value in model.state_dict().items()}
    for ranker in (SynFlow(), Naswot(digits, images=16), Recalibrated(digits, images=50)):
        score = ranker.prepare(graph, model)
        assert torch.equal(score(rows)[1:], ranker(graph, model, rows[1:]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_without_relu_has_no_codes() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 36, 10))
    traced = trace(net, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="has no ReLU"):
        Naswot(task()[2], images=4)(traced, net, torch.zeros(1, 1, dtype=torch.int64))
