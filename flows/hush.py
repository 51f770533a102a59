"""A Prefect server that dies under a run is told once, in plain words.

Prefect's background services otherwise write a line to the terminal for every batch of log records
and events that they cannot send, between our own lines.
"""

import logging

from flows.listeners import RunReporter

_SERVICES = "prefect._internal.concurrency"
_SAYS = "the Prefect server does not answer; the run goes on, and its history there will have gaps"


def hush_services(reporter: RunReporter) -> None:
    """Let `reporter` tell, once, that Prefect's services failed; they print nothing themselves."""
    logging.raiseExceptions = False  # else the log service writes to stderr past all loggers
    logger = logging.getLogger(_SERVICES)
    for old in [f for f in logger.filters if isinstance(f, _TellOnce)]:
        logger.removeFilter(old)
    logger.addFilter(_TellOnce(reporter))


class _TellOnce(logging.Filter):
    """Keeps errors of the services back."""

    def __init__(self, reporter: RunReporter) -> None:
        super().__init__()
        self._reporter = reporter
        self._told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        if record.levelno < logging.ERROR:
            return True
        if not self._told:
            self._told = True
            self._reporter.say("server", _SAYS, warning=True)
        return False
