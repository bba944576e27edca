"""Two heads on one encoder: what starts equal, what learns, and what is averaged."""

import torch

from graphprune.ranking.surrogate import BATCH, Surrogate, adapt, ensemble, inputs, learn, tilted


def drawn(graph, n: int, seed: int = 0):
    return tilted(len(graph.groups), n, torch.Generator().manual_seed(seed))


def heads(surrogate: Surrogate) -> list[list[float]]:
    return torch.cat([surrogate.heads.weight, surrogate.heads.bias[:, None]], 1).tolist()


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (Surrogate(hidden=8, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.weight"], other["heads.weight"])


def test_making_one_leaves_torchs_own_draws_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Surrogate(hidden=8, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_after_learning_both_heads_say_the_same(tiny) -> None:
    surrogate, indices = Surrogate(hidden=8), drawn(tiny, 20)
    learn(surrogate, tiny, indices, -indices.sum(1).double(), epochs=1, lr=1e-3, seed=0)
    told, labelled = heads(surrogate)
    assert told == labelled


def test_learning_lowers_the_error_and_tuning_moves_the_second_head(tiny) -> None:
    surrogate, indices = Surrogate(hidden=16), drawn(tiny, 64)
    taught = -indices.sum(1).double()
    learn(surrogate, tiny, indices, taught, epochs=60, lr=1e-2, seed=0)
    found = surrogate(inputs(tiny, indices), tiny.edge_index)
    assert torch.corrcoef(torch.stack([found[:, 0].double(), taught]))[0, 1] > 0.9
    before = heads(surrogate)
    adapt(surrogate, tiny, (indices, taught), (indices[:8], -taught[:8]), steps=3, lr=3e-3, seed=0)
    after = heads(surrogate)
    assert after[1] != before[1]


def test_a_score_is_the_mean_of_the_heads_and_of_the_members(tiny) -> None:
    members, indices = [Surrogate(hidden=8, seed=seed) for seed in (0, 1)], drawn(tiny, 5)
    own = [member(inputs(tiny, indices), tiny.edge_index).mean(1) for member in members]
    torch.testing.assert_close(members[0].on(tiny)(indices), own[0].detach())
    torch.testing.assert_close(ensemble(members, tiny)(indices), ((own[0] + own[1]) / 2).detach())


def test_a_score_does_not_change_with_its_surrogate(tiny) -> None:
    surrogate, indices = Surrogate(hidden=8), drawn(tiny, 5)
    score = surrogate.on(tiny)
    before = score(indices)
    learn(surrogate, tiny, indices, torch.arange(5.0), epochs=2, lr=1e-2, seed=0)
    assert torch.equal(score(indices), before)


def test_tilted_draws_are_the_generators() -> None:
    rows = tilted(3, BATCH, torch.Generator().manual_seed(0))
    assert rows.shape == (BATCH, 3)
    assert rows.min() >= 0
    assert rows.max() <= 9
    assert torch.equal(rows, tilted(3, BATCH, torch.Generator().manual_seed(0)))
