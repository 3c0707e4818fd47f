"""Exceptions of the package, and the one way to say "unknown name, did you mean ...".

Every error a user can cause names the argument, what was expected and what arrived.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_neuralxc.backend.solution import SCFAttempt


#: Longest list of valid names that an error spells out.
LISTED = 40


class NeuralXCError(Exception):
    """Base class of all errors raised by this package."""


class InvalidInputError(NeuralXCError, ValueError):
    """An argument, a structure or a file that cannot be used as given."""


class MissingDependencyError(NeuralXCError, ImportError):
    """An optional package that the request needs is not installed."""


class CheckpointError(NeuralXCError):
    """A functional's file that is truncated, altered, of another version or unsafe."""


class FunctionalError(NeuralXCError, ArithmeticError):
    """A functional returned a value that is not finite."""


class SCFNotConverged(NeuralXCError, RuntimeError):
    """No strategy of the ladder converged the self-consistent field.

    Args:
        message: what was tried, in words.
        history: one record per attempt, in the order of the attempts.
    """

    def __init__(self, message: str, history: Sequence[SCFAttempt] = ()) -> None:
        super().__init__(message)
        self.history = tuple(history)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[SCFAttempt, ...]]]:
        return type(self), (str(self), self.history)


class ResponseNotConverged(NeuralXCError, RuntimeError):
    """The linear equations of a response property did not reach their tolerance."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> InvalidInputError:
    """Build the error for a name that is not in a closed list.

    Args:
        kind: what the name stands for, as the user knows it ("parameter", "functional").
        name: the name that arrived.
        valid: the names that would have been accepted.

    Returns:
        An `InvalidInputError` that states the nearest valid name, if there is one, and the list.
    """
    names = sorted(valid)
    lowered = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    shown = ", ".join(names[:LISTED]) + (f", ... ({len(names)})" if len(names) > LISTED else "")
    return InvalidInputError(f"unknown {kind} {name!r}.{hint} Valid: {shown}")
