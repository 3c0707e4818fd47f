"""One-centre energies of PAW atoms that tests share."""

import warnings

import numpy as np

from ase_neuralxc.backend.clamps import ClampedEvaluator, DensityClamps
from ase_neuralxc.backend.gpaw.paw import OneCentre
from ase_neuralxc.backend.gpaw.radial import RadialRule
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.backend.precision import in_double_precision
from ase_neuralxc.functional import load_functional

NAMES = {"pbe": "GGA_X_PBE+GGA_C_PBE", "r2scan": "MGGA_X_R2SCAN+MGGA_C_R2SCAN"}


def atom(element, name):
    from gpaw.setup import create_setup
    from gpaw.xc import XC

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="libxc should be compiled")
        return create_setup(element, XC("PBE"), lmax=2), XC(NAMES[name])


def of_atom(setup):
    """The density matrix of GPAW's atom, unpacked."""
    from gpaw.utilities import unpack_density

    occupations = setup.calculate_initial_occupation_numbers(0.0, False, 0.0, 1)
    return unpack_density(setup.initialize_density_matrix(occupations)[0])


class EveryEntry:
    """GPAW's own rule: the sum over all entries of its tables, slopes one-sided at both ends."""

    def __init__(self, grid, entries):
        self.grid, self.entries = grid, entries
        self.volumes = grid.dv_g[:entries]
        self.radii = np.append(grid.r_g[1], grid.r_g[1:entries])  # no volume at the centre

    def __call__(self, table):
        return np.ascontiguousarray(table[..., : self.entries])

    def slope(self, table):
        return np.gradient(self(table), axis=-1) / self.grid.dr_g[: self.entries]


def one_centre(setup, name, rule=RadialRule):
    from gpaw.sphere.lebedev import weight_n

    # as near the end of an SCF: the noise of float32 is larger than what the rule changes
    functional = in_double_precision(load_functional(name))

    def evaluate(arrays, polarised):
        return evaluate_invariants(functional, arrays, polarised)[:2]

    expansion = OneCentre(setup.xc_correction, weight_n, name != "pbe", rule)
    clamped = ClampedEvaluator(evaluate, DensityClamps(1e-9))
    return lambda D_sp: expansion.energy(clamped, D_sp)
