"""Several runs at a time, in a process for each job, until all have ended."""

import os
import queue
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flows.batch.case_process import CaseOrder
from flows.batch.child import CaseProcess, Event
from flows.batch.entries import BatchRun
from flows.devices import visible_gpus
from flows.request import RunRequest
from pipeline.store.files import remove

_POLL_S = 0.5
_MOST_CPU_JOBS = 4
"""More runs at once than this mostly compete for memory bandwidth."""
_RUNS_A_PROCESS = 25
"""Then a fresh one takes over: what a process leaks stays small."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: `done`, `failed` or `interrupted`, and why."""

    status: str
    message: str = ""
    hint: str | None = None
    stage: str | None = None


class BatchReporter(Protocol):
    """Shows a batch to a person."""

    def starts(self, run: str) -> None:
        """A run begins."""

    def event(self, run: str, stage: str | None, event: dict[str, Any]) -> None:
        """Something happened in a run."""

    def ended(self, run: str, outcome: Ended) -> None:
        """A run has ended."""


def default_jobs() -> int:
    """Runs at a time: one more than there are GPUs, so that the next case's structure from motion
    runs beside a training; without GPUs, one for two cores."""
    gpus = len(visible_gpus())
    return gpus + 1 if gpus else max(1, min((os.cpu_count() or 1) // 2, _MOST_CPU_JOBS))


def conduct(
    runs: Iterable[BatchRun],
    logs: Path,
    jobs: int,
    reporter: BatchReporter,
    on_end: Callable[[BatchRun, Ended], None],
) -> None:
    """Run everything, `jobs` at a time; one that fails never stops the others.

    Args:
        logs: folder for what the processes print.
        on_end: called in this thread whenever a run has ended.

    Raises:
        KeyboardInterrupt: after all running processes were asked to save and have ended.
    """
    conductor = _Conductor(deque(runs), logs, jobs, reporter, on_end)
    try:
        conductor.run()
    except BaseException:
        conductor.interrupt()
        raise


class _Conductor:
    def __init__(
        self,
        waiting: deque[BatchRun],
        logs: Path,
        jobs: int,
        reporter: BatchReporter,
        on_end: Callable[[BatchRun, Ended], None],
    ) -> None:
        self._waiting, self._logs, self._jobs = waiting, logs, jobs
        self._reporter, self._on_end = reporter, on_end
        self._threads = max(1, (os.cpu_count() or 1) // jobs)
        self._events: queue.Queue[Event] = queue.Queue()
        self._running: dict[str, tuple[BatchRun, CaseProcess]] = {}
        self._processes: list[CaseProcess] = []
        self._idle: list[CaseProcess] = []
        self._stages: dict[str, str] = {}

    def run(self) -> None:
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._jobs:
                self._start(self._waiting.popleft())
            try:
                name, event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._handle(name, event)
        for process in self._idle:
            process.close()
        for process in self._processes:  # also those that have served their runs
            process.wait_or_kill()

    def interrupt(self) -> None:
        """Let what runs save its checkpoints and end."""
        for process in self._processes:
            process.interrupt()
        for process in self._processes:
            process.wait_or_kill()
        for run, _ in self._running.values():
            self._on_end(run, Ended("interrupted", "interrupted; the same command continues"))

    def _start(self, run: BatchRun) -> None:
        assert run.request
        self._reporter.starts(run.name)
        order = CaseOrder(
            request=with_threads(run.request, self._threads),
            siblings=list(run.siblings),
        )
        self._idle = [process for process in self._idle if process.alive]
        process = self._idle.pop() if self._idle else self._new_process()
        self._running[run.name] = (run, process)
        process.give(run.name, order)

    def _new_process(self) -> CaseProcess:
        self._processes.append(CaseProcess(self._logs, self._threads, self._events))
        return self._processes[-1]

    def _handle(self, name: str, event: dict[str, Any]) -> None:
        if event["kind"] == "closed":
            ended = event["process"]
            for processes in (self._idle, self._processes):
                processes[:] = [process for process in processes if process is not ended]
            ended.exit_code()
            for running in [n for n, (_, process) in self._running.items() if process is ended]:
                self._finish(running, None)
        elif event["kind"] == "ended":
            self._finish(name, event)
        else:
            if event["kind"] == "starts":
                self._stages[name] = event["stage"]
            self._reporter.event(name, self._stages.get(name), event)

    def _finish(self, name: str, words: dict[str, Any] | None) -> None:
        run, process = self._running.pop(name)
        ended = _how(process, words, self._stages.get(name))
        if ended.status == "done":
            remove(process.log_path)
        remove(process.log_path.with_suffix(".json"))
        if words is not None and process.given < _RUNS_A_PROCESS:
            self._idle.append(process)
        elif words is not None:
            process.close()
        self._reporter.ended(name, ended)
        self._on_end(run, ended)


def _how(process: CaseProcess, words: dict[str, Any] | None, stage: str | None) -> Ended:
    if words is None:
        code = process.exit_code()
        why = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Ended("failed", f"the run's process {why}", f"its log is {process.log_path}", stage)
    ended = Ended(words["status"], words["message"], words["hint"], stage)
    return ended if ended.status != "done" else Ended("done")


def with_threads(request: RunRequest, threads: int) -> RunRequest:
    """The request with every stage's `threads` option at most `threads`; results stay the same."""
    settings = {
        name: {**options, "threads": min(options["threads"], threads)}
        if isinstance(options, dict) and "threads" in options
        else options
        for name, options in request.settings.items()
    }
    return request.model_copy(update={"settings": settings})
