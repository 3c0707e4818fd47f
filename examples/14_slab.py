"""A slab with an adsorbate: hydrogen on Al(111), with a dipole layer across the vacuum."""

from importlib.util import find_spec

from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from ase_neuralxc import NeuralXC
from ase_neuralxc.workflows import relax

if not find_spec("gpaw"):
    raise SystemExit("this example wants GPAW: scripts/install_gpaw")

slab = fcc111("Al", (1, 1, 3), vacuum=5.0)
slab.pbc = [True, True, False]
add_adsorbate(slab, "H", 1.2, "fcc")
slab.center(vacuum=5.0, axis=2)
slab.set_constraint(FixAtoms(mask=slab.numbers == 13))

slab.calc = NeuralXC("pbe", ecut=300, kpts=(4, 4, 1), smearing=0.2, dipole_layer=True)
result = relax(slab, fmax=0.02)
print(result.table())
# The two sides differ by the step of the potential that the dipole layer holds in the vacuum.
upper, lower = slab.calc.get_work_functions()
print(f"work functions: {upper:.2f} eV with hydrogen, {lower:.2f} eV bare")
