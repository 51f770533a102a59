"""Errors that a user can act on."""


class PorfError(Exception):
    """Base of every error that the product raises on purpose.

    Args:
        message: what was expected and what came.
        hint: what the user can do next.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class InputError(PorfError):
    """The user's data or options are at fault. Never retried; exit code 2 at the command line."""


class TrainingDiverged(PorfError):
    """Training met NaN or infinite losses; the last good checkpoint is kept."""
