"""Silicon: relaxed cell, equation of state, bands and phonons, on GPAW or, without it, on PySCF."""

from importlib.util import find_spec

from ase.build import bulk

from ase_neuralxc import NeuralXC
from ase_neuralxc.workflows import eos, phonons

silicon = bulk("Si", a=5.47)
settings = {"ecut": 340} if find_spec("gpaw") else {"basis": "gth-szv-molopt-sr", "ecut": 2200}
silicon.calc = NeuralXC("pbe", kpts=(4, 4, 4), **settings)
print(f"energy {silicon.get_potential_energy():.4f} eV, {silicon.calc}")
print(f"gap on the k-points of the calculation: {silicon.calc.get_band_gap():.2f} eV")

fit = eos(silicon, strain=0.05, points=5)
print(fit.table())
fit.plot("silicon-eos.png")

relaxed = fit.atoms
relaxed.calc = silicon.calc
relaxed.get_potential_energy()
bands = relaxed.calc.band_structure("LGX", npoints=20)
bands.plot(emin=-12, emax=8, filename="silicon-bands.png")

# A supercell twice as long in each direction needs half the k-points. With Gamma: an even grid
# without it lacks the symmetry of the lattice, which phonons do not forgive.
phonon_calc = NeuralXC("pbe", kpts={"size": (2, 2, 2), "gamma": True}, **settings)
result = phonons(relaxed, phonon_calc, supercell=(2, 2, 2), mesh=30.0, directory="silicon-phonons")
print(result.table())
result.plot("silicon-phonons.png")
