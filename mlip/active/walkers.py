"""On the fly: dynamics that stop where the potential is unsure, and go on when it has learned.

Walkers keep positions and velocities from round to round. In each round they move on until their
expected force error passes the threshold or their time is over; the structures at which they stop
are what DFT is asked about, and with the potential of the next round they continue from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from ase_neuralxc.workflows.common import require_positive
from mlip.active.dynamics import Dynamics
from mlip.active.sampler import is_reasonable, sampled

#: Where a walker keeps its place.
WALKER_KEY = "walker"


@dataclass(frozen=True)
class WalkerSettings:
    """How walkers move.

    Attributes:
        threshold: expected force error in eV/Angstrom at which a walker stops to ask.
        temperatures: in kelvin, one walker of each start and temperature.
        steps: length of the whole run of a walker.
        interval: steps between looks at the uncertainty.
        timestep: in femtoseconds.
        friction: in 1/femtosecond.
    """

    threshold: float = 0.1
    temperatures: tuple[float, ...] = (300.0,)
    steps: int = 2000
    interval: int = 10
    timestep: float = 0.5
    friction: float = 0.02

    def __post_init__(self) -> None:
        require_positive("on_the_fly.threshold", self.threshold)
        self.dynamics()

    def dynamics(self) -> Dynamics:
        """The same as settings of the sampler."""
        return Dynamics(
            temperatures=self.temperatures,
            steps=self.steps,
            interval=self.interval,
            timestep=self.timestep,
            friction=self.friction,
            stop_above=self.threshold,
        )


def first_walkers(starts: Sequence[Atoms], settings: WalkerSettings) -> list[Atoms]:
    """Walkers at their starts, without velocities yet.

    Args:
        starts: structures.
        settings: of the run.

    Returns:
        One walker for each start and temperature.
    """
    walkers = []
    for parent, atoms in enumerate(starts):
        for temperature in settings.temperatures:
            walker = sampled(atoms, "walker", parent, temperature=temperature)
            walker.info[WALKER_KEY] = {"step": 0, "temperature": temperature, "parent": parent}
            walkers.append(walker)
    return walkers


def walk(
    walkers: Sequence[Atoms], calc: Any, settings: WalkerSettings, seed: int
) -> tuple[list[Atoms], list[Atoms]]:
    """Move walkers on until they are unsure or done.

    A walker whose atoms collide goes back to where it was an interval before, without its
    velocities: the potential has led it astray, and that is where to ask.

    Args:
        walkers: as `first_walkers` or the round before left them.
        calc: the potential, with uncertainties.
        settings: of the run.
        seed: of the random forces.

    Returns:
        The walkers where they are now, and the structures to ask about.
    """
    dynamics = settings.dynamics()
    moved, questions = [], []
    for number, start in enumerate(walkers):
        walker = start.copy()
        place = dict(start.info[WALKER_KEY])
        asks = False
        while place["step"] < settings.steps and not asks:
            before = walker.positions.copy()
            uncertainty = dynamics.advance(walker, calc, place["temperature"], (seed, number))
            if not is_reasonable(walker):
                walker.positions, asks = before, True
                walker.set_momenta(0.0 * before)
                break
            place["step"] += settings.interval
            asks = uncertainty > settings.threshold
        walker.info[WALKER_KEY] = place
        walker.calc = None
        moved.append(walker)
        if asks:
            origin = {"temperature": place["temperature"], "step": place["step"]}
            questions.append(sampled(walker, "walker", place["parent"], **origin))
    return moved, questions
