import torch

from graphprune.encoders.foraging import forage, neighbours
from graphprune.runs import runtime

GROUPS = 8


def separable(target):
    """1 at the target, less by the mean distance from it."""
    return lambda rows: 1 - ((rows - target).abs() / 9).double().mean(1)


def colony(seed, fitness, evaluations, **changes):
    generator = runtime.seed_generator(seed, "bees")
    setting = {"foods": 6, "limit": 5, "changes": 2} | changes
    return forage(
        fitness,
        lambda n: torch.randint(10, (n, GROUPS), generator=generator),
        lambda rows: rows,
        lambda rows: rows,
        evaluations=evaluations,
        generator=generator,
        **setting,
    )


def test_bees_find_better_places_than_chance_at_equal_evaluations():
    best, by_chance = [], []
    for seed in range(10):
        generator = runtime.seed_generator(seed, "problem")
        fitness = separable(torch.randint(10, (GROUPS,), generator=generator))
        best.append(colony(seed, fitness, 200)[1].max().item())
        by_chance.append(fitness(torch.randint(10, (200, GROUPS), generator=generator)).max().item())
    assert sum(best) / 10 > sum(by_chance) / 10 + 0.03
    assert sum(a > b for a, b in zip(best, by_chance, strict=True)) >= 8


def test_every_evaluation_is_of_a_network_not_seen_before():
    asked = []

    def fitness(rows):
        asked.extend(map(tuple, rows.tolist()))
        return separable(torch.zeros(GROUPS))(rows)

    visited, values = colony(0, fitness, 50)
    assert len(asked) == len(set(asked)) == 50
    assert [tuple(row) for row in visited.tolist()] == asked
    assert torch.equal(values, separable(torch.zeros(GROUPS))(visited))


def test_configurations_that_are_one_network_are_evaluated_once():
    generator = runtime.seed_generator(0)
    visited, _ = forage(
        separable(torch.zeros(GROUPS)),
        lambda n: torch.randint(10, (n, GROUPS), generator=generator),
        lambda rows: rows,
        lambda rows: rows // 5,  # two networks a group
        evaluations=40,
        foods=4,
        limit=3,
        changes=2,
        generator=generator,
    )
    assert len({tuple(row) for row in (visited // 5).tolist()}) == len(visited) == 40


def test_the_colony_stops_when_nothing_new_is_left():
    generator = runtime.seed_generator(0)
    visited, values = forage(
        lambda rows: rows.double().mean(1) + 1,
        lambda n: torch.randint(2, (n, 2), generator=generator),
        lambda rows: rows.clamp(max=1),
        lambda rows: rows,
        evaluations=10,
        foods=2,
        limit=1,
        changes=1,
        generator=generator,
    )
    assert sorted(map(tuple, visited.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(values.tolist()) == [1.0, 1.5, 1.5, 2.0]


def test_only_feasible_places_are_visited():
    def repair(rows):
        return rows.clamp(min=3)

    generator = runtime.seed_generator(0)
    visited, _ = forage(
        separable(torch.zeros(GROUPS)),
        lambda n: torch.randint(3, 10, (n, GROUPS), generator=generator),
        repair,
        lambda rows: rows,
        evaluations=60,
        foods=5,
        limit=5,
        changes=2,
        generator=generator,
    )
    assert visited.min() == 3


def test_a_bee_changes_as_many_groups_as_told_and_stays_in_range():
    generator = runtime.seed_generator(0)
    sources = torch.randint(10, (5, GROUPS), generator=generator)
    bees = torch.arange(5).repeat(200)
    flown = neighbours(sources, bees, 2, generator)
    assert ((flown != sources[bees]).sum(1) == 2).all()
    assert flown.min() >= 0
    assert flown.max() <= 9
    reach = (sources.max(0).values - sources.min(0).values).clamp(min=1)
    assert ((flown - sources[bees]).abs() <= reach).all()


def test_a_bee_stays_among_the_rates_there_are():
    generator = runtime.seed_generator(0)
    sources = torch.randint(3, (5, GROUPS), generator=generator)
    flown = neighbours(sources, torch.arange(5).repeat(200), 2, generator, rates=3)
    assert (flown.min(), flown.max()) == (0, 2)
