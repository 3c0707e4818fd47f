"""Molecular dynamics with any ASE calculator: DFT for a molecule, a cheap one for a crystal."""

from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from ase_neuralxc import NeuralXC
from ase_neuralxc.workflows import md

water = molecule("H2O")
calc = NeuralXC(xc="pbe", basis="def2-svp", density_fit=True)
result = md(water, calc, ensemble="nve", timestep=0.5, steps=20, temperature=300)
print(result.table())

copper = bulk("Cu", cubic=True) * (2, 2, 2)
result = md(copper, EMT(), ensemble="nvt", timestep=4.0, steps=500, interval=5, temperature=600)
print(result.table())
distance, g = result.rdf(rmax=5.0)
print(f"first peak of g(r) at {distance[g.argmax()]:.2f} A")
result.plot("copper.png")
