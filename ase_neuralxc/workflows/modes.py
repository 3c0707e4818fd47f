"""From a Hessian to frequencies, modes and infrared intensities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_neuralxc.records.units import (
    DALTON_ELECTRON_MASS,
    EV_CM1,
    HARTREE_BOHR2_EV_ANGSTROM2,
    HARTREE_EV,
)
from ase_neuralxc.workflows.common import new_figure, save_figure
from ase_neuralxc.workflows.thermochemistry import (
    Thermochemistry,
    harmonic,
    ideal_gas,
    molecule_shape,
    require_real,
)

# Integrated absorption pi N_A e^2 / (3 c^2 4 pi eps_0 u) of |d mu/dQ|^2 = 1 e^2/dalton in km/mol
# (CODATA 2018; Porezag and Pederson, Phys. Rev. B 54, 7830 (1996), their 42.255 is per D^2).
_INTENSITY_KM_MOL = 974.8801


@dataclass(frozen=True, eq=False)
class VibrationsResult:
    """Modes of vibration; translations and rotations that were projected out are not listed.

    Attributes:
        atoms: the undisplaced structure.
        indices: [n_moving] atoms that vibrate.
        energies: [n_modes] vibrational quanta in eV, ascending, imaginary ones negative.
        modes: [n_modes, n_moving, 3] Cartesian displacements, of unit mass-weighted norm
            (1/sqrt(dalton)).
        intensities: [n_modes] infrared intensities in km/mol, None without dipoles.
        hessian: [3 n_moving, 3 n_moving] symmetrised, not projected, in eV/Angstrom^2.
        potential_energy: of the undisplaced structure in eV.
        fmax: largest force on a moving atom of the undisplaced structure in eV/Angstrom.
        n_external: translations and rotations projected out.
        external_cm1: largest |frequency| among them before projection in cm^-1, a measure of the
            noise in the forces; 0 when nothing was projected.
    """

    atoms: Atoms
    indices: np.ndarray
    energies: np.ndarray
    modes: np.ndarray
    intensities: np.ndarray | None
    hessian: np.ndarray
    potential_energy: float
    fmax: float
    n_external: int
    external_cm1: float

    @property
    def frequencies(self) -> np.ndarray:
        """[n_modes] in cm^-1, imaginary ones negative."""
        return self.energies * EV_CM1

    @property
    def imaginary(self) -> np.ndarray:
        """[n_modes] True for imaginary frequencies."""
        return self.energies < 0

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real quanta in eV."""
        return float(self.energies[self.energies > 0].sum() / 2)

    def thermochemistry(
        self,
        temperature: float = 298.15,
        pressure: float = 101325.0,
        multiplicity: int = 1,
        symmetry_number: int = 1,
    ) -> Thermochemistry:
        """Ideal gas for a free molecule, else the harmonic model.

        Args:
            temperature: in kelvin.
            pressure: in pascal (gas only).
            multiplicity: 2S+1 (gas only).
            symmetry_number: of the rotation group (gas only).

        Returns:
            The thermodynamic functions.

        Raises:
            InvalidInputError: for imaginary or zero frequencies.
        """
        energies = require_real(self.energies)
        if self.atoms.pbc.any() or len(self.indices) < len(self.atoms):
            return harmonic(energies, self.potential_energy, temperature)
        return ideal_gas(
            self.atoms,
            energies,
            self.potential_energy,
            (temperature, pressure),
            multiplicity,
            symmetry_number,
        )

    def table(self) -> str:
        """Text: one line per mode, zero-point energy, and warnings where there is cause."""
        infrared = self.intensities is not None
        header = f"{'mode':>5} {'meV':>10} {'cm^-1':>10}"
        lines = [header + (f" {'IR km/mol':>11}" if infrared else "")]
        for mode, (energy, frequency) in enumerate(
            zip(self.energies, self.frequencies, strict=True), start=1
        ):
            flag = "i" if energy < 0 else " "
            line = f"{mode:5d} {abs(energy) * 1e3:9.2f}{flag} {abs(frequency):9.2f}{flag}"
            if self.intensities is not None:
                line += f" {self.intensities[mode - 1]:11.2f}"
            lines.append(line)
        lines.append(f"zero-point energy: {self.zero_point_energy:.6f} eV")
        if self.n_external:
            lines.append(
                f"{self.n_external} translations and rotations projected out "
                f"(before: |frequency| up to {self.external_cm1:.1f} cm^-1)"
            )
        if self.imaginary.any():
            lines.append(f"IMAGINARY modes: {int(self.imaginary.sum())}, not a minimum")
        lines.append(f"largest force at this geometry: {self.fmax:.5f} eV/A")
        return "\n".join(lines)

    def plot(self, path: str | Path, width: float = 20.0) -> Path:
        """Write the spectrum: infrared where there are intensities, else one unit per mode.

        Args:
            path: target file.
            width: half width at half maximum of the Lorentzian lines in cm^-1.

        Returns:
            The path.
        """
        figure, (axes,) = new_figure()
        real = ~self.imaginary
        lines = self.frequencies[real]
        heights = np.ones(len(lines)) if self.intensities is None else self.intensities[real]
        grid = np.linspace(0.0, 1.1 * max(lines.max(initial=0.0), 100.0), 2000)
        lorentz = width / np.pi / ((grid[:, None] - lines) ** 2 + width**2)
        axes.plot(grid, lorentz @ heights)
        axes.set_xlabel("wavenumber / cm⁻¹")
        axes.set_ylabel("modes per cm⁻¹" if self.intensities is None else "IR / km mol⁻¹ per cm⁻¹")
        axes.set_title(self.atoms.get_chemical_formula())
        return save_figure(figure, path)


