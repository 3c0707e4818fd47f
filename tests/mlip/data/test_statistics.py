"""Reference energies are recovered where they are determined, and said not to be where not."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.collections import g2

from ase_neuralxc.errors import InvalidInputError
from mlip.data.labelled import to_graph
from mlip.data.statistics import collect_statistics, fit_reference_energies, reference_energies
from mlip.data.structure import Structure

E0 = {1: -13.6, 6: -1029.0, 8: -2041.0}


def structure(atoms, **labels):
    return Structure(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        **labels,
    )


def labelled(names, fidelity=""):
    return [
        structure(atoms, energy=sum(E0[z] for z in atoms.numbers) + shift, fidelity=fidelity)
        for atoms, shift in ((molecule(name), 0.0) for name in names)
    ]


def statistics(structures, fidelities=()):
    return collect_statistics(to_graph(s, 4.0, fidelities) for s in structures)


def test_known_reference_energies_are_recovered():
    names = [n for n in g2.names if set(g2[n].numbers) <= set(E0)]
    found = statistics(labelled(names))
    table, (fit,) = reference_energies(found, "fit")
    assert found.elements == (1, 6, 8)
    assert fit.rank == 3
    assert fit.determined
    assert 1.0 < fit.condition < 10.0
    assert fit.rms < 1e-9
    np.testing.assert_allclose(table[0], list(E0.values()), rtol=1e-10)
    assert "rank 3 of 3, condition" in fit.text()


def test_a_single_composition_leaves_them_open():
    found = statistics(labelled(["CH3CH2OH"] * 3))
    _, (fit,) = reference_energies(found, "fit")
    assert fit.rank == 1
    assert not fit.determined
    assert "not all determined" in fit.text()
    total = found.compositions[0] @ fit.energies
    assert total == pytest.approx(found.energies[0])


def test_isolated_atoms_and_given_energies():
    structures = labelled(["H", "C", "O", "H2O"])
    table, fits = reference_energies(statistics(structures), "isolated")
    np.testing.assert_allclose(table[0], list(E0.values()))
    assert fits == []
    given = {"H": -1.0, "C": -2.0, "O": -3.0}
    table, _ = reference_energies(statistics(structures), given)
    np.testing.assert_array_equal(table[0], [-1.0, -2.0, -3.0])
    with pytest.raises(InvalidInputError, match=r"none for \['C'\]"):
        reference_energies(statistics(structures), {"H": -1.0, "O": -3.0})
    with pytest.raises(InvalidInputError, match="unknown element 'Hx'"):
        reference_energies(statistics(structures), {"Hx": 1.0})
    with pytest.raises(InvalidInputError, match=r"none for \['C', 'O'\]"):
        reference_energies(statistics(labelled(["H", "CO"])), "isolated")
    with pytest.raises(InvalidInputError, match="Did you mean 'isolated'"):
        reference_energies(statistics(structures), "isolatd")


def test_every_level_of_theory_has_its_own():
    names = ["H2O", "CH4", "CO", "H2"]
    shifted = [structure(molecule(n), energy=-5.0 * len(molecule(n)), fidelity="b") for n in names]
    found = statistics(labelled(names, "a") + shifted, ("a", "b"))
    table, fits = reference_energies(found, "fit", 2)
    assert len(fits) == 2
    np.testing.assert_allclose(table, [list(E0.values()), [-5.0] * 3], rtol=1e-8)


def test_counts_scales_and_shortest_distances(rng):
    forces = rng.normal(size=(3, 3))
    water = structure(molecule("H2O"), energy=-1.0, forces=forces)
    copper = structure(bulk("Cu"), stress=np.eye(3), input_magmoms=[0.1])
    found = statistics([water, copper])
    assert found.counts["energy"] == found.counts["stress"] == 1
    assert found.counts["forces"] == 3
    assert found.counts["magmoms"] == 0
    assert found.rms_force == pytest.approx(np.sqrt(np.mean(forces**2)))
    assert set(found.shortest) == {(1, 1), (1, 8), (29, 29)}
    assert found.shortest[29, 29] == pytest.approx(3.61 / np.sqrt(2))
    assert found.average_neighbours == pytest.approx((6 + 18) / 4)


def test_nothing_to_fit_is_an_error():
    with pytest.raises(InvalidInputError, match="with an energy, got none"):
        fit_reference_energies(np.empty((0, 1)), np.empty(0), [1])
    with pytest.raises(InvalidInputError, match="at least one structure"):
        collect_statistics([])
