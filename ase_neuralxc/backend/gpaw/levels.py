"""Levels of a converged GPAW calculation, and bands at its density."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.gpaw.scf import GPAWRun, quiet_log
from ase_neuralxc.backend.gpaw.xc import load_gpaw
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import InvalidInputError, SCFNotConverged
from ase_neuralxc.records import units


def run_of(solution: KSSolution) -> GPAWRun:
    """The calculation behind a solution.

    Args:
        solution: a solution of this host.

    Returns:
        Its `GPAWRun`.

    Raises:
        InvalidInputError: the solution has travelled through a pickle, or is another host's.
    """
    if not isinstance(solution.host, GPAWRun):
        raise InvalidInputError(
            f"solution: expected one with its GPAW calculation, got host = {solution.host!r}"
        )
    return solution.host


def gap(dft: Any) -> float:
    """Smallest gap between occupied and empty levels in Hartree, zero for a metal."""
    highest, lowest = dft.ibzwfs.get_homo_lumo()
    return max(float(lowest - highest), 0.0)


def spectrum(solution: KSSolution) -> dict[str, Any]:
    """Levels of a converged solution.

    Args:
        solution: a converged solution.

    Returns:
        In Hartree: "eigenvalues" [spins, nk, bands], "fermi_level" (one number, or two where the
        total moment is fixed), "band_gap"; "kpoints" [nk, 3] in units of the reciprocal vectors,
        irreducible under the symmetry, and their "weights" [nk]; with a dipole layer the
        "work_functions" [2] of the upper and lower side of the slab.
    """
    dft = run_of(solution).active()
    ibz, levels = dft.ibzwfs.ibz, dft.ibzwfs.fermi_levels
    found = {
        "eigenvalues": np.asarray(solution.mo_energy),
        "fermi_level": float(levels[0]) if len(levels) == 1 else np.asarray(levels),
        "band_gap": gap(dft),
        "kpoints": np.array(ibz.kpt_kc),
        "weights": np.array(ibz.weight_k),
    }
    if solution.settings.dipole_layer and solution.system.periodic:
        found["work_functions"] = np.array(dft.workfunctions()) / units.HARTREE_EV
    return found


def bands(solution: KSSolution, kpoints: NDArray) -> NDArray:
    """Band energies at any k-points, in the converged potential.

    Args:
        solution: a converged solution of a periodic system.
        kpoints: [n, 3] in units of the reciprocal vectors.

    Returns:
        [spins, n, bands] in Hartree; the uppermost bands are converged less tightly.

    Raises:
        InvalidInputError: not [n, 3], or the system is not periodic.
        SCFNotConverged: the orbitals did not converge.
    """
    kpoints = np.asarray(kpoints, dtype=float)
    if kpoints.ndim != 2 or kpoints.shape[1] != 3 or not solution.system.periodic:
        raise InvalidInputError(
            f"kpoints: expected [n, 3] points of a periodic system, got {kpoints.shape} with pbc = "
            f"{list(solution.system.pbc)}"
        )
    gpaw, run = load_gpaw(), run_of(solution)
    dft = run.active()
    occupied = int(np.ceil((dft.density.nvalence - dft.density.charge) / 2))
    parameters = gpaw.Parameters(
        **{
            **run.parameters,
            "kpts": kpoints,
            "symmetry": "off",
            "gpts": dft.density.nt_sR.desc.size,
            "nbands": max(int(dft.ibzwfs.nbands), occupied + 4),
            "convergence": {
                "eigenstates": solution.settings.conv_tol_eigenstates,
                "bands": occupied + 2,
            },
        }
    )
    log = quiet_log(gpaw)
    builder = parameters.dft_component_builder(dft.atoms, log=log)
    orbitals = builder.create_ibz_wave_functions(builder.create_basis_set(), dft.potential)
    orbitals.fermi_levels = dft.ibzwfs.fermi_levels
    loop = builder.create_scf_loop()
    loop.update_density_and_potential = False
    loop.fix_fermi_level = True
    for name in ("energy", "density"):  # they do not change
        loop.convergence.pop(name, None)
    fixed = gpaw.DFT.from_components(
        dft.atoms, orbitals, dft.density, dft.potential, builder.setups, loop,
        builder.create_potential_calculator(), log, params=parameters, energies=dft.energies,
        converge=False,
    )  # fmt: skip
    try:
        fixed.converge()
    except gpaw.KohnShamConvergenceError as error:
        raise SCFNotConverged(
            f"the orbitals at {len(kpoints)} k-points did not converge in "
            f"{solution.settings.max_cycle} cycles"
        ) from error
    return np.asarray(fixed.ibzwfs.get_all_eigs_and_occs(broadcast=True)[0])
