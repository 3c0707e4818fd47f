"""The points of a calculation and their weights make its exchange-correlation energy."""

import pytest
from ase import Atoms
from ase.build import bulk
from gpaw_runs import needs_gpaw, solve

from ase_neuralxc.backend.gpaw.points import xc_points
from ase_neuralxc.records import units

pytestmark = needs_gpaw
ATOM = Atoms("N", positions=[[2.0, 2.0, 2.0]], cell=[4.0, 4.0, 4.0], pbc=True)


@pytest.mark.parametrize(
    ("atoms", "state", "settings"),
    [
        (bulk("MgO", "rocksalt", a=4.2), None, {"kpts": (2, 2, 2)}),
        (ATOM, {"n_unpaired": 3}, {}),
    ],
    ids=["MgO", "N"],
)
@pytest.mark.parametrize("name", ["r2scan", "nxc-s9"])
def test_sum_over_points_is_the_energy(atoms, state, settings, name):
    solution = solve(atoms, name, state=state, ecut=250.0, **settings)
    kernel = solution.host.active().pot_calc.xc.xc.kernel
    before = kernel.evaluate
    points = xc_points(solution.host)
    assert kernel.evaluate is before
    spins = len(points.density)
    assert spins == (1 if state is None else 2)
    energy, _ = before([points.density, points.sigma, points.tau], spins == 2)
    # float32 networks round, not in the same blocks
    assert points.weights @ energy + points.constant == pytest.approx(
        solution.energies["xc"], abs=1e-10 if name == "r2scan" else 1e-5
    )
    # the smooth grid fills the cell; what an atom adds to the volume it takes away again
    volume = atoms.get_volume() * units.ANGSTROM_BOHR**3
    assert points.weights.sum() == pytest.approx(volume, rel=1e-8)
