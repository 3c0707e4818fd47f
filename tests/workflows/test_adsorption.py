from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from ase.optimize import BFGS

from ase_neuralxc.errors import InvalidInputError, NeuralXCError, SCFNotConverged
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState
from ase_neuralxc.workflows import UnconvergedWarning, adsorption
from ase_neuralxc.workflows.band import displacement
from ase_neuralxc.workflows.outcome import Surface, classify, duplicates, equivalent, nearest_copy

HALF_O2 = {"O2": 0.5}


def copper() -> Atoms:
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    return slab


def relaxed(atoms: Atoms, fmax: float = 0.01) -> float:
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=fmax)
    return atoms.get_potential_energy()


def test_oxygen_on_copper_agrees_with_direct_relaxations() -> None:
    result = adsorption(copper(), "O", EMT, reference=HALF_O2, fmax=0.01)
    clean, gas = relaxed(copper()), relaxed(molecule("O2"))
    expected = {}
    for site, name in [
        ("fcc", "hollow-3 CuCuCu"),
        ("hcp", "hollow-3 CuCuCu over Cu"),
        ("bridge", "bridge CuCu"),
        ("ontop", "top Cu"),
    ]:
        slab = copper()
        add_adsorbate(slab, "O", 1.6, site)
        expected[name] = relaxed(slab) - clean - 0.5 * gas
    energies = {entry.site: entry.energy for entry in result.ranked}
    assert set(energies) == set(expected)
    for name, value in expected.items():
        assert energies[name] == pytest.approx(value, abs=2e-3)
    assert result.best.energy == pytest.approx(min(expected.values()), abs=2e-3)
    assert result.coverage == pytest.approx(0.25)
    assert result.reference_text == "0.5 O2(g)"


def test_duplicates_are_found_through_the_symmetry_of_the_slab() -> None:
    # rattled random starts end in the two hollows, at different copies of them
    result = adsorption(
        copper(), "O", EMT, reference=HALF_O2, sites=(), n_random=8, fmax=0.01, seed=3
    )
    assert len(result.entries) == 8
    assert {entry.site for entry in result.ranked} <= {"hollow-3 CuCuCu", "hollow-3 CuCuCu over Cu"}
    assert len(result.ranked) == len({entry.site for entry in result.ranked})
    laterals = {tuple(np.round(e.atoms.positions[-1, :2], 1)) for e in result.entries}
    assert len(laterals) > len(result.ranked)
    for entry in result.entries:
        if entry.duplicate_of is not None:
            original = result.entries[entry.duplicate_of]
            assert original.duplicate_of is None
            assert original.site == entry.site


def test_equivalence_knows_rotations_and_equal_atoms() -> None:
    clean = copper()
    surface = Surface.of(clean, 0.05)

    def with_pair(turn: float, order: str, shift=(0, 0, 0)) -> Atoms:
        pair = Atoms(order, [(0.6, 0.1, 0), (-0.6, -0.1, 0.2)])
        pair.rotate(turn, "z")
        pair.translate(np.array([0, 0, clean.positions[:, 2].max() + 1.8]) + shift)
        return clean + pair

    top = clean.positions[-4:]
    shift = top[1] - top[0]
    base = with_pair(0, "OO", top[0] * (1, 1, 0))
    assert equivalent(base, with_pair(120, "OO", top[0] * (1, 1, 0)), surface, 0.1)
    assert equivalent(base, with_pair(240, "OO", top[0] * (1, 1, 0) + shift), surface, 0.1)
    assert not equivalent(base, with_pair(30, "OO", top[0] * (1, 1, 0)), surface, 0.1)
    mixed = with_pair(0, "CO", top[0] * (1, 1, 0))
    assert not equivalent(mixed, with_pair(0, "OC", top[0] * (1, 1, 0)), surface, 0.1)
    assert not equivalent(base, mixed, surface, 0.1)


