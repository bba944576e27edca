"""Many masks in one pass, against the pruned networks one by one."""

import pytest
import torch

from graphprune import models, prune, trace, train
from graphprune.pruning.many_masks import ManyMasks


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet8a"])
def test_each_masks_logits_are_those_of_its_pruned_network(name):
    model = models.seeded(name, 0, in_channels=1).double().eval()
    graph = trace(model, torch.zeros(1, 1, 8, 8))
    draw = torch.Generator().manual_seed(0)
    masks = torch.rand(3, graph.num_atoms, generator=draw) < 0.5
    for span in graph.slices.values():
        masks[:, span.start] = True
    seen, shown = (torch.randn(n, 1, 8, 8, generator=draw, dtype=torch.float64) for n in (6, 4))
    with torch.no_grad():
        found = ManyMasks(model, graph, len(seen))(masks, seen, shown)
        assert found.shape == (3, 4, 10)
        for logits, mask in zip(found, masks, strict=True):
            small = prune(model, graph, graph.unflatten(mask))
            train.calibrate(small, [seen])
            torch.testing.assert_close(logits, small.eval()(shown), rtol=1e-9, atol=1e-12)
