"""Which runs of this machine live, so that the dead do not stay RUNNING on Prefect's pages.

A run holds a flock on a file that names it; the kernel drops it however the run ends. Files that
nobody holds belong to runs that were killed: their state is set to CRASHED.
"""

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from flows.prefect_api import ask

LOCAL = "local"
"""Stands for the server of this home, whose port changes from start to start."""

_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


_held: list[tuple[Path, TextIO]] = []
"""Files of this process's runs, locked for as long as they are open."""


def show_alive(folder: Path, run_id: str | None, where: str) -> None:
    """Be seen to live as this run of Prefect until `rest`, or the end of this process.

    That is longer than the flow's own code runs: Prefect tells the server how it ended only then.

    Args:
        folder: home of Prefect's history.
        where: API address of the run's server, or `LOCAL`.
    """
    if run_id is None:
        return
    path = folder / "alive" / f"{run_id}.json"
    with suppress(OSError):  # a disk that refuses costs a tidy page, not the run
        _held.append((path, _held_file(path, {"id": run_id, "server": where})))


def rest(known: bool) -> None:
    """This process runs nothing any more.

    Args:
        known: the server knows how the runs ended; else it is told what `bury_dead` says of them.
    """
    while _held:
        path, file = _held.pop()
        if known:
            path.unlink(missing_ok=True)
        file.close()


def _held_file(path: Path, content: dict[str, str]) -> TextIO:
    """A file that is locked from the moment it is seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    file = temporary.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        json.dump(content, file)
        file.flush()
        temporary.replace(path)
    except BaseException:
        file.close()
        raise
    return file


def bury_dead(folder: Path, where: str, api_url: str) -> list[str]:
    """Mark every killed run of a server as crashed; returns their ids."""
    buried = []
    for path in sorted((folder / "alive").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_bytes())
            if known["server"] == where and _is_dead(path) and _mark(api_url, str(known["id"])):
                path.unlink(missing_ok=True)
                buried.append(str(known["id"]))
    return buried


def bury_all(folder: Path, api_url: str) -> None:
    """Mark our runs that have not ended as crashed, on a server that no living run uses.

    A run that a busy server took up but did not let begin has no file of its own; one that has a
    file is left to `bury_dead`.
    """
    unended = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
    body = {"flow_runs": unended, "flows": {"name": {"any_": ["reconstruct"]}}}
    for run in ask(f"{api_url}/flow_runs/filter", body) or []:
        if not (folder / "alive" / f"{run['id']}.json").exists():
            _mark(api_url, str(run["id"]))


def _is_dead(path: Path) -> bool:
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _mark(api_url: str, run_id: str) -> bool:
    """Set the run's state; True where there is nothing left to do."""
    run = ask(f"{api_url}/flow_runs/{run_id}")
    if run is None:
        return True  # the server does not know it
    if run.get("state_type") not in _FINAL:
        state = {"type": "CRASHED", "name": "Crashed", "message": "the run's process was killed"}
        ask(f"{api_url}/flow_runs/{run_id}/set_state", {"state": state, "force": True})
        _end_tasks(api_url, run_id, state)
    return True


def _end_tasks(api_url: str, run_id: str, state: dict[str, str]) -> None:
    tasks = ask(f"{api_url}/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    for task in tasks or []:
        if task.get("state_type") not in _FINAL:
            body = {"state": state, "force": True}
            ask(f"{api_url}/task_runs/{task['id']}/set_state", body)
