"""Vibrations of water: relax, displace, and read frequencies, intensities and free energy.

The displacements are kept in `vib/`: kill the script and start it again, and it continues.
"""

from ase.build import molecule

from ase_neuralxc import NeuralXC
from ase_neuralxc.workflows import relax, vibrations

atoms = molecule("H2O")
atoms.calc = NeuralXC(xc="r2scan", basis="def2-svp", density_fit=True)
# The cache in vib/ belongs to one geometry: a restart returns to the same.
print(relax(atoms, fmax=0.002, trajectory="water.traj", restart=True).table())

result = vibrations(atoms, directory="vib")
print(result.table())
print(result.thermochemistry(temperature=298.15, symmetry_number=2).table())
print("spectrum:", result.plot("infrared.png"))
