"""Vertical excitations of formaldehyde: singlets and triplets, Tamm-Dancoff and full."""

from ase.build import molecule

from ase_neuralxc import NeuralXC
from ase_neuralxc.response.excitations import excitations

atoms = molecule("H2CO")
calc = NeuralXC(xc="pbe0", basis="def2-svp")
atoms.calc = calc

print(excitations(calc, atoms, n_states=3).table())
print(excitations(calc, atoms, n_states=3, triplets=True).table())
print(excitations(calc, atoms, n_states=3, tda=False).table())
