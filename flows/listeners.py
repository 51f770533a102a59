"""Who hears what a stage says: the console, Prefect's log, Prefect's progress artifacts."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class RunReporter(Protocol):
    """Shows a run to a person."""

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """A stage begins to compute, for these reasons."""

    def stage_cached(self, stage: str) -> None:
        """A stage's result is there already."""

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """A stage's result was published."""

    def stage_failed(self, stage: str, message: str) -> None:
        """A stage gave up."""

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """A stage got on."""

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        """A stage has something to say."""


class SilentReporter:
    """Shows nothing; for runs that Prefect alone watches."""

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """See `RunReporter`."""

    def stage_cached(self, stage: str) -> None:
        """See `RunReporter`."""

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """See `RunReporter`."""

    def stage_failed(self, stage: str, message: str) -> None:
        """See `RunReporter`."""

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """See `RunReporter`."""

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        """See `RunReporter`."""


_reporter: ContextVar[RunReporter | None] = ContextVar("reporter", default=None)
_SILENT = SilentReporter()


def current_reporter() -> RunReporter:
    """The reporter of this run."""
    return _reporter.get() or _SILENT


@contextmanager
def reporting(reporter: RunReporter) -> Iterator[None]:
    """Let runs in this context report to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


class ProgressSink(Protocol):
    """A slower listener beside the reporter (Prefect's artifacts and log)."""

    def progress(self, phase: str, fraction: float, text: str) -> None:
        """A stage got on."""

    def log(self, text: str, warning: bool) -> None:
        """A stage has something to say."""


@dataclass
class StageListener:
    """Hands the events of one stage's process to everybody who listens."""

    stage: str
    reporter: RunReporter
    sink: ProgressSink | None = None
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something worth reading."""
        self.event({"kind": "note", "text": text})

    def event(self, event: dict[str, Any]) -> None:
        """One event of the stage's process."""
        if event["kind"] == "advance":
            self._advance(event)
            return
        warning = event["kind"] == "warn"
        self.reporter.say(self.stage, event["text"], warning)
        if self.sink:
            self.sink.log(f"{self.stage}: {event['text']}", warning)

    def _advance(self, event: dict[str, Any]) -> None:
        figures = event["figures"]
        self.reporter.advance(self.stage, event["phase"], event["done"], event["total"], figures)
        if self.sink:
            text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            fraction = event["done"] / max(event["total"], 1)
            self.sink.progress(event["phase"], fraction, text)