def test_energies_too_far_apart_are_no_duplicates() -> None:
    clean = copper()
    add = [clean + Atoms("O", [(1.0, 1.0, 14.0)]) for _ in range(3)]
    for atoms, energy in zip(add, (0.5, 0.0, 0.51), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    found = duplicates(add, Surface.of(clean, 0.05), tolerance=0.1, energy_tolerance=0.02)
    assert found == [None, None, 0]


def on_copper(shift: float, bond: float = 1.15) -> Atoms:
    slab = copper()
    height = slab.positions[:, 2].max() + shift
    return slab + Atoms("CO", [(0, 0, height), (0, 0, height + bond)])


@pytest.mark.parametrize(
    ("atoms", "outcome"),
    [
        (on_copper(1.9), "adsorbed"),
        (on_copper(5.0), "desorbed"),
        (on_copper(1.9, bond=2.2), "dissociated"),
    ],
)
def test_outcomes(atoms, outcome) -> None:
    assert classify(atoms, copper(), molecule("CO"), 1.0) == outcome


def test_reconstruction_and_isomers_are_told_apart() -> None:
    moved = on_copper(1.9)
    moved.set_constraint()
    moved.positions[9] += (1.2, 0, 0)
    assert classify(moved, copper(), molecule("CO"), 1.0) == "reconstructed"
    slab = copper()
    height = slab.positions[:, 2].max() + 1.9
    cyanide = Atoms("HCN", [(0, 0, height), (0, 0, height + 1.1), (0, 0, height + 2.25)])
    isocyanide = slab + Atoms("HCN", [(0, 0, height), (0, 0, height + 2.2), (0, 0, height + 1.0)])
    assert classify(isocyanide, slab, cyanide, 1.0) == "isomerised"


def test_dissociation_is_kept_apart_and_tables_say_it(tmp_path) -> None:
    result = adsorption(copper(), "CO", EMT, tilts=(0, 90), single_point=EMT, n_best=2)
    assert result.outcomes["adsorbed"] + result.outcomes.get("dissociated", 0) == 16
    assert all(entry.outcome == "adsorbed" for entry in result.ranked)
    # the second calculator is the first: same energies, for the two best
    refined = [entry for entry in result.ranked if entry.refined is not None]
    assert len(refined) == 2
    assert refined == result.ranked[:2]
    for entry in refined:
        assert entry.refined == pytest.approx(entry.energy, abs=1e-9)
    table = result.table()
    assert "E_ads = E(slab + adsorbate) - E(slab) - E(CO(g)), coverage 0.25 ML" in table
    assert "16 placements" in table
    assert result.plot(tmp_path / "sub" / "co.png").stat().st_size > 1000


def test_batches_and_a_directory_give_the_same(tmp_path) -> None:
    calls = []

    def together(structures):
        calls.append(len(structures))
        done = []
        for atoms in structures:
            relaxed(atoms, 0.05)
            done.append(atoms)
        return done

    options = {"reference": HALF_O2, "directory": tmp_path / "ads"}
    alone = adsorption(copper(), "O", EMT, reference=HALF_O2)
    batched = adsorption(copper(), "O", EMT, relax_many=together, **options)
    again = adsorption(copper(), "O", EMT, relax_many=together, **options)
    assert calls == [4]
    for a, b, c in zip(alone.entries, batched.entries, again.entries, strict=True):
        assert a.energy == pytest.approx(b.energy, abs=1e-6)
        assert b.energy == c.energy
        assert a.outcome == b.outcome == c.outcome
    with pytest.raises(InvalidInputError, match="relax_many: expected 4 structures, got 0"):
        adsorption(copper(), "O", EMT, relax_many=lambda _: [], reference=HALF_O2)
    with pytest.raises(InvalidInputError, match="got other adsorbate"):
        adsorption(copper(), "H", EMT, reference={"H2": 0.5}, directory=tmp_path / "ads")


class Stopping(EMT):
    """EMT that is interrupted after a number of calls."""

    left = 10**9

    def calculate(self, *args, **kwargs):
        Stopping.left -= 1
        if Stopping.left < 0:
            raise KeyboardInterrupt
        super().calculate(*args, **kwargs)


def test_a_run_that_was_stopped_continues(tmp_path) -> None:
    options = {"reference": HALF_O2, "directory": tmp_path / "ads"}
    whole = adsorption(copper(), "O", EMT, reference=HALF_O2)
    stops = 0
    for _ in range(40):
        Stopping.left = 7
        try:
            result = adsorption(copper(), "O", Stopping, **options)
            break
        except KeyboardInterrupt:
            stops += 1
    Stopping.left = 10**9
    assert stops >= 3
    for a, b in zip(whole.entries, result.entries, strict=True):
        assert a.energy == pytest.approx(b.energy, abs=2e-3)
    assert not list((tmp_path / "ads").glob("*.path*"))


class Levelled(EMT):
    """EMT that says its level of theory, and fails where told to."""

    def __init__(self, functional="emt", treatment="RKS", fails=()):
        super().__init__()
        self.tag = FidelityTag(functional=functional, spin_treatment=treatment)
        self.fails = fails

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if atoms.get_chemical_formula() in self.fails:
            raise SCFNotConverged("no strategy converged")
        super().calculate(atoms, properties, system_changes)

    def export_label(self):
        return LabelRecord(
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            spin_state=SpinState(),
            fidelity=self.tag,
            convergence={"converged": True},
        )


def test_energies_of_two_levels_are_not_subtracted() -> None:
    made = iter(["a", "b"] + ["a"] * 10)
    with pytest.raises(
        InvalidInputError, match=r"one level of theory for Cu12 and O2.*'functional'"
    ):
        adsorption(copper(), "O", lambda: Levelled(next(made)), reference=HALF_O2)
    treatments = iter(["RKS", "UKS"] + ["RKS"] * 10)
    result = adsorption(
        copper(), "O", lambda: Levelled("a", next(treatments)), reference=HALF_O2, sites=["top"]
    )
    assert len(result.ranked) == 1


def test_failures_are_recorded_and_the_rest_goes_on() -> None:
    result = adsorption(
        copper(), "O", Levelled(), single_point=Levelled(fails=("Cu12O",)), reference=HALF_O2
    )
    assert [entry.refined for entry in result.ranked] == [None] * 4
    assert all("SCFNotConverged" in entry.reason for entry in result.ranked)
    result = adsorption(copper(), "O", Levelled(fails=("Cu12O",)), reference=HALF_O2)
    assert result.outcomes == {"failed": 4}
    assert "FAILED: top Cu: SCFNotConverged: no strategy converged" in result.table()
    with pytest.raises(InvalidInputError, match="expected one that is adsorbed, got 4 failed"):
        _ = result.best


def test_unconverged_relaxations_are_not_ranked_and_references_must_converge() -> None:
    with pytest.raises(NeuralXCError, match="steps: expected slab to relax below"):
        adsorption(copper(), "O", EMT, reference=HALF_O2, steps=1, fmax=1e-3)
    flat = adsorption(copper(), "O", EMT, reference=HALF_O2).slab
    with pytest.warns(UnconvergedWarning, match="4 of 4 relaxations on Cu12 not converged"):
        result = adsorption(flat, "O", EMT, relax_slab=False, reference={"O": 1.0}, steps=1)
    assert result.ranked == []
    assert "NOT CONVERGED: 4" in result.table()


def test_rattled_starts_leave_saddles() -> None:
    options = {"reference": HALF_O2, "sites": ["bridge"], "fmax": 0.01}
    exact = adsorption(copper(), "O", EMT, **options)
    moved = adsorption(copper(), "O", EMT, rattle=0.1, **options)
    assert exact.best.site == "bridge CuCu"
    assert moved.best.site.startswith("hollow-3")
    assert moved.best.energy < exact.best.energy - 0.02


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"reference": {"H2": 0.5}}, "reference: expected species that add up to {'O': 1}"),
        ({"sites": ["hollow-5"]}, "sites: expected beginnings of ['bridge CuCu', "),
        ({"sites": []}, "sites: expected at least one site or n_random > 0"),
        ({"n_random": -1}, "n_random: expected an integer >= 0, got -1"),
        ({"azimuth": 2}, "Did you mean 'azimuths'?"),
        ({"rattle": 2.0}, "rattle: expected 0 to 1 A, got 2.0"),
    ],
)
def test_bad_settings_are_named(keywords, message) -> None:
    with pytest.raises(InvalidInputError) as caught:
        adsorption(copper(), "O", EMT, **keywords)
    assert message in str(caught.value)


