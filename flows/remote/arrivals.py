"""Cases that have arrived in a watched folder."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.batch.entries import BatchRun, Choices, read_batch
from flows.finished import finished_results

QUIET_S = 30.0
"""A case whose files change within this time is still being copied."""

_Stamp = tuple[str, int, int, int]


def arrived(
    folder: Path,
    out: Path,
    preset: str,
    options: Mapping[str, Any],
    quiet_s: float = QUIET_S,
    sleep: Callable[[float], None] = time.sleep,
) -> list[BatchRun]:
    """Cases that lie there whole and are not finished; those that are refused are left out.

    Whole is what stays as it is while this waits for `quiet_s`. The files' own times would not
    tell: copying tools preserve them, and the clock that they are compared with may jump.

    Raises:
        InputError: an unknown preset or option.
    """
    overrides = tuple(f"{name}={json.dumps(value)}" for name, value in options.items())
    if not (folder.is_dir() and any(p.is_dir() for p in folder.iterdir())):
        return []  # nothing has come yet
    choices = Choices(presets=(preset,), overrides=overrides)
    before = {run.name: _state(run) for run in _open(read_batch(folder, out, choices))}
    if before and quiet_s > 0:
        sleep(quiet_s)
    after = read_batch(folder, out, choices)
    return [run for run in _open(after) if (now := _state(run)) and before.get(run.name) == now]


def _open(runs: Iterable[BatchRun]) -> Iterator[BatchRun]:
    """Those that can be run and are not finished."""
    return (run for run in runs if run.request and finished_results(run.request) is None)


def _state(run: BatchRun) -> list[_Stamp]:
    """Name, size and times of every file that the run would read."""
    assert run.request
    found = []
    for path in run.request.paths.values():
        files = path.rglob("*") if path.is_dir() else [path]
        found += [stamp for file in files if file.is_file() and (stamp := _stamp(file))]
    return sorted(found)


def _stamp(file: Path) -> _Stamp | None:
    try:
        stat = file.stat()
    except OSError:
        return None  # gone meanwhile
    return str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
