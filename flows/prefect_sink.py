"""What Prefect's UI shows of a run beside its states: progress, log lines, the report."""

import contextvars
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.case_folder import CaseFolder
from pipeline.store.manifest import Manifest

_INTERVAL_S = 5.0
_RETRIES = 2
"""Prefect's client by itself asks for a minute at each request: too long for mere showing."""


class PrefectSink:
    """A stage's log lines and live progress bar in Prefect's UI.

    Prefect is a spectator here: a server that is slow or does not answer must never hold up or
    fail a stage, so a thread of its own sends the latest progress.
    """

    def __init__(self, stage: str, logger: Any) -> None:
        self._stage = stage
        self._logger = logger
        self._latest = (0.0, f"{stage}: starts")
        self._ended = threading.Event()
        context = contextvars.copy_context()  # which server to talk to is part of it
        self._thread = threading.Thread(target=context.run, args=(self._send,), daemon=True)

    @classmethod
    def of_this_run(cls, stage: str) -> "PrefectSink":
        """For the task run that this is called in."""
        return cls(stage, get_run_logger())

    def __enter__(self) -> "PrefectSink":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._latest = (1.0, f"{self._stage}: done")
        self._ended.set()
        self._thread.join(_INTERVAL_S)

    def progress(self, phase: str, fraction: float, text: str) -> None:
        """See `flows.listeners.ProgressSink`."""
        self._latest = (fraction, f"{self._stage}: {phase} {text}".strip())

    def log(self, text: str, warning: bool) -> None:
        """See `flows.listeners.ProgressSink`."""
        self._logger.log(logging.WARNING if warning else logging.INFO, text)

    def _send(self) -> None:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES}), suppress(Exception):
            created = create_progress_artifact(
                progress=0.0, key=f"{self._stage}-progress", description=self._latest[1]
            )
            if isinstance(created, UUID):
                self._update(created)

    def _update(self, artifact: UUID) -> None:
        sent, ended = self._latest, False
        while not ended:
            ended = self._ended.wait(_INTERVAL_S)
            latest = self._latest
            if latest != sent:
                with suppress(Exception):
                    update_progress_artifact(
                        artifact, progress=100 * latest[0], description=latest[1]
                    )
            sent = latest


def publish_report(folder: CaseFolder, made: Mapping[str, Manifest]) -> None:
    """Show the compact report and the table of metrics in Prefect's UI."""
    from pipeline.report.markdown import compact_markdown, metric_rows  # noqa: PLC0415

    artifacts = {name: folder.store.artifact(name, m.key) for name, m in made.items()}
    manifests = {name: m.model_dump(mode="json") for name, m in made.items()}
    markdown, table = compact_markdown(artifacts, manifests), metric_rows(artifacts)
    patience = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES})
    with suppress(Exception), patience:  # a server that is gone must not fail a finished run
        create_markdown_artifact(markdown=markdown, key="report", description="Report")
        create_table_artifact(table=table, key="metrics", description="Metrics")
