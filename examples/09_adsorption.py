"""Oxygen and carbon monoxide on Cu(111): sites, placements, ranking, reference, coverage.

EMT here, so that it takes seconds. With a potential that relaxes all placements in batches, and DFT
for the best:

    potential = MLIP("model.pt")
    together = batch_relaxer(potential.evaluate, fmax=0.05)
    dft = partial(NeuralXC, "pbe", kpts={"density": 3.0}, smearing=0.1)
    adsorption(slab, "CO", potential, relax_many=together, single_point=dft, directory="co")
"""

from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from ase_neuralxc.workflows import adsorption, adsorption_sites, for_coverage, neb

# The smallest cell with one adsorbate per four surface atoms.
slab = for_coverage(fcc111("Cu", (1, 1, 3), vacuum=8.0), monolayers=0.25)
slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
for site in adsorption_sites(slab):
    print(f"{site.multiplicity:3d} x {site.name}")

# The reference is computed here, at the level of the slab, and stated in the table.
oxygen = adsorption(slab, "O", EMT, reference={"O2": 0.5}, n_random=4)
print(oxygen.table())
oxygen.plot("oxygen.png")

# Upright and lying; what dissociates or desorbs is sorted out, duplicates by symmetry too.
monoxide = adsorption(slab, "CO", EMT, tilts=(0.0, 90.0))
print(monoxide.table())

# The way from one hollow to the next starts where the search ended.
hollows = [entry.atoms for entry in oxygen.ranked if entry.site.startswith("hollow")][:2]
path = neb(*hollows, EMT, n_images=3, relax_ends=False, verify=False)
print(path.table())
