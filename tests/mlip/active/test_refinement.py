"""Refinement: corrections, verdicts, budgets, failures, moved points and the diagram."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from ase_neuralxc import NeuralXC
from ase_neuralxc.campaign import EMTLabeller
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState, read_records
from ase_neuralxc.workflows import relax
from ase_neuralxc.workflows.neb import neb
from mlip.active import refine
from mlip.active.labeller import CalculatorLabeller, as_source, named_source
from mlip.active.refinement import distinct_points


class Shifted(EMT):
    """EMT with every energy 2 eV too high and weaker forces: a potential that is wrong."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] = 0.9 * self.results[name] + 2.0
        self.results["forces"] = 0.9 * self.results["forces"]


def hop():
    """Ends of the diffusion of gold on copper: hollow to hollow over a bridge."""
    ends = []
    for offset in ((0, 0), (1, 0)):
        slab = fcc100("Cu", (2, 2, 2), vacuum=6.0)
        add_adsorbate(slab, "Au", 1.7, "hollow", offset=offset)
        slab.set_constraint(FixAtoms(indices=range(8)))
        slab.calc = Shifted()
        BFGS(slab, logfile=None).run(fmax=0.01)
        ends.append(slab)
    return ends


@pytest.fixture(scope="module")
def path():
    first, last = hop()
    result = neb(first, last, Shifted(), n_images=3, relax_ends=False, fmax=0.02)
    first.info["name"] = "hollow"
    return first, result.saddle


def reference_barrier(path):
    """Single points of the reference at the points of the potential."""
    energies = []
    for atoms in (path[0], path[1].atoms):
        work = atoms.copy()
        work.calc = EMT()
        energies.append(work.get_potential_energy())
    return energies[1] - energies[0]


def test_corrections_verdicts_and_the_diagram(path, tmp_path):
    first, saddle = path
    labels = tmp_path / "train.extxyz"
    report = refine([first, saddle], dft=EMT(), budget=5, append_to=labels, stands_below=0.1)
    hollow, top = report.points
    assert (hollow.name, top.name) == ("hollow", "saddle 1")
    assert (hollow.kind, top.kind) == ("minimum", "saddle")
    assert hollow.correction == pytest.approx(
        hollow.dft_energy - first.get_potential_energy(), abs=1e-6
    )
    assert hollow.verdict == top.verdict == "stands"
    assert report.n_dft == 2
    potential, dft = report.relative()["saddle 1"]
    assert dft == pytest.approx(reference_barrier(path), abs=1e-9)
    assert potential == pytest.approx(0.9 * dft, abs=1e-6)
    assert "2 of 5 DFT calculations; energies relative to hollow" in report.table()
    assert report.diagram(tmp_path / "diagram.png").stat().st_size > 5000
    assert len(read_records(labels)) == 2
    # a second time nothing is doubled
    refine([first, saddle], dft=EMT(), append_to=labels)
    assert len(read_records(labels)) == 2


def test_a_displaced_point_needs_relaxation_and_gets_it_from_the_potential(path):
    first = path[0].copy()
    first.positions[-1] += (0.0, 0.0, 0.25)
    crude = MorsePotential(epsilon=0.5, r0=2.7, rho0=4.0, rcut1=5.0, rcut2=6.0)
    relaxed = relax(first, crude, fmax=0.01).atoms
    alone = refine([relaxed], dft=EMT(), stands_below=0.05)
    assert alone.points[0].verdict == "needs re-relaxation"
    report = refine([relaxed], dft=EMT(), potential=crude, stands_below=0.05, fmax=0.01)
    (point,) = report.points
    assert point.moved
    assert point.verdict == "stands"
    assert 1 < point.n_dft == report.n_dft < 12
    assert point.dft_energy < alone.points[0].dft_energy
    assert len(report.records) == report.n_dft
    target = path[0].copy()
    target.calc = EMT()
    BFGS(target, logfile=None).run(fmax=0.005)
    assert point.dft_energy == pytest.approx(target.get_potential_energy(), abs=1e-3)


