"""How long-running domain functions tell the world where they are.

The domain only calls these three methods; who listens (a rich bar, a log, a Prefect artifact)
is decided by the caller.
"""

from typing import Protocol


class Progress(Protocol):
    """Listener for progress of one stage."""

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        """`done` of `total` steps of `phase` are finished; `figures` are shown beside it."""

    def note(self, text: str) -> None:
        """Something that a user reads with interest, on one line."""

    def warn(self, text: str) -> None:
        """Something that a user should look at, on one line."""


class NullProgress:
    """Listens to nothing."""

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        """See `Progress.advance`."""

    def note(self, text: str) -> None:
        """See `Progress.note`."""

    def warn(self, text: str) -> None:
        """See `Progress.warn`."""
