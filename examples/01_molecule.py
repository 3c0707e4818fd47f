"""A molecule: relax ethanol, ask for properties, and keep the result as a training label."""

from ase.build import molecule
from ase.optimize import BFGS

from ase_neuralxc import NeuralXC
from ase_neuralxc.records.io import write_records

atoms = molecule("CH3CH2OH")
atoms.calc = NeuralXC(xc="r2scan", basis="def2-svp", density_fit=True)
BFGS(atoms).run(fmax=0.05)

print(f"energy  {atoms.get_potential_energy():.6f} eV")
print(f"dipole  {atoms.get_dipole_moment().round(4)} eA")
print(f"charges {atoms.calc.get_charges(atoms).round(3)} e")

label = atoms.calc.export_label()
write_records("ethanol.extxyz", [label])
print(f"label written with fidelity {label.fidelity.digest}")
