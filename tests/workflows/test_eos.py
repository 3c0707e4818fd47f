from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
from ase_neuralxc.workflows import eos


@pytest.mark.parametrize("equation", ["birchmurnaghan", "vinet", "murnaghan"])
def test_equilibrium_has_no_stress_and_the_curvature_of_the_energy(equation):
    copper = bulk("Cu", a=3.63)
    result = eos(copper, EMT(), strain=0.08, points=9, equation=equation)
    relaxed = result.atoms.copy()
    relaxed.calc = EMT()
    assert abs(relaxed.get_volume() - copper.get_volume()) > 0.3
    assert np.abs(relaxed.get_stress()).max() < 2e-4

    def energy(factor):
        relaxed.set_cell(result.atoms.cell * factor ** (1 / 3), scale_atoms=True)
        return relaxed.get_potential_energy()

    h = 1e-3
    curvature = (energy(1 + h) + energy(1 - h) - 2 * energy(1)) / h**2 / result.volume
    assert result.bulk_modulus == pytest.approx(curvature * EV_ANGSTROM3_GPA, rel=0.01)
    assert result.residual < 1e-4


def test_table_and_picture(tmp_path):
    seen = []
    result = eos(bulk("Al"), EMT(), progress=lambda *a: seen.append(a))
    assert seen[-1][:2] == (7, 7)
    assert f"{result.bulk_modulus:.3f} GPa" in result.table()
    assert result.plot(tmp_path / "eos.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("atoms", "keywords", "message"),
    [(molecule("H2O"), {}, "three periodic directions"),
     (bulk("Cu", a=4.6), {}, "lowest energy at the end"),
     (bulk("Cu"), {"points": 3}, "points: expected at least 5"),
     (bulk("Cu"), {"equation": "brich"}, "Did you mean 'birch'"),
     (bulk("Cu"), {"strain": 0.6}, "strain: expected less than 0.5")],
)  # fmt: skip
def test_bad_input_is_refused(atoms, keywords, message):
    with pytest.raises(InvalidInputError, match=message):
        eos(atoms, EMT(), **keywords)