def test_ends_of_a_path_are_neighbours_with_the_energies_they_had() -> None:
    result = adsorption(
        copper(), "O", EMT, reference=HALF_O2, sites=("hollow",), n_random=6, rattle=0.05, fmax=0.02
    )
    start, end = result.path_ends()
    moved = find_mic(end.positions - start.positions, start.cell, start.pbc)[1]
    nearest_neighbour = result.slab.get_all_distances(mic=True)[0, 1:].min()
    # neighbouring hollows are a third of the height of two triangles apart
    assert moved[-1] == pytest.approx(nearest_neighbour / np.sqrt(3), abs=0.15)
    assert moved[:-1].max() < 0.3
    known = result.ranked[1].atoms
    again = end.copy()
    again.calc = EMT()
    assert again.get_potential_energy() == pytest.approx(known.get_potential_energy(), abs=1e-9)
    assert end.get_potential_energy() == known.get_potential_energy()
    np.testing.assert_allclose(again.get_forces(), end.get_forces(), atol=1e-9)
    with pytest.raises(InvalidInputError, match="second: expected a rank of 1 to"):
        result.path_ends(1, 99)


def on_hollow(slab: Atoms, site: str, tilt: tuple[float, float]) -> Atoms:
    """CO over a hollow, its oxygen moved sideways by `tilt`; carbon is the last atom."""
    atoms = slab.copy()
    add_adsorbate(atoms, molecule("CO"), 1.3, site, mol_index=1)
    atoms.positions[-2, :2] += tilt
    return atoms


