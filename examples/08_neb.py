"""Diffusion of a gold atom on Al(100): path, barrier and saddle, with any ASE calculator.

EMT here, so that it takes seconds. For DFT give a function that makes the calculator, so that each
image starts from its own last density:

    neb(initial, final, lambda: NeuralXC("pbe", kpts=(3, 3, 1), smearing=0.1), directory="neb")
"""

from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_neuralxc.workflows import neb

initial = fcc100("Al", size=(2, 2, 3))
add_adsorbate(initial, "Au", 1.7, "hollow")
initial.center(axis=2, vacuum=4.0)
initial.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in initial]))
final = initial.copy()
final.positions[-1, 0] += initial.cell[0, 0] / 2  # the next hollow site

# Ends relaxed, IDPP guess, climbing image, dimer, vibrations of the saddle.
result = neb(initial, final, EMT, n_images=3, refine="dimer")
print(result.table())
result.plot("neb.png")

saddle = result.saddle
print(f"saddle: {saddle.imaginary[0]:.1f} cm^-1 along the path (overlap {saddle.overlap:.2f})")
# Harmonic transition-state theory: attempt frequency and barrier are what a rate needs.
print(f"the gold atom at the saddle: {saddle.atoms.positions[-1].round(3)} A")
