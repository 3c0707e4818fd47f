"""Magnets: the moment of bcc iron and an antiferromagnet, from signed initial moments."""

from importlib.util import find_spec

from ase.build import bulk

from ase_neuralxc import NeuralXC

if not find_spec("gpaw"):
    raise SystemExit("this example wants GPAW: scripts/install_gpaw")

settings = {"xc": "pbe", "ecut": 340, "kpts": {"density": 2.5}, "smearing": 0.1}

iron = bulk("Fe")
iron.set_initial_magnetic_moments([2.3])
iron.calc = NeuralXC(**settings)
print(f"bcc Fe: {iron.get_potential_energy():.4f} eV, moment {iron.get_magnetic_moment():.3f} mu_B")

pair = bulk("Fe", cubic=True)
pair.set_initial_magnetic_moments([2.3, -2.3])
pair.calc = NeuralXC(**settings)
print(
    f"antiferromagnetic: {pair.get_potential_energy() / 2 - iron.get_potential_energy():+.3f} eV "
    "per atom above, moments",
    pair.get_magnetic_moments().round(2),
)
label = pair.calc.export_label()
print(f"label: fidelity {label.fidelity.digest}, host {label.fidelity.host}")
