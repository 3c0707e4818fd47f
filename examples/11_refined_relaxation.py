"""A relaxation with few expensive calculations: a cheap method leads the way.

Any calculator can be the potential, a trained one (`mlip.MLIP`) as well as a small basis.
"""

from ase.build import molecule

from ase_neuralxc import NeuralXC
from mlip.active import refine, relax_refined

cheap = NeuralXC("pbe", basis="sto-3g", density_fit=True, grid_level=1)
dft = NeuralXC("pbe", basis="def2-svp", density_fit=True)

atoms = molecule("CH3OH")
atoms.rattle(0.1, seed=1)
result = relax_refined(atoms, cheap, dft, fmax=0.02)
print(result.table())

# the minimum of the cheap method, judged by the expensive one
atoms.calc = cheap
report = refine([atoms], dft=dft, stands_below=0.1)
print(report.table())
