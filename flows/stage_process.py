"""Parent side of a stage's process: has it started, listens, and names how it ended."""

import json
import signal
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from flows.stage_host import StageHost
from pipeline.errors import InputError, PorfError
from pipeline.store.files import write_text
from stages.process import EXIT_REFUSED, StageRequest


class StageRefused(PorfError):
    """The stage ended on purpose for a reason that a retry cannot mend."""


class StageCrashed(PorfError):
    """The stage's process died; worth another attempt."""


Listener = Callable[[dict[str, Any]], None]


def run_stage_process(
    request: StageRequest, on_event: Listener, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a stage in its own process and wait for it.

    Args:
        request: what to do; the log goes to `log.txt` in its work folder.
        on_event: called with every event the stage sends, from another thread.
        environment: variables for the process beside our own.

    Returns:
        The outcome for the manifest.

    Raises:
        InputError: the stage refused its input.
        StageRefused: it failed in a way that a retry cannot mend.
        StageCrashed: it died of a signal or an unexpected error.
    """
    request_path = request.work / "request.json"
    write_text(request_path, request.model_dump_json(indent=1))
    request.outcome.unlink(missing_ok=True)
    with (request.work / "log.txt").open("a", encoding="utf-8") as log:
        ending = _Ending(on_event, log)
        host = StageHost.idle(request.work)
        running = host.start(
            request.stage, request_path, environment or {}, ending.line, ending.event
        )
        try:
            while (code := running.wait(0.5)) is None:
                pass  # short waits keep the main thread open to signals and cancellation
        except BaseException:
            running.stop()
            raise
    host.release()
    if code == 0:
        return dict(json.loads(request.outcome.read_bytes()))
    raise ending.error(request, code)


class _Ending:
    """Hears what the process prints and keeps what explains its end."""

    def __init__(self, on_event: Listener, log: TextIO) -> None:
        self._on_event = on_event
        self._log = log
        self._tail: deque[str] = deque(maxlen=15)
        self._refusal: dict[str, Any] | None = None

    def line(self, text: str) -> None:
        self._tail.append(text)
        with suppress(OSError):  # a full disk must not deafen us to the stage's refusal
            self._log.write(text + "\n")
            self._log.flush()

    def event(self, event: dict[str, Any]) -> None:
        if event["kind"] == "refused":
            self._refusal = event
        else:
            self._on_event(event)

    def error(self, request: StageRequest, code: int) -> PorfError:
        if code == EXIT_REFUSED and self._refusal:
            kind = InputError if self._refusal["error"] == "input" else StageRefused
            return kind(self._refusal["message"], self._refusal["hint"])
        last = next((line for line in reversed(self._tail) if line.strip()), "nothing printed")
        log = f"the log is {request.work / 'log.txt'}"
        if code < 0:
            name = signal.Signals(-code).name
            return StageCrashed(f"{request.stage} was ended by {name}{_likely_cause(-code)}", log)
        return StageCrashed(f"{request.stage} ended with exit code {code}: {last}", log)


def _likely_cause(number: int) -> str:
    causes = {
        signal.SIGKILL: ": most likely out of memory, or killed by hand",
        signal.SIGSEGV: ": a fault in native code",
        signal.SIGTERM: ": asked to stop",
    }
    return causes.get(signal.Signals(number), "")


def log_tail(work: Path, lines: int = 15) -> list[str]:
    """The last lines of a stage's log."""
    try:
        return (
            (work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )
    except OSError:
        return []
