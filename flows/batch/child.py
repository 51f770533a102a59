"""Parent side of one run's process."""

import json
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from flows.batch.case_process import CaseOrder
from flows.child_process import start_module
from pipeline.store.files import write_text
from stages.process import EVENT_MARK

Event = tuple[str, dict[str, Any]]
"""Name of the run, and what happened."""

_GRACE_S = 40.0
"""Longer than a stage takes to save a checkpoint and end."""


class CaseProcess:
    """One run's process; its events arrive in a queue, the last one is `closed`."""

    def __init__(
        self, name: str, order: CaseOrder, logs: Path, threads: int, events: "queue.Queue[Event]"
    ) -> None:
        self.name = name
        self._events = events
        self._log_path = logs / f"{name}.log"
        order_path = logs / f"{name}.json"
        write_text(order_path, order.model_dump_json(indent=1))
        self._process = start_module(
            "flows.batch.case_process", order_path, thread_environment(threads)
        )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def log_path(self) -> Path:
        """What the process printed beside its events."""
        return self._log_path

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
        with self._log_path.open("w", encoding="utf-8") as log:
            for line in self._process.stdout:
                event = _event(line)
                if event is None:
                    log.write(line)
                    log.flush()
                else:
                    self._events.put((self.name, event))
        self._events.put((self.name, {"kind": "closed"}))


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith(EVENT_MARK):
        return None
    try:
        event = json.loads(line[len(EVENT_MARK) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that keep numerical libraries to this many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in names}
