"""Runs of a batch, one after the other: `python -m flows.batch.case_process LOGS`.

Every line of standard input names, as a JSON string, a file with the order for a run. What happens
goes to standard output as `emit` writes it; a run's last event says how it ended. To load Prefect
takes longer than a small stage, so a process serves several runs. It ends with the batch; LOGS only
tells people, and `ps`, whose it is.
"""

import json
import os
import signal
import sys
from pathlib import Path

from pydantic import BaseModel, Field

from flows.batch.adopt import adopt
from flows.listeners import reporting
from flows.preflight.check import check_run
from flows.request import RunRequest, open_run
from flows.stage_host import close_idle
from pipeline.errors import PorfError
from stages.process import EventProgress, emit, end_with_parent

PARENT = "PORF_BATCH_PROCESS"
"""Variable with the process id of the batch."""


class CaseOrder(BaseModel):
    """One run to do.

    Attributes:
        siblings: output folders of the same case under other options.
    """

    request: RunRequest
    siblings: list[Path] = Field(default_factory=list)


class EventReporter:
    """A `RunReporter` that tells the batch."""

    def __init__(self) -> None:
        self._progress = EventProgress()

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """See `RunReporter`."""
        emit(kind="starts", stage=stage, reasons=reasons)

    def stage_cached(self, stage: str) -> None:
        """See `RunReporter`."""
        emit(kind="cached", stage=stage)

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """See `RunReporter`."""
        emit(kind="done", stage=stage, wall_s=wall_s, warnings=warnings)

    def stage_failed(self, stage: str, message: str) -> None:
        """See `RunReporter`."""
        emit(kind="say", stage=stage, text=message, warning=True)

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """See `RunReporter`."""
        self._progress.advance(phase, done, total, **figures)

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        """See `RunReporter`."""
        emit(kind="say", stage=stage, text=text, warning=warning)


def main() -> None:
    """Entry point of the process."""
    end_with_parent(int(os.environ[PARENT]))
    # A shell ignores SIGINT for what it runs in the background, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for line in sys.stdin:
            _perform(CaseOrder.model_validate_json(Path(json.loads(line)).read_bytes()))
    except KeyboardInterrupt:
        emit(kind="ended", status="interrupted", message="interrupted", hint=None)
        os._exit(130)  # Prefect's threads may not hold up the end
    close_idle()
    os._exit(0)


def _perform(order: CaseOrder) -> None:
    try:
        failure = _run(order)
    except PorfError as error:
        failure = error
    if failure is None:
        emit(kind="ended", status="done", message="", hint=None)
    else:
        emit(kind="ended", status="failed", message=failure.message, hint=failure.hint)


def _run(order: CaseOrder) -> PorfError | None:
    from flows.run_flow import run_flow  # noqa: PLC0415  (loads Prefect)

    request = order.request
    folder, _, choice, external = open_run(request)
    adopt(request, folder, choice, external, order.siblings)
    check_run(request, folder, choice, external)
    with reporting(EventReporter()):
        return run_flow(request)


if __name__ == "__main__":
    main()
