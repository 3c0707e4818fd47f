"""Phonons of Si, MgO and Al with PBE in plane waves, against experiment.

python benchmarks/phonons.py WORK     (resumable: forces are kept in WORK)

Frequencies at Gamma and X, which a supercell of two cells holds exactly, the acoustic sum rule,
imaginary modes. Lattice constants are those of PBE here (`solids.py`). The optical modes of MgO at
Gamma are the transverse ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    functional: str = "pbe"
    supercell: tuple[int, int, int] = (2, 2, 2)
    distance: float = 0.01
    conv_tol_density: float = 1e-7
    conv_tol_eigenstates: float = 1e-10
    # name, structure, lattice constant, cutoff in eV, k-points of the supercell (with Gamma: even
    # grids without it do not have the symmetry of a face-centred lattice), smearing in eV
    crystals: tuple[tuple[Any, ...], ...] = (
        ("Si", "diamond", 5.475, 300.0, (2, 2, 2), None),
        ("MgO", "rocksalt", 4.255, 500.0, (2, 2, 2), None),
        ("Al", "fcc", 4.040, 250.0, (4, 4, 4), 0.2),
    )
    # THz. Si: Nilsson and Nelin, PRB 6, 3777 (1972). MgO: Sangster, Peckham and Saunderson,
    # J. Phys. C 3, 1026 (1970). Al: Stedman and Nilsson, Phys. Rev. 145, 492 (1966), 80 K.
    experiment: tuple[tuple[str, str, str, float], ...] = (
        ("Si", "GAMMA", "highest", 15.53),
        ("Si", "X", "lowest", 4.49),
        ("Si", "X", "highest", 13.90),
        ("MgO", "GAMMA", "lowest optical", 12.05),
        ("MgO", "X", "lowest", 8.96),
        ("Al", "X", "lowest", 5.83),
        ("Al", "X", "highest", 9.69),
    )


#: Coordinates in the primitive cell of a face-centred lattice.
POINTS = {"GAMMA": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5)}


def main() -> None:
    one_thread()
    from ase_neuralxc import NeuralXC
    from ase_neuralxc.workflows import phonons

    protocol, work, rows, found = Protocol(), Path(sys.argv[1]), [], {}
    for name, kind, edge, ecut, kpts, smearing in protocol.crystals:
        atoms = bulk(name, kind, a=edge)
        calc = NeuralXC(
            protocol.functional, backend="gpaw", ecut=ecut, smearing=smearing,
            kpts={"size": kpts, "gamma": True},
            conv_tol_density=protocol.conv_tol_density,
            conv_tol_eigenstates=protocol.conv_tol_eigenstates,
        )  # fmt: skip
        result = phonons(
            atoms, calc, supercell=protocol.supercell, distance=protocol.distance,
            directory=work / name, mesh=40.0,
        )  # fmt: skip
        result.phonopy.run_qpoints(list(POINTS.values()))
        found[name] = dict(zip(POINTS, np.asarray(result.phonopy.qpoints.frequencies), strict=True))
        rows.append(
            {
                "crystal": name,
                "sum_rule_violation_ev_angstrom2": result.drift,
                "lowest_thz": result.lowest[0],
                "stable": result.stable,
            }
        )
        print(rows[-1], flush=True)
    comparison = []
    for name, point, mode, wanted in protocol.experiment:
        frequencies = found[name][point]
        optical = frequencies[3:] if mode.endswith("optical") else frequencies
        value = float(optical.max() if mode == "highest" else optical.min())
        comparison.append({"crystal": name, "point": point, "mode": mode, "thz": value,
                           "experiment_thz": wanted, "relative": value / wanted - 1})  # fmt: skip
    save("phonons", protocol, {"crystals": rows, "comparison": comparison})


if __name__ == "__main__":
    main()
