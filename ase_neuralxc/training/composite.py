"""Coupled-cluster reference energies of small species, with the basis-set limit from MP2.

    E = E_HF(heavy-augmented QZ) + E_MP2(TZ to QZ, extrapolated) + [CCSD(T) - MP2](cc-pVTZ)

with frozen cores; coupled cluster in frozen natural orbitals, which changes differences between
small molecules by less than 0.1 kcal/mol. "Heavy-augmented" is aug-cc-pVnZ on all atoms but
hydrogen, which has cc-pVnZ. Correlation energies are extrapolated with n^-3 (Helgaker et al., J.
Chem. Phys. 106, 9639 (1997)). Open shells are unrestricted and made stable first. PySCF does the
work. The bond of H2, whose coupled-cluster part converges slowest with the basis, comes out 0.6
kcal/mol too strong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import cc, gto, mp, scf
from pyscf.data.elements import chemcore
from pyscf.mp import dfump2

from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.training.reactions import Species

#: Elements whose orbital and fitting basis sets are all there.
ELEMENTS = frozenset(("H", "B", "C", "N", "O", "F", "Ne", "Al", "Si", "P", "S", "Cl", "Ar"))
#: How often an unstable solution is followed downhill.
_STABILITY_STEPS = 3
_CONV_TOL = 1e-9
#: Natural orbitals of MP2 with a smaller occupation are left out of coupled cluster.
_OCCUPATION = 1e-5


@dataclass(frozen=True)
class CompositeTask:
    """The task function of a campaign: one species to its energy.

    Attributes:
        max_memory: of PySCF, in MB.
    """

    max_memory: int = 6000

    #: What the results depend on besides the species.
    identity = "HF/haQZ + MP2/ha[TQ]Z + FNO-CCSD(T)/cc-pVTZ, frozen core"

    def __call__(self, species: Species, attempt: int = 0) -> dict[str, float]:
        """Compute one species.

        Args:
            species: of `ELEMENTS`, without an external field.
            attempt: number of failed attempts before; later ones take Newton steps.

        Returns:
            `energy`, its parts `hf`, `mp2_tz`, `mp2_qz`, `ccsd_t_minus_mp2` in Hartree; `t1`, the
            norm of the single excitations by the root of the number of correlated electrons;
            `s2`, the expectation value of S^2 in QZ; `seconds`.

        Raises:
            InvalidInputError: another element, or a field.
            NeuralXCError: Hartree-Fock, its stability or coupled cluster did not converge.
        """
        start = time.perf_counter()
        unknown = sorted(set(species.symbols) - ELEMENTS)
        if unknown or species.field is not None:
            raise InvalidInputError(
                f"species: expected {', '.join(sorted(ELEMENTS))} and no field, got "
                f"{', '.join(unknown) or 'a field'} in {species.name!r}"
            )
        small = self._hartree_fock(species, augmented=False, n="t", guess=None, attempt=attempt)
        triple = self._hartree_fock(species, augmented=True, n="t", guess=small, attempt=attempt)
        quadruple = self._hartree_fock(
            species, augmented=True, n="q", guess=triple, attempt=attempt
        )
        mp2_tz, mp2_qz = _mp2(triple), _mp2(quadruple)
        beyond, t1 = _beyond_mp2(species, small)
        limit = (64 * mp2_qz - 27 * mp2_tz) / (64 - 27)
        spin = quadruple.spin_square()[0] if species.multiplicity > 1 else 0.0
        return {
            "energy": float(quadruple.e_tot + limit + beyond),
            "hf": float(quadruple.e_tot),
            "mp2_tz": float(mp2_tz),
            "mp2_qz": float(mp2_qz),
            "ccsd_t_minus_mp2": float(beyond),
            "t1": float(t1),
            "s2": float(spin),
            "seconds": time.perf_counter() - start,
        }

    def _hartree_fock(
        self, species: Species, *, augmented: bool, n: str, guess: Any, attempt: int
    ) -> Any:
        """A converged, stable mean field; density fitting where a fitting basis is made for it."""
        basis = {
            s: f"{'aug-' if augmented and s != 'H' else ''}cc-pv{n}z" for s in set(species.symbols)
        }
        mol = gto.M(
            atom=list(zip(species.symbols, species.positions, strict=True)),
            basis=basis,
            charge=species.charge,
            spin=species.multiplicity - 1,
            verbose=0,
            max_memory=self.max_memory,
        )
        mf = scf.UHF(mol) if mol.spin else scf.RHF(mol)
        if augmented:
            mf = mf.density_fit(auxbasis="aug-cc-pvqz-jkfit")
        mf.conv_tol, mf.max_cycle = _CONV_TOL, 100
        if attempt:
            mf = mf.newton()
        dm = None
        if guess is not None:
            dm = scf.addons.project_dm_nr2nr(guess.mol, guess.make_rdm1(), mol)
        mf.kernel(dm0=dm)
        if mol.spin and not augmented:
            _stabilise(mf, species)
        if not mf.converged:
            raise NeuralXCError(f"Hartree-Fock of {species.name!r} did not converge")
        return mf


def _stabilise(mf: Any, species: Species) -> None:
    """Follow an unstable solution downhill until it is stable."""
    for _ in range(_STABILITY_STEPS + 1):
        orbitals, _, stable, _ = mf.stability(return_status=True)
        if stable:
            return
        mf.kernel(dm0=mf.make_rdm1(orbitals, mf.mo_occ))
    raise NeuralXCError(f"Hartree-Fock of {species.name!r} stayed unstable")


def _electrons_correlated(mf: Any) -> int:
    return int(mf.mol.nelectron - 2 * chemcore(mf.mol))


def _mp2(mf: Any) -> float:
    """Correlation energy with density fitting, in Hartree."""
    if _electrons_correlated(mf) < 2:
        return 0.0
    make = mp.dfmp2.DFMP2 if mf.mol.spin == 0 else dfump2.DFUMP2
    solver = make(mf, frozen=chemcore(mf.mol) or None)
    solver.with_df = mf.with_df.copy().reset()
    solver.with_df.auxbasis = "aug-cc-pvqz-ri"
    return float(solver.kernel(with_t2=False)[0])


def _beyond_mp2(species: Species, mf: Any) -> tuple[float, float]:
    """E(CCSD(T)) - E(MP2) in Hartree, and the T1 diagnostic."""
    electrons = _electrons_correlated(mf)
    if electrons < 2:
        return 0.0, 0.0
    solver = cc.FNOCCSD(mf, thresh=_OCCUPATION, frozen=chemcore(mf.mol) or None)
    solver.max_cycle, solver.conv_tol = 100, 1e-7
    integrals = solver.ao2mo()
    solver.kernel(eris=integrals)
    if not solver.converged:
        raise NeuralXCError(f"coupled cluster of {species.name!r} did not converge")
    triples = solver.ccsd_t(eris=integrals) if electrons > 2 else 0.0
    t1 = solver.t1 if isinstance(solver.t1, tuple) else (solver.t1, solver.t1)
    norm = np.sqrt(sum(float(np.sum(part**2)) for part in t1) / electrons)
    return float(solver.e_corr + triples - solver.emp2), float(norm)
