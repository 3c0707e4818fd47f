from __future__ import annotations

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import adsorption, batch_relaxer, neb, relax, relax_together


class Batched:
    """EMT on many structures; counts calls and structures."""

    def __init__(self):
        self.sizes = []

    def evaluate(self, images):
        self.sizes.append(len(images))
        found = []
        for atoms in images:
            work = atoms.copy()
            work.set_constraint()
            work.calc = EMT()
            energy, forces = work.get_potential_energy(), work.get_forces()
            found.append({"energy": energy, "free_energy": energy, "forces": forces, "other": 1})
        return found


def structures():
    made = [molecule("CH3OH"), bulk("Cu", cubic=True), fcc111("Cu", (2, 2, 2), vacuum=6.0)]
    add_adsorbate(made[2], "O", 1.4, "fcc")
    made[2].set_constraint(FixAtoms(range(4)))
    for seed, atoms in enumerate(made):
        atoms.rattle(0.1, seed=seed)
    return made


@pytest.mark.parametrize("optimizer", ["BFGS", "FIRE", "LBFGS"])
def test_each_structure_goes_the_way_it_goes_alone(optimizer) -> None:
    starts = structures()
    before = [atoms.positions.copy() for atoms in starts]
    potential = Batched()
    results = relax_together(starts, potential.evaluate, fmax=0.05, optimizer=optimizer)
    for start, positions, result in zip(starts, before, results, strict=True):
        np.testing.assert_array_equal(start.positions, positions)
        alone = relax(start.copy(), EMT(), fmax=0.05, optimizer=optimizer)
        assert result.converged
        assert alone.n_steps == result.n_steps > 2
        np.testing.assert_allclose(result.energies, alone.energies, atol=1e-8)
        np.testing.assert_allclose(result.atoms.positions, alone.atoms.positions, atol=1e-6)
    steps = [result.n_steps for result in results]
    assert potential.sizes[0] == 3
    assert len(potential.sizes) == max(steps) + 1
    assert sum(potential.sizes) == sum(steps) + 3  # what is converged is left out


def test_what_does_not_converge_says_so() -> None:
    seen = []
    results = relax_together(
        structures(), Batched().evaluate, fmax=1e-3, steps=2,
        progress=lambda *arguments: seen.append(arguments),
    )  # fmt: skip
    assert [result.converged for result in results] == [False] * 3
    assert [result.n_steps for result in results] == [2] * 3
    assert seen == [(0, 3, f"step {n}") for n in range(3)]
    assert relax_together([], lambda images: 1 / 0) == []


def test_adsorption_in_batches_equals_one_by_one() -> None:
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(range(4)))
    potential = Batched()
    together = batch_relaxer(potential.evaluate, fmax=0.05)
    batched = adsorption(slab, "O", EMT, reference={"O2": 0.5}, relax_many=together)
    alone = adsorption(slab, "O", EMT, reference={"O2": 0.5})
    assert potential.sizes[0] == 4
    for a, b in zip(alone.entries, batched.entries, strict=True):
        assert a.energy == pytest.approx(b.energy, abs=1e-7)
        assert a.site == b.site


def test_a_band_in_batches_equals_one_by_one() -> None:
    initial = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    initial.set_constraint(FixAtoms(range(4)))
    final = initial.copy()
    add_adsorbate(initial, "O", 1.2, "fcc")
    add_adsorbate(final, "O", 1.2, "hcp")
    potential = Batched()
    alone = neb(initial, final, EMT, n_images=3)
    batched = neb(initial, final, EMT, n_images=3, evaluate=potential.evaluate)
    assert set(potential.sizes) == {3}
    np.testing.assert_allclose(alone.energies, batched.energies, atol=1e-7)
    assert batched.saddle.verified
    np.testing.assert_allclose(alone.saddle.imaginary, batched.saddle.imaginary, atol=1e-3)


def test_bad_input_is_named() -> None:
    with pytest.raises(InvalidInputError, match="evaluate: expected results of 3 structures, got"):
        relax_together(structures(), lambda images: [])
    with pytest.raises(InvalidInputError, match="unknown optimizer 'GPMin'"):
        relax_together(structures(), Batched().evaluate, optimizer="GPMin")
    with pytest.raises(InvalidInputError, match="fmax: expected a positive number"):
        relax_together(structures(), Batched().evaluate, fmax=0)