def test_a_molecule_moves_to_the_nearest_site_as_a_whole() -> None:
    # in the smallest cell, three images of the other hollow are equally near to each of its atoms
    slab = fcc111("Ni", (1, 1, 3), a=3.52, vacuum=6.0, periodic=True)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    start = on_hollow(slab, "fcc", (0.0, 0.02))
    end = on_hollow(slab, "hcp", (0.02, -0.02))
    end.positions[-1] += slab.cell[0]  # carbon in the next cell
    surface = Surface.of(slab, 1e-3)
    copy = nearest_copy(end, start, surface)
    moves = displacement(start, copy)
    hop = 3.52 / np.sqrt(6)  # from hollow to hollow
    np.testing.assert_allclose(np.linalg.norm(moves[-2:], axis=1), hop, atol=0.1)
    np.testing.assert_allclose(moves[-2], moves[-1], atol=0.1)
    assert equivalent(copy, end, surface, 1e-6)
    middle = start.copy()
    middle.positions += 0.5 * moves
    assert middle.get_distance(-2, -1) == pytest.approx(start.get_distance(-2, -1), abs=0.02)


def test_gas_energies_that_are_known_are_taken() -> None:
    gas = molecule("O2")
    gas.calc = SinglePointCalculator(gas, energy=-3.0)
    known = adsorption(
        copper(), "O", EMT, reference=HALF_O2, gas={"O2": gas}, sites=("hollow",), fmax=0.02
    )
    computed = adsorption(copper(), "O", EMT, reference=HALF_O2, sites=("hollow",), fmax=0.02)
    shift = 0.5 * (computed.gas["O2"].get_potential_energy() + 3.0)
    assert known.best.energy == pytest.approx(computed.best.energy + shift)
    with pytest.raises(InvalidInputError, match="gas: expected species of"):
        adsorption(copper(), "O", EMT, reference=HALF_O2, gas={"N2": gas})
    with pytest.raises(InvalidInputError, match="with its energy"):
        adsorption(copper(), "O", EMT, reference=HALF_O2, gas={"O2": molecule("O2")})
