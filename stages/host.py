"""Processes of stages, all forks of one: `python -m stages.host FOLDER`.

To load torch, numba and trimesh takes seconds of processor time, several times as much as some
stages' work. Here they are loaded once: every line of standard input orders a stage; its module is
imported, and a fork does the work in a process of its own, as clean as a fresh one. What it prints
goes to standard output; so do, as events, that it began and how it ended. The host ends with its
parent, and the stage with the host. FOLDER only tells people, and `ps`, whose it is.
"""

import ctypes
import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from stages.process import emit, end_with_parent, memory_mb, run_request

PARENT = "PORF_HOST_PARENT"
"""Variable with the process id of whoever started the host."""


class StageOrder(BaseModel):
    """A stage to run.

    Attributes:
        request: file with its `StageRequest`.
        environment: variables for its process alone; libraries that are loaded already (OpenMP's
            threads) have read theirs.
    """

    stage: str
    request: Path
    environment: dict[str, str]


def main() -> int:
    """Entry point of the host, and of every stage that it forks."""
    end_with_parent(int(os.environ[PARENT]))
    loaded_mb: dict[str, float] = {}
    for line in sys.stdin:
        order = StageOrder.model_validate_json(line)
        with suppress(Exception):  # the stage meets it again, and says so
            import_module(f"stages.{order.stage}")
        own_mb = loaded_mb.setdefault(order.stage, memory_mb("RssAnon"))
        gc.freeze()  # the collector would write to pages that forks share
        host = os.getpid()
        child = os.fork()
        if child == 0:
            _settle(order, host)
            return run_request(order.request, memory_mb("VmRSS") - own_mb)
        _, status = os.waitpid(child, 0)
        print(flush=True)  # the stage may have died in the middle of a line
        emit(kind="ended", code=os.waitstatus_to_exitcode(status))
    return 0


def _settle(order: StageOrder, host: int) -> None:
    """Make the fork a process of its own: session, name, input and environment."""
    end_with_parent(host)
    os.setsid()
    pr_set_name = 15
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(pr_set_name, f"porf:{order.stage}".encode())
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.update(order.environment)
    emit(kind="began", pid=os.getpid())


if __name__ == "__main__":
    sys.exit(main())
