"""Constraint residuals of functionals for which they are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from script_runs import run_script

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import NeuralSemilocal, SemilocalFunctional, load_functional
from ase_neuralxc.functional.pbe import MU
from ase_neuralxc.training.exactness import report, residuals
from ase_neuralxc.training.model_densities import HYDROGEN_COULOMB, helium, hydrogen, neon


def measured(functional):
    return {r.name: r.value for r in residuals(functional)}


@pytest.mark.parametrize(
    ("model", "electrons", "kinetic"),
    [(hydrogen(), 1, 0.5), (helium(), 2, 2 * 0.5 * (27 / 16) ** 2), (neon(), 10, 2 * 50 + 8 * 12.5),
     (neon(polarised=True), 7, 2 * 50 + 5 * 12.5)],
)  # fmt: skip
def test_model_densities_integrate_to_what_they_are(model, electrons, kinetic):
    assert model.density.sum(0) @ model.weights == pytest.approx(electrons, abs=1e-9)
    assert model.tau.sum(0) @ model.weights == pytest.approx(kinetic, rel=1e-9)
    scaled = model.scaled(3.0)
    assert scaled.density.sum(0) @ scaled.weights == pytest.approx(electrons, abs=1e-9)
    assert scaled.tau.sum(0) @ scaled.weights == pytest.approx(9 * kinetic, rel=1e-9)
    # tau is never below von Weizsaecker's
    weizsaecker = model.gradient**2 / (8 * np.maximum(model.density, 1e-300))
    assert (model.tau - weizsaecker > -1e-9 * model.tau.max()).all()


def test_lda_lacks_gradients_and_pbe_has_its_own_coefficient():
    lda, pbe = measured(load_functional("lda")), measured(load_functional("pbe"))
    assert lda["gradient expansion of exchange"] == pytest.approx(-10 / 81, abs=2e-4)
    assert pbe["gradient expansion of exchange"] == pytest.approx(MU - 10 / 81, rel=2e-3)
    assert lda["decay at large gradients"] == pytest.approx(0.5, abs=1e-6)
    # -0.3125 + E_x + E_c of the spin-polarised hydrogen density
    slater = -0.75 * (3 / math.pi) ** (1 / 3) * 2 ** (1 / 3)
    density = hydrogen()
    exchange = slater * (density.density[0] ** (4 / 3)) @ density.weights
    assert lda["one-electron self-interaction"] - lda["one-electron correlation"] == pytest.approx(
        HYDROGEN_COULOMB + exchange, abs=1e-7
    )


def test_r2scan_keeps_what_it_was_made_for():
    found = measured(load_functional("r2scan"))
    assert abs(found["one-electron correlation"]) < 1e-9
    assert abs(found["one-electron self-interaction"]) < 1e-5
    assert abs(found["gradient expansion of exchange"]) < 2e-3
    assert found["decay at large gradients"] < 0.1
    assert found["fractional spin"] > 0.04


def test_torch_and_libxc_agree():
    ours, theirs = measured(load_functional("pbe")), measured(LibxcFunctional("pbe"))
    for name, value in ours.items():
        # thresholds of the density differ, which shows in the tails of scaled densities
        assert value == pytest.approx(theirs[name], rel=1e-5, abs=2e-6), name


def test_a_hybrid_is_judged_with_its_exact_exchange():
    pbe, pbe0 = measured(load_functional("pbe")), measured(load_functional("pbe0"))
    for name in ("gradient expansion of exchange", "one-electron correlation"):
        assert pbe0[name] == pytest.approx(pbe[name], rel=1e-6)
    error = pbe["one-electron self-interaction"] - pbe["one-electron correlation"]
    assert pbe0["one-electron self-interaction"] == pytest.approx(
        0.75 * error + pbe["one-electron correlation"], rel=1e-6
    )


def test_neural_functional_keeps_its_built_in_constraints():
    found = measured(NeuralSemilocal(seed=2, dtype="float64", head_scale=1.0))
    for name in ("exchange sign", "correlation sign", "Lieb-Oxford"):
        assert found[name] == 0.0
    assert abs(found["spin scaling of exchange"]) < 1e-8
    assert abs(found["uniform scaling of exchange"]) < 1e-5
    assert abs(found["gradient expansion of exchange"]) > 1e-3


class Wrong(SemilocalFunctional):
    """Exchange that is positive, does not scale and breaks spin scaling; positive correlation."""

    name = "wrong"

    def local_energy_density(self, invariants):
        n = invariants.density.sum(0)
        return 0.1 * n ** (4 / 3) + 0.01 * n


def test_violations_are_seen():
    found = measured(Wrong())
    assert found["exchange sign"] > 0.1
    assert found["correlation sign"] > 0.01
    assert abs(found["spin scaling of exchange"]) > 1e-3


class Unbounded(SemilocalFunctional):
    """Its kinetic operator is -1/2 (1 - 2 * 0.7) times the Laplacian."""

    name = "unbounded"

    def local_energy_density(self, invariants):
        return -0.7 * invariants.tau.sum(0)


def test_a_kinetic_operator_without_bound_is_seen():
    assert measured(Unbounded())["kinetic operator"] == pytest.approx(0.4, rel=1e-6)
    assert measured(load_functional("r2scan"))["kinetic operator"] == 0.0


def test_report_is_finite_for_all_and_refuses_what_it_cannot_measure():
    functionals = [LibxcFunctional("b3lyp"), LibxcFunctional("r2scan")]
    functionals += map(load_functional, ("pbe", "r2scan", "lda"))
    functionals.append(NeuralSemilocal(seed=1))
    assert all(
        np.isfinite(r.value) and abs(r.value) < 10 for f in functionals for r in residuals(f)
    )
    assert "fractional spin / Ha" in report(functionals)
    with pytest.raises(InvalidInputError, match="expected a semi-local functional, got object"):
        residuals(object())


def test_the_script_names_every_functional_once(monkeypatch, capsys):
    arguments = ("check_constraints", monkeypatch, "nxc-s9", "pbe", "--against", "pbe", "r2scan")
    assert run_script(*arguments) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "constraint", "nxc-s9", "pbe", "r2scan",
    ]  # fmt: skip
    assert run_script(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pbe"] == measured(load_functional("pbe"))
