"""Coupled-cluster reference energies of small species, with the basis-set limit from MP2.

    E = E_HF(augmented QZ) + E_MP2(augmented TZ to QZ, extrapolated) + [CCSD(T) - MP2](TZ)

with frozen cores; coupled cluster in frozen natural orbitals, which changes differences between
small molecules by less than 0.1 kcal/mol. Correlation energies are extrapolated with n^-3
(Helgaker et al., J. Chem. Phys. 106, 9639 (1997)). Open shells are unrestricted and made stable
first. PySCF does the work. Two families of basis sets:

- `CC`: cc-pVnZ, augmented on all atoms but hydrogen, for light elements. The bond of H2, whose
  coupled-cluster part converges slowest with the basis, comes out 0.6 kcal/mol too strong.
- `DEF2`: def2-nZVPP with D for augmented, and the effective core potentials that belong to them,
  for the main groups from hydrogen to radon. Frozen are the noble-gas core and the full d shell,
  which is told by its character: next to tin or lead, 2s of fluorine and oxygen lies below it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import cc, df, gto, mp, scf
from pyscf.data.elements import ELEMENTS, charge, chemcore
from pyscf.mp import dfump2

from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.training.reactions import Species

#: How often an unstable solution is followed downhill.
_STABILITY_STEPS = 3
_CONV_TOL = 1e-9
#: Natural orbitals of MP2 with a smaller occupation are left out of coupled cluster.
_OCCUPATION = 1e-5
#: Smallest part of an orbital of a full d shell within the d functions of its atom; it is 0.99 and
#: more there, and at most 0.5 elsewhere (bonds between hydrides of tin).
_D_SHARE = 0.9


@dataclass(frozen=True)
class BasisFamily:
    """Basis sets of three sizes and what goes with them.

    Attributes:
        identity: the method in words.
        elements: for which all of them are there.
        small: of coupled cluster.
        augmented: of triple and of quadruple zeta.
        hydrogen: the same for hydrogen.
        jkfit: fits Coulomb and exchange.
        ri: fits MP2; None makes it from the orbital basis.
        ecp: effective core potentials.
    """

    identity: str
    elements: frozenset[str]
    small: str
    augmented: tuple[str, str]
    hydrogen: tuple[str, str]
    jkfit: str
    ri: str | None
    ecp: str | None

    def molecule(self, species: Species, zeta: int | None, max_memory: int) -> gto.Mole:
        """The species in the small basis (None), or in the augmented one of 3 or 4 zeta."""
        symbols = sorted(set(species.symbols))
        basis = dict.fromkeys(symbols, self.small)
        if zeta is not None:
            basis = {s: (self.hydrogen if s == "H" else self.augmented)[zeta - 3] for s in symbols}
        has_ecp = [s for s in symbols if self.ecp and charge(s) > _LAST_WITHOUT_ECP]
        return gto.M(
            atom=list(zip(species.symbols, species.positions, strict=True)),
            basis=basis,
            ecp=dict.fromkeys(has_ecp, self.ecp),
            charge=species.charge,
            spin=species.multiplicity - 1,
            verbose=0,
            max_memory=max_memory,
        )


#: Zinc: main-group elements that are heavier have a full d shell below their valence.
_LAST_WITHOUT_D = 30
#: Krypton: the def2 basis sets of heavier elements have effective core potentials.
_LAST_WITHOUT_ECP = 36
CC = BasisFamily(
    identity="HF/haQZ + MP2/ha[TQ]Z + FNO-CCSD(T)/cc-pVTZ, frozen core",
    elements=frozenset(("H", "B", "C", "N", "O", "F", "Ne", "Al", "Si", "P", "S", "Cl", "Ar")),
    small="cc-pvtz",
    augmented=("aug-cc-pvtz", "aug-cc-pvqz"),
    hydrogen=("cc-pvtz", "cc-pvqz"),
    jkfit="aug-cc-pvqz-jkfit",
    ri="aug-cc-pvqz-ri",
    ecp=None,
)
DEF2 = BasisFamily(
    identity="HF/def2-QZVPPD + MP2/def2-[TQ]ZVPPD + FNO-CCSD(T)/def2-TZVPP, frozen core and d",
    elements=frozenset(
        s for row in (range(1, 3), range(5, 11), range(13, 19), range(31, 37), range(49, 55),
                      range(81, 87)) for s in (ELEMENTS[z] for z in row)
    ),
    small="def2-tzvpp",
    augmented=("def2-tzvppd", "def2-qzvppd"),
    hydrogen=("def2-tzvppd", "def2-qzvppd"),
    jkfit="def2-universal-jkfit",
    ri=None,
    ecp="def2-tzvpp",
)  # fmt: skip
FAMILIES = {"cc": CC, "def2": DEF2}


@dataclass(frozen=True)
class CompositeTask:
    """The task function of a campaign: one species to its energy.

    Attributes:
        family: the basis sets.
        max_memory: of PySCF, in MB.
    """

    family: BasisFamily = CC
    max_memory: int = 6000

    @property
    def identity(self) -> str:
        """What the results depend on besides the species."""
        return self.family.identity

    def __call__(self, species: Species, attempt: int = 0) -> dict[str, float]:
        """Compute one species.

        Args:
            species: a molecule of the elements of the family, without an external field.
            attempt: number of failed attempts before; later ones take Newton steps.

        Returns:
            `energy`, its parts `hf`, `mp2_tz`, `mp2_qz`, `ccsd_t_minus_mp2` in Hartree; `t1`, the
            norm of the single excitations by the root of the number of correlated electrons;
            `s2`, the expectation value of S^2 in QZ; `seconds`.

        Raises:
            InvalidInputError: another element, a field or a cell.
            NeuralXCError: Hartree-Fock, its stability or coupled cluster did not converge.
        """
        start = time.perf_counter()
        unknown = sorted(set(species.symbols) - self.family.elements)
        if unknown or species.field is not None or species.cell is not None:
            other = "a cell" if species.field is None else "a field"
            raise InvalidInputError(
                f"species: expected {', '.join(sorted(self.family.elements))} and no field or "
                f"cell, got {', '.join(unknown) or other} in {species.name!r}"
            )
        small = self._hartree_fock(species, zeta=None, guess=None, attempt=attempt)
        triple = self._hartree_fock(species, zeta=3, guess=small, attempt=attempt)
        quadruple = self._hartree_fock(species, zeta=4, guess=triple, attempt=attempt)
        mp2_tz, mp2_qz = (_mp2(mf, self.family.ri) for mf in (triple, quadruple))
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

    def _hartree_fock(self, species: Species, *, zeta: int | None, guess: Any, attempt: int) -> Any:
        """A converged, stable mean field; with density fitting in the augmented basis sets."""
        mol = self.family.molecule(species, zeta, self.max_memory)
        mf = scf.UHF(mol) if mol.spin else scf.RHF(mol)
        if zeta is not None:
            mf = mf.density_fit(auxbasis=self.family.jkfit)
        mf.conv_tol, mf.max_cycle = _CONV_TOL, 100
        if attempt:
            mf = mf.newton()
        dm = None
        if guess is not None:
            dm = scf.addons.project_dm_nr2nr(guess.mol, guess.make_rdm1(), mol)
        mf.kernel(dm0=dm)
        if mol.spin and zeta is None:
            _stabilise(mf, species)
        if not mf.converged:
            raise NeuralXCError(f"Hartree-Fock of {species.name!r} did not converge")
        _d_shells_first(mf, species)
        return mf


def _stabilise(mf: Any, species: Species) -> None:
    """Follow an unstable solution downhill until it is stable."""
    for _ in range(_STABILITY_STEPS + 1):
        orbitals, _, stable, _ = mf.stability(return_status=True)
        if stable:
            return
        mf.kernel(dm0=mf.make_rdm1(orbitals, mf.mo_occ))
    raise NeuralXCError(f"Hartree-Fock of {species.name!r} stayed unstable")


def _d_shells_first(mf: Any, species: Species) -> None:
    """Put full d shells before all other orbitals, since the first orbitals are what is frozen."""
    mol = mf.mol
    labels = mol.ao_labels(fmt=None)
    heavy = [i for i, (_, symbol, shell, _) in enumerate(labels)
             if shell.endswith("d") and charge(symbol) > _LAST_WITHOUT_D]  # fmt: skip
    if not heavy:
        return
    overlap = mol.intor_symmetric("int1e_ovlp")
    within = np.linalg.inv(overlap[np.ix_(heavy, heavy)])
    channels = [(mf.mo_coeff, mf.mo_energy, mf.mo_occ)]
    if np.ndim(mf.mo_occ) == 2:
        channels = list(zip(mf.mo_coeff, mf.mo_energy, mf.mo_occ, strict=True))
    for orbitals, energies, occupations in channels:
        parts = overlap[heavy] @ orbitals
        share = np.einsum("pi,pq,qi->i", parts, within, parts)
        d_like = (occupations > 0) & (share > _D_SHARE)
        if d_like.sum() != 5 * _n_d_shells(mol):
            raise NeuralXCError(
                f"frozen orbitals: expected {5 * _n_d_shells(mol)} of d character in "
                f"{species.name!r}, found {d_like.sum()}"
            )
        order = np.argsort(~d_like, kind="stable")
        orbitals[:], energies[:] = orbitals[:, order], energies[order]
        occupations[:] = occupations[order]


def _n_d_shells(mol: gto.Mole) -> int:
    return sum(charge(symbol) > _LAST_WITHOUT_D for symbol in mol.elements)


def _core(mol: gto.Mole) -> int:
    """Orbitals that are frozen: those of the noble gas before, and a full d shell."""
    return int(chemcore(mol) + 5 * _n_d_shells(mol))


def _electrons_correlated(mf: Any) -> int:
    return int(mf.mol.nelectron - 2 * _core(mf.mol))


def _mp2(mf: Any, auxbasis: str | None) -> float:
    """Correlation energy with density fitting, in Hartree."""
    if _electrons_correlated(mf) < 2:
        return 0.0
    make = mp.dfmp2.DFMP2 if mf.mol.spin == 0 else dfump2.DFUMP2
    solver = make(mf, frozen=_core(mf.mol) or None)
    solver.with_df = mf.with_df.copy().reset()
    solver.with_df.auxbasis = auxbasis or df.autoaux(mf.mol)
    return float(solver.kernel(with_t2=False)[0])


def _beyond_mp2(species: Species, mf: Any) -> tuple[float, float]:
    """E(CCSD(T)) - E(MP2) in Hartree, and the T1 diagnostic."""
    electrons = _electrons_correlated(mf)
    if electrons < 2:
        return 0.0, 0.0
    solver = cc.FNOCCSD(mf, thresh=_OCCUPATION, frozen=_core(mf.mol) or None)
    solver.max_cycle, solver.conv_tol = 100, 1e-7
    integrals = solver.ao2mo()
    solver.kernel(eris=integrals)
    if not solver.converged:
        raise NeuralXCError(f"coupled cluster of {species.name!r} did not converge")
    triples = solver.ccsd_t(eris=integrals) if electrons > 2 else 0.0
    t1 = solver.t1 if isinstance(solver.t1, tuple) else (solver.t1, solver.t1)
    norm = np.sqrt(sum(float(np.sum(part**2)) for part in t1) / electrons)
    return float(solver.e_corr + triples - solver.emp2), float(norm)