def external_motions(atoms: Atoms, indices: np.ndarray) -> np.ndarray:
    """Mass-weighted translations and rotations of atoms that are all free to move.

    Args:
        atoms: the structure.
        indices: [n_moving] atoms that vibrate.

    Returns:
        [3 n_moving, n_external] orthonormal columns: none for a part of a structure, three
        translations for a periodic one, with rotations (two if linear) for a molecule.
    """
    n = len(atoms)
    if len(indices) < n or (atoms.pbc.any() and not atoms.pbc.all()):
        return np.zeros((3 * len(indices), 0))
    root = np.sqrt(atoms.get_masses()[indices])
    motions = [np.kron(root, axis) for axis in np.eye(3)]
    if not atoms.pbc.any() and molecule_shape(atoms) != "monatomic":
        arms = atoms.positions[indices] - atoms.get_center_of_mass()
        moments, axes = atoms.get_moments_of_inertia(vectors=True)
        order = np.argsort(moments)
        # Turning about its own axis moves no atom of a linear molecule.
        skip = 1 if molecule_shape(atoms) == "linear" else 0
        motions += [(root[:, None] * np.cross(axes[k], arms)).ravel() for k in order[skip:]]
    return np.linalg.qr(np.array(motions).T)[0]


def quanta(curvatures: np.ndarray) -> np.ndarray:
    """Signed square roots of mass-weighted curvatures as energies.

    Args:
        curvatures: [n] in eV/Angstrom^2/dalton.

    Returns:
        [n] vibrational quanta in eV, negative where the curvature is.
    """
    squared = curvatures / HARTREE_BOHR2_EV_ANGSTROM2 / DALTON_ELECTRON_MASS
    return np.sign(squared) * np.sqrt(np.abs(squared)) * HARTREE_EV


def analyse(
    atoms: Atoms,
    indices: np.ndarray,
    hessian: np.ndarray,
    dipole_slopes: np.ndarray | None,
    reference: tuple[float, float],
) -> VibrationsResult:
    """Diagonalise a Hessian.

    Args:
        atoms: the undisplaced structure.
        indices: [n_moving] atoms that vibrate.
        hessian: [3 n_moving, 3 n_moving] symmetric, in eV/Angstrom^2.
        dipole_slopes: [3 n_moving, 3] derivatives of the dipole in e, or None.
        reference: energy in eV and largest force in eV/Angstrom of the undisplaced structure.

    Returns:
        The modes.
    """
    weights = np.repeat(atoms.get_masses()[indices] ** -0.5, 3)
    weighted = weights[:, None] * hessian * weights
    external = external_motions(atoms, indices)
    n_external = external.shape[1]
    noise = np.linalg.eigvalsh(external.T @ weighted @ external) if n_external else np.zeros(1)
    # The complement of the external motions, so that no eigenvalue has to be told from zero.
    inner = np.linalg.svd(external)[0][:, n_external:] if n_external else np.eye(len(weights))
    curvatures, vectors = np.linalg.eigh(inner.T @ weighted @ inner)
    normal = inner @ vectors  # [3 n_moving, n_modes], mass-weighted
    modes = (weights[:, None] * normal).T
    intensities = None
    if dipole_slopes is not None:
        intensities = _INTENSITY_KM_MOL * ((modes @ dipole_slopes) ** 2).sum(axis=1)
    return VibrationsResult(
        atoms=atoms,
        indices=indices,
        energies=quanta(curvatures),
        modes=modes.reshape(len(modes), len(indices), 3),
        intensities=intensities,
        hessian=hessian,
        potential_energy=reference[0],
        fmax=reference[1],
        n_external=n_external,
        external_cm1=float(np.abs(quanta(noise)).max() * EV_CM1),
    )
