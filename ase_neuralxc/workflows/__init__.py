"""Workflows for any ASE calculator: no torch and no pyscf in here.

Each takes atoms with a calculator attached (or `calc=`), its settings as keywords, and returns a
frozen result with `.table()` (text) and `.plot(path)` (picture).
"""

from __future__ import annotations

from ase_neuralxc.workflows.adsorption import (
    AdsorptionEntry,
    AdsorptionResult,
    AdsorptionSettings,
    adsorption,
)
from ase_neuralxc.workflows.batch import batch_relaxer, relax_together
from ase_neuralxc.workflows.elastic import ElasticResult, ElasticSettings, elastic
from ase_neuralxc.workflows.eos import EOSResult, EOSSettings, eos
from ase_neuralxc.workflows.md import MDResult, MDSettings, md
from ase_neuralxc.workflows.neb import NEBResult, NEBSettings, Saddle, neb
from ase_neuralxc.workflows.phonons import BornCharges, PhononSettings, PhononsResult, phonons
from ase_neuralxc.workflows.relax import (
    RelaxResult,
    RelaxSettings,
    UnconvergedWarning,
    optimizer_names,
    relax,
)
from ase_neuralxc.workflows.sites import Site, adsorption_sites, coverage, for_coverage
from ase_neuralxc.workflows.thermochemistry import Thermochemistry
from ase_neuralxc.workflows.vibrations import VibrationSettings, VibrationsResult, vibrations

__all__ = [
    "AdsorptionEntry",
    "AdsorptionResult",
    "AdsorptionSettings",
    "BornCharges",
    "EOSResult",
    "EOSSettings",
    "ElasticResult",
    "ElasticSettings",
    "MDResult",
    "MDSettings",
    "NEBResult",
    "NEBSettings",
    "PhononSettings",
    "PhononsResult",
    "RelaxResult",
    "RelaxSettings",
    "Saddle",
    "Site",
    "Thermochemistry",
    "UnconvergedWarning",
    "VibrationSettings",
    "VibrationsResult",
    "adsorption",
    "adsorption_sites",
    "batch_relaxer",
    "coverage",
    "elastic",
    "eos",
    "for_coverage",
    "md",
    "neb",
    "optimizer_names",
    "phonons",
    "relax",
    "relax_together",
    "vibrations",
]
