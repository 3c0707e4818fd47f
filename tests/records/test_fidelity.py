import json
from dataclasses import fields, replace

import numpy as np
import pytest

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState, require_single_fidelity

OTHER = {
    "functional": "pbe",
    "functional_hash": "abc",
    "host": "pyscf",
    "basis": {"H": "def2-svp", "default": "def2-tzvp"},
    "ecp": "def2-svp",
    "auxbasis": "def2-universal-jkfit",
    "dispersion": "d3bj:r2scan",
    "solvent": {"model": "smd", "solvent": "water"},
    "grid": 3,
    "kpoint_density": 4,
    "density_clamps": 1e-10,
    "smearing_ev": 0.1,
    "spin_treatment": "UKS",
    "exchange_fraction": 0.25,
    "external_field": (0, 0, 0.1),
    "constraint": "transition",
}


def test_every_field_counts_in_the_digest():
    assert set(OTHER) == {field.name for field in fields(FidelityTag)}
    digests = {FidelityTag().digest}
    digests |= {FidelityTag(**{name: value}).digest for name, value in OTHER.items()}
    assert len(digests) == len(OTHER) + 1
    assert all(len(d) == 16 for d in digests)


def test_digests_are_the_same_tomorrow():
    """Files carry digests: a change of these two is a break with every existing label."""
    assert FidelityTag().digest == "44136fa355b3678a"
    assert FidelityTag(**OTHER).digest == "3e580cbf70475899"


@pytest.mark.parametrize("tag", [FidelityTag(), FidelityTag(**OTHER)])
def test_round_trip_through_json(tag):
    again = FidelityTag.from_dict(json.loads(json.dumps(tag.to_dict())))
    assert again == tag
    assert again.digest == tag.digest
    assert hash(again) == hash(tag)


def test_equal_choices_have_equal_digests():
    a = FidelityTag(external_field=[0, 0, 1], basis={"H": "a", "O": "b"}, smearing_ev=np.float64(0))
    b = FidelityTag(external_field=(-0.0, 0.0, 1.0), basis={"O": "b", "H": "a"}, smearing_ev=0)
    assert a == b
    assert a.digest == b.digest
    assert FidelityTag(spin_treatment="uks") == FidelityTag(spin_treatment="UKS")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"spin_treatment": "UHS"}, "unknown spin_treatment 'UHS'. Did you mean 'UKS'"),
        ({"external_field": (0, 1)}, "external_field: expected 3 components"),
        ({"smearing_ev": "wide"}, "smearing_ev: expected a number, got 'wide'"),
        ({"smearing_ev": float("nan")}, "smearing_ev: expected finite"),
        ({"basis": object()}, "basis: expected numbers, strings.*got object"),
    ],
)
def test_bad_tags(arguments, text):
    with pytest.raises(InvalidInputError, match=text):
        FidelityTag(**arguments)


def test_unknown_field_names_the_nearest():
    with pytest.raises(InvalidInputError, match="Did you mean 'dispersion'"):
        FidelityTag.from_dict({"dispersions": "d4"})


def test_mixed_levels_of_theory_are_refused():
    tag = FidelityTag(functional="pbe", basis="def2-svp")
    record = LabelRecord(
        numbers=[1],
        positions=[[0, 0, 0]],
        spin_state=SpinState(),
        fidelity=tag,
        convergence={"converged": True},
    )
    other = replace(record, fidelity=replace(tag, basis="def2-tzvp"))
    assert require_single_fidelity([record, record]) == tag
    with pytest.raises(InvalidInputError, match=r"got 2 .*basis.*'def2-svp', 'def2-tzvp'"):
        require_single_fidelity([record, other, record])
    with pytest.raises(InvalidInputError, match="expected at least one label"):
        require_single_fidelity([])
