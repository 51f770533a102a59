"""Parent side of one run's process."""

import json
import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.batch.case_process import PARENT, CaseOrder
from flows.child_process import start_module
from pipeline.store.files import write_text
from stages.process import event_of

Event = tuple[str, dict[str, Any]]
"""Name of the run, and what happened."""

_GRACE_S = 40.0
"""Longer than a stage takes to save a checkpoint and end."""


class CaseProcess:
    """A process that does one run after the other; their events arrive in a queue.

    A run's last event is `ended`; the process's last one is `closed`, with the process itself.
    """

    def __init__(self, logs: Path, threads: int, events: "queue.Queue[Event]") -> None:
        self._logs, self._events = logs, events
        self._name = ""
        self.given = 0
        environment = {**thread_environment(threads), PARENT: str(os.getpid())}
        self._process = start_module("flows.batch.case_process", logs, environment, talks=True)
        threading.Thread(target=self._read, daemon=True).start()

    def give(self, name: str, order: CaseOrder) -> None:
        """Let it do a run; only once the one before has ended."""
        assert self._process.stdin
        self._name = name
        self.given += 1
        self.log_path.write_text("", encoding="utf-8")
        order_path = self._logs / f"{name}.json"
        write_text(order_path, order.model_dump_json(indent=1))
        with suppress(OSError):  # where it has died meanwhile, `closed` tells
            self._process.stdin.write(json.dumps(str(order_path)) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """No more runs for it."""
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.close()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """What the process printed beside the events of its last run."""
        return self._logs / f"{self._name}.log"

    def exit_code(self) -> int:
        """Of the ended process."""
        return self._process.wait()

    def interrupt(self) -> None:
        """Ask it to save and end."""
        self._signal(signal.SIGINT)

    def wait_or_kill(self) -> None:
        """Give it time to end, then none."""
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            event = event_of(line)
            if event is not None:
                self._events.put((self._name, event))
            elif self._name:
                with suppress(OSError), self.log_path.open("a", encoding="utf-8") as log:
                    log.write(line)
        self._events.put((self._name, {"kind": "closed", "process": self}))


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that keep numerical libraries to this many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in names}
