"""The flow that workers run: one case, told in Prefect's log."""

import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Failed, State

from flows.alive import bury_dead, rest
from flows.console import duration
from flows.listeners import reporting
from flows.preflight.check import check_run
from flows.preflight.learn import learn_from
from flows.publish import publish
from flows.reconstruct import reconstruct
from flows.remote.case import Case
from flows.request import open_run
from flows.run_flow import as_ours
from flows.server import home, server_name
from pipeline.errors import PorfError
from pipeline.text import visible


def _run_name() -> str:
    case = flow_run.parameters["case"]
    return visible((case if isinstance(case, Case) else Case.model_validate(case)).name)


@flow(name="reconstruct-case", flow_run_name=_run_name, validate_parameters=True)
def reconstruct_case(case: Case) -> dict[str, str] | State[Any]:
    """Reconstruct a folder of photos; what is done already is not computed again."""
    try:
        return _reconstruct(case)
    except (PorfError, OSError) as error:
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(_IN_PLAIN_WORDS)
        return Failed(message=visible(str(as_ours(error, case.out))))


def _reconstruct(case: Case) -> dict[str, str]:
    request = case.request()
    folder, _, choice, external = open_run(request)
    log = get_run_logger()
    expected = check_run(request, folder, choice, external)
    if expected:
        log.info("expected: %s", expected.text())
    with suppress(OSError, ValueError):
        bury_dead(home(), server_name(), os.environ.get("PREFECT_API_URL", ""))
    began = datetime.now(UTC).replace(microsecond=0)
    with reporting(LogReporter(log)):
        try:
            keys: dict[str, str] = reconstruct.fn(request)  # its stages become tasks of this run
        finally:
            rest(known=True)  # who is killed from here on is missed by the server itself
    learn_from(request, began)
    if case.publish:
        done = publish(folder, case.publish)
        log.info("published to %s: %d files sent", visible(case.publish), done.sent)
    return keys


class _InPlainWords(logging.Filter):
    """Keeps Prefect's traceback of a failure back that the run's state tells in plain words."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


_IN_PLAIN_WORDS = _InPlainWords()


class LogReporter:
    """A `RunReporter` that writes to Prefect's log."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """See `RunReporter`."""
        self._log.info("%s starts: %s", stage, visible("; ".join(reasons)))

    def stage_cached(self, stage: str) -> None:
        """See `RunReporter`."""
        self._log.info("%s: cached", stage)

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """See `RunReporter`."""
        self._log.info("%s: done in %s", stage, duration(wall_s))
        for warning in warnings:
            self._log.warning("%s: %s", stage, visible(warning))

    def stage_failed(self, stage: str, message: str) -> None:
        """See `RunReporter`."""
        self._log.error("%s: %s", stage, visible(message))

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """See `RunReporter`; the progress artifact shows it."""

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        """See `RunReporter`; a stage's own words reach the log by another way."""
        if stage in ("retry", "results"):
            self._log.log(logging.WARNING if warning else logging.INFO, visible(text))
