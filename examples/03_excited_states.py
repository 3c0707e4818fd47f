"""Vertical excitations of formaldehyde: linear response, and a constrained transition."""

from ase.build import molecule

from ase_neuralxc import NeuralXC, TransitionConstraint
from ase_neuralxc.response.excitations import excitations

atoms = molecule("H2CO")
calc = NeuralXC(xc="pbe0", basis="def2-svp")
atoms.calc = calc

print(excitations(calc, atoms, n_states=3).table())
print(excitations(calc, atoms, n_states=3, triplets=True).table())
print(excitations(calc, atoms, n_states=3, tda=False).table())

# the shipped functional, self-consistently in the excited state
for multiplicity in ("singlet", "triplet"):
    transition = TransitionConstraint([("HOMO", "LUMO", 1.0)], multiplicity)
    atoms.calc = NeuralXC(basis="def2-svp", excitation=transition)
    atoms.get_potential_energy()
    energy = atoms.calc.results["excitation_energy"]
    dipole = abs(atoms.get_dipole_moment()).max()
    print(f"{transition.name}: {energy:.3f} eV, dipole {dipole:.3f} e*Angstrom")
