import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import graphprune
from graphprune import contrast
from graphprune.encoders.encoder import KINDS, GraphEncoder
from graphprune.graph.channel_graph import ChannelGraph, Group, Node
from graphprune.pruning import masks

ANCHORS = (contrast.anchor_unpruned, contrast.anchor_l1, contrast.anchor_first)
LOSSES = (contrast.loss_printed, contrast.loss_repel_all, contrast.loss_repel_own)


def chain(*channels: int) -> ChannelGraph:
    nodes, groups, start = [], [], 0
    for i, size in enumerate(channels):
        nodes.append(Node(f"conv{i}", "conv", size, tuple(range(start, start + size))))
        groups.append(Group(f"conv{i}", size, (f"conv{i}",), size))
        start += size
    nodes.append(Node("fc", "fc", 2, (-1, -1)))
    edges = torch.tensor([list(range(len(channels))), list(range(1, len(channels) + 1))])
    return ChannelGraph(tuple(nodes), edges, tuple(groups))


GRAPH = chain(8, 10, 12)
NET = nn.Identity()  # not looked at where scores are given
SCORES = {g.name: torch.rand(g.channels, generator=torch.Generator().manual_seed(i)) for i, g in enumerate(GRAPH.groups)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(10, (n, 3), generator=generator(seed))


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def with_similarities(s: torch.Tensor) -> torch.Tensor:
    """Vectors whose cosines to (1, 0) are s."""
    return torch.stack([s, (1 - s**2).sqrt()], 1)


def test_losses_by_hand():
    # Anchors at 0 and 90 degrees, positives on them, negatives at 180 and 270; temperature 1.
    z, far = unit(0, 90), unit(180, 270)
    e = math.e
    attract = -math.log(e / (e + 1))  # row of positives: cos 1 (own), 0
    printed_negative = -math.log((1 / e) / (1 / e + 1))  # row of negatives: cos -1 (own), 0: it attracts as well
    assert contrast.loss_printed(z, z, far, 1.0).item() == pytest.approx(attract + printed_negative, abs=1e-6)
    assert contrast.loss_repel_all(z, z, far, 1.0).item() == pytest.approx(-math.log(e / (e + 1 + 1 / e + 1)), abs=1e-6)
    assert contrast.loss_repel_own(z, z, far, 1.0).item() == pytest.approx(-math.log(e / (e + 1 / e)), abs=1e-6)


def test_epsilon_stands_in_the_denominator_after_the_maximum_is_taken():
    z = unit(0, 90)
    expected = 2 * -math.log(1 / (1 + math.exp(-1) + 0.5))
    assert contrast.loss_printed(z, z, z, 1.0, 0.5).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_see_directions_only_and_survive_low_temperatures(loss):
    z = [torch.randn(6, 4, generator=generator(i)) for i in range(3)]
    torch.testing.assert_close(loss(*z, 0.5), loss(*(7 * part for part in z), 0.5))
    assert math.isfinite(loss(*z, 1e-3))


def test_the_printed_negative_term_attracts_and_the_readings_repel():
    z, negative = unit(0, 90), unit(60, 150).requires_grad_()
    pulls = {}
    for loss in LOSSES:
        (gradient,) = torch.autograd.grad(loss(z, z, negative, 0.5), negative)
        pulls[loss] = (-gradient * z).sum().item()  # > 0: the step takes negatives towards their anchors
    assert pulls[contrast.loss_printed] > 0
    assert pulls[contrast.loss_repel_all] < 0
    assert pulls[contrast.loss_repel_own] < 0


@settings(max_examples=60, deadline=None)
@given(
    level=st.floats(-0.8, 0.8),
    offsets=st.lists(st.floats(-0.15, 0.15), min_size=2, max_size=8).filter(lambda v: max(v) - min(v) > 0.01),
    temperature=st.floats(0.1, 2),
)
def test_with_a_constant_anchor_the_printed_loss_is_least_where_all_similarities_are_equal(level, offsets, temperature):
    """mean_i l_i = log sum_j exp(s_j) - mean_j s_j >= log N, with equality at equal s_j (Jensen)."""
    n = len(offsets)
    anchor = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(n, 2)
    equal = with_similarities(torch.full((n,), level, dtype=torch.float64)).requires_grad_()
    at_equal = contrast.loss_printed(anchor, equal, equal, temperature, 1e-12)
    assert at_equal.item() == pytest.approx(2 * math.log(n), abs=1e-9)
    (gradient,) = torch.autograd.grad(at_equal, equal)
    assert gradient.abs().max() < 1e-9
    moved = with_similarities(level + torch.tensor(offsets, dtype=torch.float64))
    assert contrast.loss_printed(anchor, moved, moved, temperature, 1e-12) > at_equal
    s = F.cosine_similarity(anchor, moved) / temperature
    expected = 2 * (s.logsumexp(0) - s.mean())
    torch.testing.assert_close(contrast.loss_printed(anchor, moved, moved, temperature, 1e-12), expected)


def test_training_as_printed_with_a_constant_anchor_makes_configurations_alike():
    encoder, indices = GraphEncoder.seeded(0, 12, hidden=16), draw(256)
    whole = torch.ones(1, GRAPH.num_atoms, dtype=torch.bool)

    def spread() -> float:
        with torch.no_grad():
            z = encoder.embed(GRAPH.features(masks.kept_masks(GRAPH, indices, SCORES)), GRAPH.edge_index)
            z0 = encoder.embed(GRAPH.features(whole), GRAPH.edge_index)
        return F.cosine_similarity(z, z0).std().item()

    before = spread()
    options = {"triads": contrast.anchor_unpruned, "loss": contrast.loss_printed, "lr": 5e-3, "epochs": 20}
    losses = contrast.fit(encoder, GRAPH, NET, scores=SCORES, indices=indices, seed=0, **options)
    assert losses[-1] == pytest.approx(2 * math.log(32), abs=0.05)
    assert spread() < before / 3


def test_anchors_by_hand():
    indices = torch.tensor([[5, 0, 9]])
    best = masks.kept_masks(GRAPH, indices, SCORES)
    first = masks.kept_masks(GRAPH, indices, masks.first_scores(GRAPH))
    a, c = (make(GRAPH, indices, SCORES, generator()) for make in (contrast.anchor_unpruned, contrast.anchor_first))
    assert bool(a.anchor.all())
    assert torch.equal(a.positive, best)
    assert torch.equal(c.anchor, first)
    assert c.anchor.int().tolist() == [[1] * 4 + [0] * 4 + [1] * 10 + [1] + [0] * 11]
    assert torch.equal(c.positive, best)
    b = contrast.anchor_l1(GRAPH, indices, SCORES, generator(7))
    near = contrast.neighbours(indices, generator(7))
    assert torch.equal(b.anchor, best)
    assert torch.equal(b.positive, masks.kept_masks(GRAPH, near, SCORES))


def test_triads_are_embedded_as_whole_graphs():
    twice = ChannelGraph(  # a BN behind each convolution repeats its features
        tuple(node for node in GRAPH.nodes for _ in range(2)), torch.stack([torch.arange(7), torch.arange(1, 8)]), GRAPH.groups
    )
    encoder = GraphEncoder.seeded(0, 12, hidden=8)
    triads = contrast.anchor_first(twice, draw(9), SCORES, generator())
    for z, kept in zip(
        contrast.embed_triads(encoder, twice, triads), (triads.anchor, triads.positive, triads.negative), strict=True
    ):
        torch.testing.assert_close(z, encoder.embed(twice.features(kept), twice.edge_index))


@pytest.mark.parametrize("make", ANCHORS)
def test_positive_and_negative_keep_equally_many_channels(make):
    triads = make(GRAPH, draw(50), SCORES, generator())
    for span in GRAPH.slices.values():
        assert torch.equal(triads.positive[:, span].sum(1), triads.negative[:, span].sum(1))
    assert not torch.equal(triads.positive, triads.negative)
    again = make(GRAPH, draw(50), SCORES, generator())
    assert torch.equal(again.negative, triads.negative)


@given(row=st.lists(st.integers(0, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_a_neighbour_is_one_step_away_in_one_group(row, seed):
    indices = torch.tensor([row])
    near = contrast.neighbours(indices, generator(seed))
    assert (near - indices).abs().sum() == 1
    assert 0 <= near.min() <= near.max() <= 9


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_trains_the_same_bits(kind):
    runs = []
    for seed in (1, 1, 2):
        encoder = GraphEncoder.seeded(0, 12, kind=kind, hidden=8)
        losses = contrast.fit(encoder, GRAPH, NET, scores=SCORES, indices=draw(70), epochs=2, seed=seed)
        runs.append((losses, encoder.state_dict()))
    (losses, state), (same_losses, same), (other_losses, _) = runs
    assert losses == same_losses != other_losses
    assert all(torch.equal(value, same[name]) for name, value in state.items())


@pytest.mark.parametrize("make", ANCHORS)
@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_the_loss(make, loss):
    encoder = GraphEncoder.seeded(0, 12, hidden=16)
    losses = contrast.fit(
        encoder, GRAPH, NET, scores=SCORES, indices=draw(128), triads=make, loss=loss, lr=3e-3, epochs=8, seed=0
    )
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_training_to_repel_tells_important_channels_from_random_ones():
    encoder = GraphEncoder.seeded(0, 12, hidden=16)
    options = {"triads": contrast.anchor_l1, "loss": contrast.loss_repel_own, "temperature": 0.2, "lr": 5e-3}
    contrast.fit(encoder, GRAPH, NET, scores=SCORES, indices=draw(512), epochs=20, seed=0, **options)
    triads = contrast.anchor_l1(GRAPH, draw(300, seed=9), SCORES, generator(9))
    with torch.no_grad():
        z, pos, neg = contrast.embed_triads(encoder, GRAPH, triads)
    closer = F.cosine_similarity(z, pos) > F.cosine_similarity(z, neg)
    assert closer.float().mean() > 0.75


def test_bad_arguments_are_named():
    encoder = GraphEncoder(hidden=4)

    def fit(**changes):
        contrast.fit(encoder, GRAPH, NET, **{"scores": SCORES, "indices": draw(8), "seed": 0, **changes})

    with pytest.raises(ValueError, match="temperature=0"):
        fit(temperature=0)
    with pytest.raises(ValueError, match="lr=-1"):
        fit(lr=-1)
    with pytest.raises(ValueError, match="epochs=0"):
        fit(epochs=0)
    with pytest.raises(ValueError, match="batch_size=1"):
        fit(batch_size=1)
    with pytest.raises(ValueError, match="indices holds 1 configurations"):
        fit(indices=draw(1))
    with pytest.raises(ValueError, match=r"indices must be int64 of shape \(B, 3\)"):
        fit(indices=torch.zeros(4, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="no entry for group 'conv0'"):
        fit(scores={})
    with pytest.raises(FloatingPointError, match="lower lr="):
        fit(loss=lambda *z: (z[0] * math.nan).sum())


def test_the_models_l1_norms_and_the_papers_sample_are_the_defaults(monkeypatch):
    net = graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    monkeypatch.setattr(contrast, "PAPER_N", 64)
    seen = []

    def triads(graph, indices, scores, generator):
        seen.append((indices, scores))
        return contrast.anchor_first(graph, indices, scores, generator)

    contrast.fit(GraphEncoder(hidden=4), graph, net, triads=triads, epochs=1, batch_size=64)
    [(indices, scores)] = seen
    assert indices.shape == (64, 2)
    assert all(torch.equal(scores[name], value) for name, value in graphprune.importance.l1(net, graph).items())


@pytest.mark.parametrize("triads", ANCHORS)
def test_training_takes_the_rates_that_the_indices_index(triads):
    """With (0, 0.5) index 1 halves a group, in every mask, and a neighbour's index stays below 2."""
    rates, seen = (0, 0.5), []

    def spy(graph, indices, scores, generator, rates):
        seen.append(triads(graph, indices, scores, generator, rates))
        return seen[-1]

    indices = torch.randint(2, (64, 3), generator=generator())
    contrast.fit(GraphEncoder(hidden=4), GRAPH, NET, indices=indices, scores=SCORES, triads=spy, rates=rates, epochs=1)
    for found in seen:
        kept = torch.cat([found.positive, found.negative])
        for group, span in zip(GRAPH.groups, GRAPH.slices.values(), strict=True):
            assert set(kept[:, span].sum(1).tolist()) == {group.channels, group.channels // 2}
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 2\)"):
        contrast.fit(GraphEncoder(hidden=4), GRAPH, NET, indices=draw(8), scores=SCORES, rates=rates, epochs=1)
