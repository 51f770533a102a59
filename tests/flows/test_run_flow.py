"""How a run ends whose server does not answer as it should."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows import run_flow as module
from flows.hush import hush_services
from flows.listeners import SilentReporter, reporting
from flows.request import RunRequest
from flows.run_flow import ServerBusyError, run_flow
from pipeline.errors import PorfError


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/api/flow_runs")
    return httpx.HTTPStatusError("x", request=request, response=httpx.Response(status))


def test_errors_of_a_server_are_told_apart(tmp_path: Path) -> None:
    assert isinstance(module.as_ours(answered(503), tmp_path), ServerBusyError)
    gone = module.as_ours(httpx.ConnectError("refused"), tmp_path)
    assert not isinstance(gone, ServerBusyError)
    assert "went away" in gone.message
    assert "went away" in module.as_ours(answered(500), tmp_path).message


class Hears(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("busy", "ends"), [(2, None), (9, ServerBusyError)])
def test_a_busy_server_is_asked_again(
    busy: int, ends: type | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [ServerBusyError("busy")] * busy + [None]
    monkeypatch.setattr(module, "_run_once", lambda _: answers.pop(0))
    monkeypatch.setattr(module, "_PAUSES_S", (0.0, 0.0, 0.0))
    ear = Hears()
    with reporting(ear):
        failure = run_flow(RunRequest(photos=tmp_path, out=tmp_path))
    assert failure is None if ends is None else isinstance(failure, ends)
    assert ear.said == ["the Prefect server is busy; trying again"] * min(busy, 3)


def test_any_other_failure_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [PorfError("a stage failed")]
    monkeypatch.setattr(module, "_run_once", lambda _: answers.pop(0))
    failure = run_flow(RunRequest(photos=tmp_path, out=tmp_path))
    assert failure
    assert failure.message == "a stage failed"


def test_services_that_fail_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Hears(), Hears()
    services = logging.getLogger("prefect._internal.concurrency")
    hush_services(first)
    hush_services(second)
    for _ in range(3):
        services.error("Service %r failed with %s pending items.", "EventsWorker", 3)
    assert first.said == []
    assert len(second.said) == 1
    assert "does not answer" in second.said[0]
    assert capsys.readouterr().err == ""
