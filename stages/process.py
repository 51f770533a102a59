"""What a stage's process does, from its request to its exit code; `stages.host` starts it.

A segfault or an out-of-memory kill in native code ends this process and not the run. Events go to
standard output as lines of JSON after `EVENT_MARK`; everything else printed is the stage's log.
Exit codes: 0 done, `EXIT_REFUSED` for errors that a retry cannot mend, anything else is a crash.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from pipeline.errors import InputError, PorfError
from pipeline.store.files import disk_error, is_disk_error, write_json
from stages.base import StageContext
from stages.registry import find_stage

EVENT_MARK = "@porf "
EXIT_REFUSED = 65
"""EX_DATAERR: the input or the surroundings are at fault; never retried."""

_LIBRARIES = ("torch", "pycolmap", "numpy", "opencv-python", "trimesh", "embreex", "porf-pipeline")


class StageRequest(BaseModel):
    """What a stage's process is asked to do; all paths absolute."""

    stage: str
    options: dict[str, Any]
    seed: int
    inputs: dict[str, Path]
    external: dict[str, Path]
    manifests: dict[str, dict[str, Any]] = Field(default_factory=dict)
    out: Path
    work: Path
    outcome: Path


class EventProgress:
    """Sends progress to the parent, at most a few times a second."""

    def __init__(self, interval_s: float = 0.4) -> None:
        self._interval_s = interval_s
        self._last: dict[str, float] = {}

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        """See `pipeline.progress.Progress.advance`."""
        now = time.monotonic()
        if done < total and now - self._last.get(phase, -1e9) < self._interval_s:
            return
        self._last[phase] = now
        emit(kind="advance", phase=phase, done=done, total=total, figures=figures)

    def note(self, text: str) -> None:
        """See `pipeline.progress.Progress.note`."""
        emit(kind="note", text=text)

    def warn(self, text: str) -> None:
        """See `pipeline.progress.Progress.warn`."""
        emit(kind="warn", text=text)


def perform(request: StageRequest, foreign_mb: float = 0.0) -> dict[str, Any]:
    """Run the stage and describe the outcome for the manifest.

    Args:
        foreign_mb: memory that this process had from its start beyond what its host held when it
            first ran this stage: modules that other stages have loaded since.
    """
    stage = find_stage(request.stage)
    started, clock = datetime.now(UTC), time.monotonic()
    context = StageContext(
        inputs=request.inputs,
        external=request.external,
        config=stage.config_type.model_validate(request.options),
        out=request.out,
        work=request.work,
        seed=request.seed,
        progress=EventProgress(),
        manifests=request.manifests,
    )
    verdict = stage.run(context)
    return {
        "verdict": verdict.model_dump(mode="json"),
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_s": round(time.monotonic() - clock, 2),
        "peak_memory_mb": round(memory_mb("VmHWM") - foreign_mb, 1),
        "libraries": _library_versions(),
    }


def memory_mb(what: Literal["VmRSS", "VmHWM", "RssAnon"]) -> float:
    """Resident size of this process: now, at its largest, or now without what is read from files.

    `getrusage` would count what the parent had before this process was started from it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split(f"{what}:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_request(path: Path, foreign_mb: float = 0.0) -> int:
    """Do what a file asks for; returns the exit code. For `foreign_mb` see `perform`."""
    request = StageRequest.model_validate_json(path.read_bytes())
    try:
        write_json(request.outcome, perform(request, foreign_mb))
    except PorfError as error:
        return _refuse(request, error)
    except OSError as error:
        if not is_disk_error(error):
            raise
        return _refuse(request, disk_error(error, request.out))
    except MemoryError:
        traceback.print_exc()
        return 1
    return 0


def _refuse(request: StageRequest, error: PorfError) -> int:
    kind = "input" if isinstance(error, InputError) else "failed"
    print(f"refused: {error.message}", flush=True)
    emit(kind="refused", error=kind, message=error.message, hint=error.hint)
    return EXIT_REFUSED


def emit(**event: Any) -> None:
    """Tell the parent, in one write: native libraries print into the same pipe."""
    sys.stdout.write(f"{EVENT_MARK}{json.dumps(event)}\n")
    sys.stdout.flush()


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line tells, as `emit` wrote it; None where it is anything else."""
    if not line.startswith(EVENT_MARK):
        return None
    try:
        event = json.loads(line[len(EVENT_MARK) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def end_with_parent(parent: int) -> None:
    """End with the parent however it ends, so that no orphan trains on (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent was gone before we asked


def _library_versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
