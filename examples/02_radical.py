"""Open shells: a radical, a triplet, and a broken-symmetry singlet from initial moments."""

from ase import Atoms
from ase.build import molecule

from ase_neuralxc import NeuralXC

settings = {"xc": "r2scan", "basis": "def2-svp"}

# One unpaired electron is the lowest possible for nine: no need to say so.
radical = molecule("OH")
radical.calc = NeuralXC(**settings)
print(f"OH   {radical.get_potential_energy():14.6f} eV, moments", radical.get_magnetic_moments())

oxygen = molecule("O2")
oxygen.set_initial_magnetic_moments(None)
oxygen.calc = NeuralXC(multiplicity=1, **settings)
singlet = oxygen.get_potential_energy()
oxygen.calc = NeuralXC(multiplicity=3, **settings)
print(f"O2   triplet is {singlet - oxygen.get_potential_energy():.3f} eV below closed shell")

# Far apart, each hydrogen atom keeps its electron; the closed shell cannot describe that.
pair = Atoms("H2", [[0, 0, 0], [0, 0, 4.0]])
pair.calc = NeuralXC(reference="rks", **settings)
closed = pair.get_potential_energy()
pair.set_initial_magnetic_moments([1, -1])
pair.calc = NeuralXC(**settings)
broken = pair.get_potential_energy()
print(
    f"H..H broken symmetry is {closed - broken:.3f} eV below closed shell, moments",
    pair.get_magnetic_moments().round(3),
)
