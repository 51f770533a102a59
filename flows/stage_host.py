"""Parent side of the process that stages are forked from (`stages.host`)."""

import atexit
import contextvars
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.child_process import start_module
from stages.host import PARENT, StageOrder
from stages.process import event_of

_GRACE_S = 20.0
"""Time to save a checkpoint after SIGTERM."""

_END_S = 5.0
"""More than an idle host takes to end."""

_idle: list["StageHost"] = []
"""Hosts of this process that wait for a stage: as many as stages ever ran at a time."""


class StageHost:
    """A process that runs one stage after the other, each in a fork of its own.

    It lives as long as the thread that started it: stages are run from a process's main thread.
    """

    def __init__(self, folder: Path) -> None:
        self._process = start_module("stages.host", folder, {PARENT: str(os.getpid())}, talks=True)

    @classmethod
    def idle(cls, folder: Path) -> "StageHost":
        """One that waits, or a new one, which is told to people as that folder's."""
        while _idle:
            host = _idle.pop()
            if host._process.poll() is None:
                return host
        return cls(folder)

    def release(self) -> None:
        """Let the next stage have it."""
        _idle.append(self)

    def close(self) -> None:
        """Let it end: no more stages for it."""
        assert self._process.stdin
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(_END_S)

    def start(
        self,
        stage: str,
        request: Path,
        environment: Mapping[str, str],
        listen: Callable[[str], None],
        on_event: Callable[[dict[str, Any]], None],
    ) -> "RunningStage":
        """Run a stage; its lines and events arrive in another thread."""
        order = StageOrder(stage=stage, request=request, environment=dict(environment))
        assert self._process.stdin
        with suppress(OSError):  # where the host died meanwhile, the end of its output tells
            self._process.stdin.write(order.model_dump_json() + "\n")
            self._process.stdin.flush()
        return RunningStage(self._process, listen, on_event)


@atexit.register
def close_idle() -> None:
    """End the hosts that wait; else they would end by themselves a moment after this process."""
    while _idle:
        _idle.pop().close()


class RunningStage:
    """A stage at work."""

    def __init__(
        self,
        host: "subprocess.Popen[str]",
        listen: Callable[[str], None],
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        self._host, self._listen, self._on_event = host, listen, on_event
        self._pid: int | None = None
        self._code: int | None = None
        context = contextvars.copy_context()  # Prefect's settings and loggers live in it
        self._reader = threading.Thread(target=context.run, args=(self._read,), daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> int | None:
        """The exit code, negative for a signal; None while it goes on."""
        self._reader.join(seconds)
        return self._code

    def stop(self) -> None:
        """End the stage and its children: politely, then not; and the host."""
        for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
            if self._pid is None:
                break
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)
            if self.wait(patience_s) is not None:
                break
        self._host.kill()
        self._host.wait()
        self._reader.join(5)

    def _read(self) -> None:
        code = None
        try:
            code = self._hear()
        finally:
            if code is None:  # the host died, or nobody can hear it any more
                self._host.kill()
                code = self._host.wait()
            self._code = code

    def _hear(self) -> int | None:
        """The stage's exit code, once it has ended; None where the host ended instead."""
        assert self._host.stdout
        for raw in self._host.stdout:
            line = raw.rstrip()
            event = event_of(line)
            if event is None:
                self._listen(line)
            elif event["kind"] == "began":
                self._pid = event["pid"]
            elif event["kind"] == "ended":
                return int(event["code"])
            else:
                self._on_event(event)
        return None
