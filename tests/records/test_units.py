import math

import ase.units
import pytest

from ase_neuralxc.records import units


def test_factors_agree_with_codata_2018():
    codata = ase.units.create_units("2018")
    assert pytest.approx(codata["Hartree"], rel=1e-9) == units.HARTREE_EV
    assert pytest.approx(codata["Bohr"], rel=1e-9) == units.BOHR_ANGSTROM
    assert pytest.approx(codata["Debye"], rel=1e-9) == units.DEBYE_E_ANGSTROM
    assert pytest.approx(codata["kcal"] / codata["mol"], rel=1e-9) == units.KCALMOL_EV
    assert 1 / codata["invcm"] == pytest.approx(units.EV_CM1, rel=1e-9)
    assert 1 / codata["GPa"] == pytest.approx(units.EV_ANGSTROM3_GPA, rel=1e-9)
    assert pytest.approx(codata["_amu"] / codata["_me"], rel=1e-9) == units.DALTON_ELECTRON_MASS


def test_derived_factors_are_consistent():
    force = units.HARTREE_BOHR_EV_ANGSTROM
    assert force == pytest.approx(51.42206747, rel=1e-9)
    assert force / units.BOHR_ANGSTROM == pytest.approx(units.HARTREE_BOHR2_EV_ANGSTROM2)
    volume = units.BOHR3_ANGSTROM3
    assert units.STRESS_EV_ANGSTROM3 * volume == pytest.approx(units.HARTREE_EV)
    assert pytest.approx(29421.02, rel=1e-6) == units.STRESS_EV_ANGSTROM3 * units.EV_ANGSTROM3_GPA
    assert pytest.approx(2.541746473, rel=1e-9) == units.E_BOHR_DEBYE
    assert math.isclose(units.E_ANGSTROM_DEBYE * units.DEBYE_E_ANGSTROM, 1.0)
    assert math.isclose(units.ANGSTROM_BOHR * units.BOHR_ANGSTROM, 1.0)
    assert math.isclose(units.EV_HARTREE * units.HARTREE_EV, 1.0)
    assert pytest.approx(349.755, rel=1e-6) == units.KCALMOL_HARTREE * units.HARTREE_CM1


def test_close_to_the_host():
    nist = pytest.importorskip("pyscf.data.nist")
    # PySCF has CODATA 2014; the difference is why it is handed Bohr
    assert pytest.approx(nist.BOHR, rel=1e-9) == units.BOHR_ANGSTROM
    assert pytest.approx(nist.HARTREE2EV, rel=1e-8) == units.HARTREE_EV
