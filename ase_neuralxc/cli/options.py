"""Command-line options: those of the calculator, shared by all commands, and each command's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ase_neuralxc import __version__


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Write one line to standard error and leave.

        Args:
            message: what is wrong.
        """
        sys.stderr.write(f"neuralxc: error: {message} (see {self.prog} --help)\n")
        sys.exit(2)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _kpoints(text: str) -> tuple[int, ...] | dict[str, float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) == 1:
        return {"density": numbers[0]}
    return tuple(int(number) for number in numbers)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _species(text: str) -> dict[str, float]:
    pairs = [part.partition(":") for part in text.split(",")]
    return {name: float(number) if colon else 1.0 for name, colon, number in pairs}


def _move(text: str) -> tuple[int | str, int | str, float]:
    first, _, rest = text.partition(":")
    second, colon, weight = rest.partition(":")
    if not second:
        raise argparse.ArgumentTypeError(f"expected FROM:TO or FROM:TO:WEIGHT, got {text!r}")
    orbitals = [int(name) if name.isdigit() else name for name in (first, second)]
    return orbitals[0], orbitals[1], float(weight) if colon else 1.0


def _setting(text: str) -> tuple[str, int | str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return name, int(value) if value.isdigit() else value


def _name_or_none(text: str) -> str | None:
    return None if text.lower() == "none" else text


# Keyword of NeuralXC -> how the command line takes it. What is not given is not passed on, so that
# the calculator's own defaults (and its own checks) hold here too.
_CALCULATOR: dict[str, dict[str, Any]] = {
    "xc": {"help": "functional: a name, a checkpoint (.safetensors) or a Skala file (.fun)"},
    "basis": {"help": "basis set"},
    "auxbasis": {"help": "auxiliary basis of the density fit"},
    "ecp": {"type": _name_or_none, "help": "effective core potential, 'none' for all-electron"},
    "charge": {"type": int, "help": "total charge in e"},
    "multiplicity": {"type": int, "help": "2S+1"},
    "magmoms": {
        "type": _numbers,
        "metavar": "M1,M2,...",
        "help": "initial moment of each atom in mu_B (--magmoms=1,-1 breaks the symmetry)",
    },
    "backend": {"help": "auto, pyscf, pyscf-pbc or gpaw"},
    "kpts": {
        "type": _kpoints,
        "metavar": "N1,N2,N3",
        "help": "k-points of a crystal, or one number: points per inverse Angstrom",
    },
    "smearing": {"type": float, "help": "Fermi-Dirac k_B T in eV"},
    "ecut": {"type": float, "help": "plane-wave cutoff in eV"},
    "reference": {"help": "rks, uks, roks or auto"},
    "grid_level": {"type": int, "help": "quadrature grid, 0 to 9"},
    "density_fit": {
        "action": argparse.BooleanOptionalAction,
        "help": "fit the density in an auxiliary basis",
    },
    "dispersion": {"type": _name_or_none, "help": "d3bj or d4, optionally d3bj:NAME"},
    "solvent": {"type": _name_or_none, "help": "name of a solvent (SMD) or pcm:EPS"},
    "electric_field": {"type": _numbers, "metavar": "X,Y,Z", "help": "in V/Angstrom"},
    "conv_tol": {"type": float, "help": "convergence of the energy in Hartree"},
    "max_cycle": {"type": int, "help": "SCF cycles per strategy"},
    "stability": {"help": "follow internal instabilities: auto, always or never"},
    "device": {"help": "torch device of the functional"},
    "txt": {"metavar": "FILE", "help": "log of the SCF ('-' for standard output)"},
    "label": {"metavar": "PATH", "help": "keep the density in PATH.npz and start from it"},
}


#: Options that come with their opposite: --climb, --no-climb.
_SWITCH: dict[str, Any] = {"action": argparse.BooleanOptionalAction}


def calculator_keywords(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for `NeuralXC` that were given on the command line.

    Args:
        arguments: the parsed command line.

    Returns:
        Keywords and values.
    """
    return {name: getattr(arguments, name) for name in _CALCULATOR if hasattr(arguments, name)}


def _shared() -> Parser:
    shared = Parser(add_help=False)
    shared.add_argument("structure", help="file with the structure, any format of ASE")
    shared.add_argument("--json", action="store_true", help="write JSON instead of tables")
    shared.add_argument("--quiet", action="store_true", help="no progress on standard error")
    group = shared.add_argument_group("calculator (defaults: those of NeuralXC)")
    for name, options in _CALCULATOR.items():
        if options.get("action") is not argparse.BooleanOptionalAction:
            options = {"metavar": "VALUE", **options}
        group.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **options)
    return shared


def _add_reactions(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Options of `neb` and `adsorb`."""
    neb = command("neb", "reaction path between two minima, barriers and saddle", "-1")
    neb.add_argument("final", help="file with the end of the path; `structure` is its start")
    neb.add_argument("--n-images", type=int, default=5, help="between the ends (default 5)")
    neb.add_argument("--guess", default="idpp", help="first path: idpp or linear")
    neb.add_argument("--climb", **_SWITCH, default=True, help="climbing image (default)")
    neb.add_argument("--relax-ends", **_SWITCH, default=True, help="relax both ends (default)")
    neb.add_argument("--refine", help="sharpen the saddle: dimer or sella")
    neb.add_argument("--verify", **_SWITCH, default=True, help="modes of the saddle (default)")
    neb.add_argument("--keep-order", action="store_true", help="equal atoms may change places")

    adsorb = command("adsorb", "adsorption structures and energies on a slab", "-1")
    adsorb.add_argument("adsorbate", help="a name (CO, O, CH3OH) or a file")
    adsorb.add_argument(
        "--sites", type=_names, metavar="NAME,...", help="top, bridge, hollow, hollow-3, ..."
    )
    adsorb.add_argument(
        "--tilts", type=_numbers, default=(0.0,), metavar="A1,A2,...", help="degrees (default 0)"
    )
    adsorb.add_argument("--azimuths", type=int, default=1, help="turns per site (default 1)")
    adsorb.add_argument("--n-random", type=int, default=0, help="random placements (default 0)")
    adsorb.add_argument("--rattle", type=float, default=0.0, help="shifts of the start in A")
    adsorb.add_argument("--seed", type=int, default=0, help="of random placements and shifts")
    adsorb.add_argument(
        "--gas", type=_species, metavar="H2:0.5,...", help="reference (default: the adsorbate)"
    )
    adsorb.add_argument("--relax-slab", **_SWITCH, default=True, help="the clean slab (default)")
    for made, steps in ((neb, "of the band"), (adsorb, "of a relaxation")):
        made.add_argument("--fmax", type=float, default=0.05, help="in eV/A (default 0.05)")
        made.add_argument("--steps", type=int, default=300, help=f"{steps}, at most (default 300)")
        made.add_argument("--optimizer", default="BFGS", help="name in ase.optimize (default BFGS)")
        made.add_argument("--directory", help="intermediate results; continue from them")
        made.add_argument("--out", help="write the structures with their results (extxyz)")
        made.add_argument("--plot", help="picture of the energies")


def build_parser() -> tuple[Parser, dict[str, list[str]]]:
    """Parser of the whole command line.

    Returns:
        The parser (`command` names the command), and the options of each command.
    """
    parser = Parser(prog="neuralxc", description="Kohn-Sham DFT with neural functionals.")
    parser.add_argument("--version", action="version", version=f"neuralxc {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=Parser
    )
    shared = _shared()

    def command(name: str, summary: str, index: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=summary, description=summary, parents=[shared], allow_abbrev=False
        )
        made.add_argument(
            "--index", default=index, help=f"frames of the file, as in ASE (default {index!r})"
        )
        return made

    energy = command("energy", "energies, dipoles and, if asked, forces", ":")
    energy.add_argument("--forces", action="store_true", help="compute forces as well")
    energy.add_argument("--out", help="write the structures with their results (extxyz)")

    relax = command("relax", "relax the positions", "-1")
    relax.add_argument("--fmax", type=float, default=0.02, help="in eV/A (default 0.02)")
    relax.add_argument("--steps", type=int, default=200, help="largest number (default 200)")
    relax.add_argument("--optimizer", default="BFGS", help="name in ase.optimize (default BFGS)")
    relax.add_argument("--trajectory", help="ASE trajectory of the path")
    relax.add_argument("--restart", action="store_true", help="continue from --trajectory")
    relax.add_argument("--out", help="write the relaxed structure (extxyz)")
    relax.add_argument("--plot", help="picture of the relaxation")

    relax.add_argument("--cell", default="fixed", help="fixed, free, volume or in-plane")
    relax.add_argument("--pressure", type=float, default=0.0, help="in GPa, for a free cell")
    relax.add_argument("--keep-symmetry", action="store_true", help="keep the space group")

    md = command("md", "molecular dynamics", "-1")
    md.add_argument("--ensemble", default="nve", help="nve, nvt or npt (default nve)")
    for ensemble in ("nve", "nvt", "npt"):
        md.add_argument(f"--{ensemble}", dest="ensemble", action="store_const", const=ensemble,
                        help=f"short for --ensemble {ensemble}")  # fmt: skip
    md.add_argument("--timestep", type=float, default=0.5, help="in fs (default 0.5)")
    md.add_argument("--steps", type=int, default=1000, help="of the whole run (default 1000)")
    md.add_argument("--interval", type=int, default=1, help="steps between frames (default 1)")
    md.add_argument("--temperature", type=float, default=300.0, help="in K (default 300)")
    md.add_argument("--pressure", type=float, default=0.0, help="in GPa, for npt (default 0)")
    md.add_argument("--cell", default="volume", help="what fluctuates in npt: volume or free")
    md.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    md.add_argument("--trajectory", help="ASE trajectory of the frames")
    md.add_argument("--restart", action="store_true", help="continue from --trajectory")
    md.add_argument("--out", help="write all frames (extxyz)")
    md.add_argument("--plot", help="picture of energies and temperature")
    md.add_argument("--analysis", help="picture of g(r) and the mean square displacement")

    eos = command("eos", "equation of state of a crystal", "-1")
    eos.add_argument("--points", type=int, default=7, help="number of volumes (default 7)")
    eos.add_argument("--strain", type=float, default=0.06, help="of the volume (default 0.06)")
    eos.add_argument("--equation", default="birchmurnaghan", help="of state, a name of ase.eos")
    eos.add_argument("--out", help="write the structure at the fitted volume (extxyz)")
    eos.add_argument("--plot", help="picture of points and fit")

    elastic = command("elastic", "elastic constants and moduli of a crystal", "-1")
    elastic.add_argument("--strain", type=float, default=0.005, help="default 0.005")
    elastic.add_argument("--clamped", action="store_true", help="do not relax strained cells")
    elastic.add_argument("--fmax", type=float, default=0.005, help="of the relaxations, in eV/A")
    elastic.add_argument("--directory", help="cache of the stresses; continue from it")
    elastic.add_argument("--plot", help="picture of Young's modulus by direction")

    phonons = command("phonons", "phonon bands, density of states, thermal properties", "-1")
    phonons.add_argument(
        "--supercell", type=_integers, default=(2, 2, 2), metavar="N1,N2,N3", help="default 2,2,2"
    )
    phonons.add_argument("--distance", type=float, default=0.01, help="displacement in A")
    phonons.add_argument("--mesh", type=float, default=60.0, help="length of the q-mesh in A")
    phonons.add_argument("--directory", help="cache of the displacements; continue from it")
    phonons.add_argument("--plot", help="picture of bands and density of states")

    vib = command("vib", "vibrational modes, infrared intensities, thermochemistry", "-1")
    vib.add_argument("--delta", type=float, default=0.01, help="displacement in A (default 0.01)")
    vib.add_argument("--nfree", type=int, default=2, help="displacements per coordinate: 2 or 4")
    vib.add_argument("--directory", help="cache of the displacements; continue from it")
    vib.add_argument("--temperature", type=float, help="thermochemistry at this many kelvin")
    vib.add_argument("--pressure", type=float, default=101325.0, help="in Pa (default 101325)")
    vib.add_argument("--symmetry-number", type=int, default=1, help="of the rotation group")
    vib.add_argument("--plot", help="picture of the spectrum")

    td = command("td", "vertical excitations", "-1")
    td.add_argument("--states", type=int, default=5, help="number of states (default 5)")
    td.add_argument("--full", action="store_true", help="TDDFT instead of Tamm-Dancoff")
    td.add_argument("--triplets", action="store_true", help="triplets of a closed shell")

    excite = command("excite", "one excited state by a constrained transition (T-CDFT)", "-1")
    excite.add_argument(
        "--move", type=_move, action="append", default=[], metavar="FROM:TO[:WEIGHT]",
        help="orbitals by name or index, such as HOMO-1:LUMO:0.8; repeatable (default HOMO:LUMO)",
    )  # fmt: skip
    excite.add_argument(
        "--state", default="singlet", help="singlet, triplet or mixed (default singlet)"
    )

    _add_reactions(command)

    label = command("label", "label structures for training; continues where it stopped", ":")
    label.add_argument("--out", required=True, help="directory of the campaign")
    label.add_argument("--workers", type=int, help="processes, here or on the cluster (default 1)")
    label.add_argument(
        "--scheduler", default="local", help="local, dask://HOST:PORT or slurm (default local)"
    )
    label.add_argument(
        "--job",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what to ask SLURM for: queue=normal, cores=8, memory=32GB, walltime=04:00:00, ...",
    )
    options = {
        name: [option for option in made._option_string_actions if option.startswith("--")]
        for name, made in commands.choices.items()
    }
    return parser, options
