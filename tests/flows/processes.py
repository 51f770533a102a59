"""Living processes of ours, found by what their command lines say."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def pids(*words: str) -> list[int]:
    """Living processes whose command lines hold all of these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(entry.name))
    return found


def stage_pids(out: Path) -> list[int]:
    """Stages at work for runs of an output folder; not the host that they are forks of."""
    return [pid for pid in pids("stages.host", str(out)) if _name(pid).startswith("porf:")]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(victims: list[int]) -> bool:
    """kill -9; whether there was anybody to kill."""
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def left_over(out: Path) -> list[int]:
    """Processes of ours that name a folder; waits a moment for none."""
    for _ in range(20):
        found = [pid for m in ("stages.host", "case_process") for pid in pids(m, str(out))]
        if not found:
            return []
        time.sleep(0.5)
    return found
