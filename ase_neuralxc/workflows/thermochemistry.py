"""Ideal-gas and harmonic thermochemistry from vibrational energies, through ASE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import require_positive


@dataclass(frozen=True)
class Thermochemistry:
    """Thermodynamic functions at one temperature (and pressure, for a gas).

    Attributes:
        model: "ideal gas" or "harmonic".
        temperature: in kelvin.
        pressure: in pascal, None for a harmonic solid or adsorbate.
        potential_energy: electronic energy in eV.
        zero_point_energy: in eV.
        enthalpy: in eV; for the harmonic model the internal energy.
        entropy: in eV/K.
        free_energy: Gibbs (gas) or Helmholtz (harmonic) energy in eV.
    """

    model: str
    temperature: float
    pressure: float | None
    potential_energy: float
    zero_point_energy: float
    enthalpy: float
    entropy: float
    free_energy: float

    def table(self) -> str:
        """Text: one line per quantity."""
        gas = self.pressure is not None
        at = f"T = {self.temperature:g} K" + (f", p = {self.pressure:g} Pa" if gas else "")
        return "\n".join(
            [
                f"{self.model}, {at}",
                f"  {'electronic energy':22} {self.potential_energy:18.6f} eV",
                f"  {'zero-point energy':22} {self.zero_point_energy:18.6f} eV",
                f"  {'enthalpy' if gas else 'internal energy':22} {self.enthalpy:18.6f} eV",
                f"  {'entropy * T':22} {self.entropy * self.temperature:18.6f} eV",
                f"  {'Gibbs energy' if gas else 'Helmholtz energy':22} {self.free_energy:18.6f} eV",
            ]
        )


def molecule_shape(atoms: Atoms) -> str:
    """Rotor type as `ase.thermochemistry` names it.

    Args:
        atoms: the molecule.

    Returns:
        "monatomic", "linear" or "nonlinear".
    """
    if len(atoms) == 1:
        return "monatomic"
    moments = np.sort(atoms.get_moments_of_inertia())
    return "linear" if moments[0] < 1e-4 * moments[-1] else "nonlinear"


def ideal_gas(
    atoms: Atoms,
    energies: np.ndarray,
    potential_energy: float,
    conditions: tuple[float, float],
    multiplicity: int = 1,
    symmetry_number: int = 1,
) -> Thermochemistry:
    """Ideal gas of rigid rotors and harmonic oscillators.

    Args:
        atoms: the molecule.
        energies: [n] vibrational quanta in eV, translations and rotations left out.
        potential_energy: electronic energy in eV.
        conditions: temperature in kelvin and pressure in pascal.
        multiplicity: 2S+1 of the electronic state.
        symmetry_number: of the rotation group (2 for water, 12 for methane).

    Returns:
        The thermodynamic functions.
    """
    temperature, pressure = conditions
    require_positive("temperature", temperature)
    require_positive("pressure", pressure)
    require_positive("multiplicity", multiplicity)
    require_positive("symmetry_number", symmetry_number)
    thermo = IdealGasThermo(
        vib_energies=energies,
        geometry=molecule_shape(atoms),
        potentialenergy=potential_energy,
        atoms=atoms,
        symmetrynumber=symmetry_number,
        spin=(multiplicity - 1) / 2,
        vib_selection="exact",
    )
    return Thermochemistry(
        "ideal gas",
        temperature,
        pressure,
        potential_energy,
        float(thermo.get_ZPE_correction()),
        float(thermo.get_enthalpy(temperature, verbose=False)),
        float(thermo.get_entropy(temperature, pressure, verbose=False)),
        float(thermo.get_gibbs_energy(temperature, pressure, verbose=False)),
    )


def harmonic(energies: np.ndarray, potential_energy: float, temperature: float) -> Thermochemistry:
    """Independent harmonic oscillators, as for an adsorbate or atoms in a frozen environment.

    Args:
        energies: [n] vibrational quanta in eV.
        potential_energy: electronic energy in eV.
        temperature: in kelvin.

    Returns:
        The thermodynamic functions.
    """
    require_positive("temperature", temperature)
    thermo = HarmonicThermo(vib_energies=energies, potentialenergy=potential_energy)
    return Thermochemistry(
        "harmonic",
        temperature,
        None,
        potential_energy,
        float(np.sum(energies) / 2),
        float(thermo.get_internal_energy(temperature, verbose=False)),
        float(thermo.get_entropy(temperature, verbose=False)),
        float(thermo.get_helmholtz_energy(temperature, verbose=False)),
    )


def require_real(energies: np.ndarray) -> np.ndarray:
    """Refuse imaginary modes, for which no partition function exists.

    Args:
        energies: [n] vibrational quanta in eV, imaginary ones negative.

    Returns:
        The energies.

    Raises:
        InvalidInputError: for a mode that is imaginary or zero.
    """
    if np.any(energies <= 0):
        raise InvalidInputError(
            f"thermochemistry: expected a minimum with real frequencies only, got "
            f"{int(np.sum(energies <= 0))} imaginary or zero; relax further or follow the mode"
        )
    return energies
