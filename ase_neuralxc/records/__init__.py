"""The shared vocabulary: units, spin state, level of theory, labels and their files."""

from ase_neuralxc.records import units
from ase_neuralxc.records.fidelity import FidelityTag, require_single_fidelity
from ase_neuralxc.records.io import read_db, read_records, write_db, write_records
from ase_neuralxc.records.label import LabelRecord, structure_hash
from ase_neuralxc.records.spin import SpinState

__all__ = [
    "FidelityTag",
    "LabelRecord",
    "SpinState",
    "read_db",
    "read_records",
    "require_single_fidelity",
    "structure_hash",
    "units",
    "write_db",
    "write_records",
]
