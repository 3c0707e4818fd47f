"""Nickel oxide: an antiferromagnet, whose moments a meta-GGA makes larger than PBE does."""

from importlib.util import find_spec

from ase import Atoms

from ase_neuralxc import NeuralXC

if not find_spec("gpaw"):
    raise SystemExit("this example wants GPAW: scripts/install_gpaw")

# The smallest cell with two spins: planes (001) in turn up and down. In nature planes (111) are, in
# a cell of twice the atoms.
edge = 4.17 / 2**0.5
oxide = Atoms(
    "Ni2O2",
    scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0, 0.5]],
    cell=[edge, edge, 4.17],
    pbc=True,
)
oxide.set_initial_magnetic_moments([2, -2, 0, 0])

for xc in ("pbe", "r2scan"):
    oxide.calc = NeuralXC(xc, ecut=350, kpts=(2, 2, 2), smearing=0.1)
    energy = oxide.get_potential_energy()
    print(
        f"{xc:>7}: {energy:.3f} eV, total moment {oxide.get_magnetic_moment():.3f}, of the atoms",
        oxide.get_magnetic_moments().round(2),
        f"mu_B, gap {oxide.calc.get_band_gap():.2f} eV",
    )