def test_a_saddle_is_moved_to_the_saddle_of_the_reference(path):
    saddle = path[1]
    crude = MorsePotential(epsilon=0.5, r0=2.7, rho0=4.0, rcut1=5.0, rcut2=6.0)
    report = refine(
        [path[0], saddle], dft=EMT(), potential=crude, stands_below=0.005, fmax=0.02, budget=20
    )
    top = report.points[1]
    assert top.verdict == "stands"
    # 0.9 times a surface has the same stationary points
    assert top.dft_energy - report.points[0].dft_energy == pytest.approx(
        reference_barrier(path), abs=5e-3
    )


class Failing(EMTLabeller):
    identity = "failing"

    def label(self, atoms, state):
        if atoms.numbers[-1] == 79 and atoms.positions[-1, 0] > self.limit:
            raise RuntimeError("SCF not converged")
        return super().label(atoms, state)


def test_failures_and_budgets_are_in_the_report(path, tmp_path):
    first, saddle = path
    failing = Failing()
    failing.limit = first.positions[-1, 0] + 0.2
    report = refine([first, saddle], dft=failing, directory=tmp_path)
    assert report.points[1].verdict == "failed"
    assert "SCF not converged" in report.table()
    assert report.relative()["saddle 1"][1] is None
    assert report.diagram(tmp_path / "diagram.png").exists()
    short = refine([first, saddle], dft=EMT(), budget=1)
    assert short.points[1].verdict == "not asked"
    assert short.n_dft == 1
    failing.limit = -np.inf
    nothing = refine([first], dft=failing)
    with pytest.raises(InvalidInputError, match="expected a DFT energy of any point"):
        nothing.diagram(tmp_path / "none.png")
    assert "no relative energies" in nothing.table()


def test_bad_points_are_refused(path, tmp_path):
    first, _ = path
    other = CalculatorLabeller(MorsePotential()).label(Atoms("Cu"), SpinState())
    with pytest.raises(InvalidInputError, match="expected one level of theory, got 2"):
        refine([first], dft=EMT(), expect=[other])
    with pytest.raises(InvalidInputError, match="expected at least one, got none"):
        refine([], dft=EMT())
    with pytest.raises(InvalidInputError, match="has none"):
        refine([first.copy()], dft=EMT())
    with pytest.raises(InvalidInputError, match="got str"):
        refine(["water"], dft=EMT())
    with pytest.raises(InvalidInputError, match="reference: expected one of"):
        refine([first], dft=EMT(), reference="top")
    with pytest.raises(InvalidInputError, match="dft: expected a labeller or a calculator"):
        refine([first], dft="pbe")
    with pytest.raises(InvalidInputError, match="unknown labeller 'vasp'"):
        named_source("vasp", {})
    mixed = refine([first, _single(molecule("CO"))], dft=EMT())
    with pytest.raises(InvalidInputError, match="expected one composition"):
        mixed.diagram(tmp_path / "d.png")


def _single(atoms):
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    return atoms


def test_equal_points_are_one():
    water = molecule("H2O")
    turned = water[[2, 0, 1]]
    turned.rotate(50.0, (1, 1, 1))
    stretched = water.copy()
    stretched.positions[1] += 0.1
    points = [_single(atoms) for atoms in (water, turned, stretched)]
    assert distinct_points(points) == [points[0], points[2]]


def test_labels_of_a_calculator_say_its_level():
    source = as_source(MorsePotential(epsilon=0.4))
    record = source.label(Atoms("Cu2", [(0, 0, 0), (0, 0, 2.4)]))
    assert "MorsePotential" in record.fidelity.functional
    assert "0.4" in record.fidelity.functional
    assert record.energy == pytest.approx(record.to_atoms().get_potential_energy())
    assert np.abs(record.forces).max() > 0


def test_settings_at_their_defaults_do_not_make_another_level():
    def identity(**settings):
        return as_source(NeuralXC("pbe", basis="sto-3g", **settings)).labellers[0].identity

    assert identity() == identity(charge=0, txt="log.txt", backend="auto")
    assert identity() != identity(grid_level=1)
    state = as_source(NeuralXC("pbe", charge=1, multiplicity=2)).state_of(Atoms("H2"))
    assert (state.charge, state.n_unpaired) == (1, 1)
    with pytest.raises(InvalidInputError, match="'emt' has no settings"):
        named_source("emt", {"xc": "pbe"})
