"""Several runs at a time: refusals are told, killed processes are named, the others go on."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.batch.conduct import Ended, conduct
from flows.batch.entries import BatchRun
from flows.request import RunRequest
from flows.settings import resolve
from tests.flows.processes import kill


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def starts(self, run: str) -> None:
        self.told.append((run, "starts"))

    def event(self, run: str, stage: str | None, event: dict[str, Any]) -> None:
        self.told.append((run, event["kind"]))

    def ended(self, run: str, outcome: Ended) -> None:
        self.told.append((run, outcome.status))


def run_of(name: str, photos: Path, out: Path) -> BatchRun:
    settings = resolve().model_dump(mode="json")
    request = RunRequest(photos=photos, out=out / name, settings=settings)
    return BatchRun(name, name, "fast", 0, request)


def case_processes() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # others of this process' children come and go
            if "flows.batch.case_process" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def kill_first_child() -> None:
    while True:
        if kill([*case_processes()][:1]):
            return
        time.sleep(0.01)


def test_one_killed_and_one_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    runs = [run_of(name, absent, tmp_path) for name in ("killed", "refused")]
    ends: dict[str, Ended] = {}
    listener = Listener()
    killer = threading.Thread(target=kill_first_child)
    killer.start()
    (tmp_path / "logs").mkdir()
    conduct(runs, tmp_path / "logs", 1, listener, lambda run, end: ends.update({run.name: end}))
    killer.join()
    assert ends["killed"].status == "failed"
    assert "signal 9" in ends["killed"].message
    assert ends["refused"].status == "failed"
    assert "does not exist" in ends["refused"].message
    assert [word for _, word in listener.told] == ["starts", "failed", "starts", "failed"]
    assert not (tmp_path / "killed").exists()


@pytest.mark.parametrize(("runs_a_process", "processes"), [(25, 1), (2, 2)])
def test_a_process_serves_several_runs_and_has_ended_with_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_a_process: int, processes: int
) -> None:
    monkeypatch.setattr("flows.batch.conduct._RUNS_A_PROCESS", runs_a_process)
    absent = tmp_path / "absent"
    runs = [run_of(str(number), absent, tmp_path) for number in range(4)]
    ends: dict[str, Ended] = {}
    seen: set[int] = set()

    def note(run: BatchRun, end: Ended) -> None:
        ends[run.name] = end
        seen.update(case_processes())

    (tmp_path / "logs").mkdir()
    conduct(runs, tmp_path / "logs", 1, Listener(), note)
    assert [ends[str(n)].status for n in range(4)] == ["failed"] * 4
    assert len(seen) == processes
    assert not any(psutil.pid_exists(pid) for pid in seen)
