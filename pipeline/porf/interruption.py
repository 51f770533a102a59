"""SIGTERM during training: finish the step, save, leave."""

import signal
import threading
from types import FrameType, TracebackType

EXIT_CODE = 143
"""What a shell reports for a process ended by SIGTERM."""


class Interrupted(Exception):
    """Training was asked to stop."""


class Interruption:
    """Context in which SIGTERM sets a flag instead of ending the process.

    Signals can only be caught in the main thread; elsewhere the flag stays down.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: object = None
        self._installed = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._previous)  # type: ignore[arg-type]
            self._installed = False

    def check(self) -> None:
        """Raise `Interrupted` where SIGTERM has come."""
        if self.requested:
            raise Interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
