from ase_neuralxc.training.planning import plan
from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species


def chain(n):
    return Species(f"h{n}", ("H",) * n, tuple((0.0, 0.0, float(i)) for i in range(n)))


def reactions(name, *groups):
    """One reaction per group of chain lengths."""
    species = {f"h{n}": chain(n) for group in groups for n in group}
    made = tuple(
        Reaction(f"{name}{i}", tuple(f"h{n}" for n in group), (1.0,) * len(group), 0.0)
        for i, group in enumerate(groups)
    )
    return ReactionSet(name, species, made)


def size(species):
    return 10 * len(species.symbols)


def lengths(work):
    return [len(s.symbols) for s in work.species]


def test_cheap_reactions_come_first_and_species_once():
    work = plan([[reactions("a", (30, 4), (2, 4), (8,))]], size)
    assert lengths(work) == [8, 2, 4, 30] or lengths(work) == [2, 4, 8, 30]
    assert work.n_reactions == 3
    assert list(work.costs) == sorted(work.costs) or work.costs[-1] == max(work.costs)


def test_sets_share_the_time():
    cheap = reactions("cheap", *((n,) for n in range(1, 21)))
    dear = reactions("dear", (40,), (42,), (44,))
    order = lengths(plan([[dear, cheap]], size))
    # the expensive set has spent its share with one reaction: the cheap one catches up first
    assert order[0] == 40
    assert set(order[1:21]) == set(range(1, 21))


def test_stages_come_in_order():
    work = plan([[reactions("first", (40,))], [reactions("second", (2,))]], size)
    assert lengths(work) == [40, 2]


def test_reactions_with_large_species_are_left_out_whole():
    work = plan([[reactions("a", (2, 12), (4,))]], size, max_size=100)
    assert lengths(work) == [4]
    assert (work.n_reactions, work.n_left_out) == (1, 1)
    assert [s.name for s in work.too_large] == ["h12"]
