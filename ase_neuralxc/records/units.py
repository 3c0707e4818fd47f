"""The only unit conversions of the project; `A_B` is one A expressed in B.

Public interfaces speak ASE units (eV, Angstrom, e*Angstrom, mu_B), the DFT core Hartree atomic
units. The numbers are CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010, 2021). They are
written out because ASE and PySCF default to other CODATA years, which differ by 1e-8 relative;
PySCF is handed Bohr, so its own constants never enter an energy or a force.
"""

from __future__ import annotations

# --- energy -----------------------------------------------------------------------------------
HARTREE_EV = 27.211386245988
EV_HARTREE = 1.0 / HARTREE_EV
HARTREE_CM1 = 219474.6313632
EV_CM1 = HARTREE_CM1 / HARTREE_EV
#: Exact kilocalorie (4184 J) and Avogadro constant: 1 Hartree is 627.509474063 kcal/mol.
KCALMOL_HARTREE = 1.0 / 627.509474063
KCALMOL_EV = KCALMOL_HARTREE * HARTREE_EV

# --- length and volume ------------------------------------------------------------------------
BOHR_ANGSTROM = 0.529177210903
ANGSTROM_BOHR = 1.0 / BOHR_ANGSTROM
#: Polarisability volumes.
BOHR3_ANGSTROM3 = BOHR_ANGSTROM**3

# --- derivatives of the energy ----------------------------------------------------------------
#: Forces; also electric fields: one atomic unit of field in V/Angstrom.
HARTREE_BOHR_EV_ANGSTROM = HARTREE_EV / BOHR_ANGSTROM
#: Second derivatives (Hessians).
HARTREE_BOHR2_EV_ANGSTROM2 = HARTREE_EV / BOHR_ANGSTROM**2
#: One Hartree/Bohr^3 of stress in eV/Angstrom^3.
STRESS_EV_ANGSTROM3 = HARTREE_EV / BOHR_ANGSTROM**3
#: One eV/Angstrom^3 in GPa (the elementary charge is exact in the SI).
EV_ANGSTROM3_GPA = 160.2176634

# --- electric dipole --------------------------------------------------------------------------
#: One Debye, 1e-21 C m^2/s divided by the speed of light (both exact), in e*Angstrom.
DEBYE_E_ANGSTROM = 1e-21 / 299792458.0 / 1.602176634e-19 * 1e10
E_ANGSTROM_DEBYE = 1.0 / DEBYE_E_ANGSTROM
#: One atomic unit of dipole (e*Bohr) in Debye.
E_BOHR_DEBYE = BOHR_ANGSTROM / DEBYE_E_ANGSTROM

# --- mass -------------------------------------------------------------------------------------
#: One dalton in electron masses, for frequencies from Hessians in atomic units.
DALTON_ELECTRON_MASS = 1822.888486209

# --- light --------------------------------------------------------------------------------------
#: Wavelength in nm of a photon of 1 eV (h c, both exact).
EV_NM = 1239.8419843320026
