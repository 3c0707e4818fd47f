"""Errors by subset, and WTMAD-2 against its published values."""

from dataclasses import replace

import pytest
from training.helpers import reaction_set

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.validation.statistics import SubsetErrors, subset_errors, wtmad2

# GMTKN55: subset, reactions, mean reference energy, published mean absolute deviations of
# r2SCAN-D4 (Ehlert et al., JCP 154, 061101 (2021)) and PBE-D4, all in kcal/mol
PUBLISHED = """
ACONF 15 1.83 0.18 0.08; ADIM6 6 3.36 0.36 0.09; AHB21 21 22.49 3.5 1.24; AL2X6 6 35.88 1.59 1.59;
ALK8 8 62.60 2.84 2.21; ALKBDE10 10 100.69 5.93 6.36; Amino20x4 80 2.44 0.19 0.33;
BH76 76 18.61 7.34 9.61; BH76RC 30 21.39 3.17 4.17; BHDIV10 10 45.33 6.12 8.89;
BHPERI 26 20.87 4.67 6.82; BHROT27 27 6.27 0.76 0.47; BSR36 36 16.20 0.44 2.3;
BUT14DIOL 64 2.80 0.27 0.59; C60ISO 9 98.25 5.56 11.8; CARBHB12 12 6.04 1.13 1.84;
CDIE20 20 4.05 1.62 1.7; CHB6 6 26.79 0.46 0.67; DARC 14 32.47 2.72 3.13; DC13 13 54.98 7.85 8.93;
DIPCS10 10 654.26 5.05 4.22; FH51 51 31.01 4.58 5.07; G21EA 25 33.62 5.64 3.59;
G21IP 36 257.61 4.77 3.8; G2RC 25 51.26 5.65 6.94; HAL59 59 4.59 0.81 1.29;
HEAVY28 28 1.24 0.29 0.47; HEAVYSB11 11 58.02 3.24 3.53; ICONF 17 3.27 0.3 0.31;
IDISP 6 14.22 2.56 2.55; IL16 16 109.05 0.76 0.96; INV24 24 31.85 2.33 2.06;
ISO34 34 14.57 1.3 1.49;
ISOL24 24 21.92 4.04 4.19; MB16-43 43 468.39 14.62 25.1; MCONF 51 4.97 0.45 0.47;
NBPRC 12 27.71 1.55 2.41; PA26 26 189.05 2.51 1.85; PArel 20 4.63 1.54 1.77;
PCONF21 18 1.62 0.42 0.99; PNICO23 23 4.27 0.82 1.36; PX13 13 33.36 8.93 11.95;
RC21 21 35.70 4.85 6.75; RG18 18 0.58 0.17 0.26; RSE43 43 7.60 1.6 2.93; S22 22 7.30 0.29 0.42;
S66 66 5.47 0.3 0.38; SCONF 17 4.60 0.54 0.88; SIE4x4 16 33.73 18.13 23.62;
TAUT15 15 3.05 1.57 1.8; UPU23 23 5.72 0.39 0.51; W4-11 140 306.91 3.86 15.62;
WATER27 27 81.14 6.72 8.28; WCPT18 18 34.99 6.11 9.29; YBDE18 18 49.28 3.34 4.87
"""


def published(column):
    for entry in PUBLISHED.split(";"):
        name, n, mean, *errors = entry.split()
        mae = float(errors[column])
        yield SubsetErrors(name, int(n), int(n), float(mean), mae, 0.0, mae, "")


@pytest.mark.parametrize(("column", "value"), [(0, 7.54), (1, 10.48)], ids=["r2SCAN", "PBE"])
def test_wtmad2_of_published_deviations_is_the_published_one(column, value):
    subsets = list(published(column))
    assert len(subsets) == 55
    assert sum(s.n for s in subsets) == 1505
    assert wtmad2(subsets) == pytest.approx(value, abs=0.01)


def test_errors_of_a_set():
    one = reaction_set()
    energies = {("tiny", "H2"): 111.5, ("tiny", "HF"): 140.6, ("tiny", "exchange"): -36.1}
    (found,) = subset_errors([one], energies)
    assert (found.n, found.n_all, found.worst) == (3, 4, "exchange")
    assert found.mae == pytest.approx((2.0 + 1.0 + 4.0) / 3)
    assert found.mse == pytest.approx((2.0 - 1.0 - 4.0) / 3)
    assert found.largest == pytest.approx(-4.0)
    assert found.mean_reference == pytest.approx((109.5 + 141.6 + 107.2 + 32.1) / 4)


def test_weights_do_not_depend_on_what_was_computed():
    one = replace(reaction_set(), name="other")
    energies = {("tiny", "H2"): 110.5, ("tiny", "OH"): 107.2, ("other", "exchange"): -30.1}
    subsets = subset_errors([reaction_set(), one], energies)
    weight = 56.84 / subsets[0].mean_reference
    assert subsets[0].weight == subsets[1].weight == weight
    assert wtmad2(subsets) == pytest.approx(weight * (1.0 + 0.0 + 2.0) / 3)


def test_nothing_has_no_mean():
    assert subset_errors([reaction_set()], {}) == []
    with pytest.raises(InvalidInputError, match="subsets: expected at least one, got none"):
        wtmad2([])
