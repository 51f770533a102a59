"""What a run left behind: results, records in the store, states at the server, processes, locks."""

import sqlite3
from pathlib import Path

from flows.case_folder import CaseFolder
from stages.registry import STAGES
from tests.flows.processes import left_over


def contents(out: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of every file that every stage made; not of the report, which tells the time."""
    return {
        name: {path: file.sha256 for path, file in m.files.items() if path != "report.html"}
        for name, m in CaseFolder(out).current_manifests().items()
    }


def made(out: Path) -> dict[str, str]:
    """When each stage's results in the store were made."""
    store = CaseFolder(out).store
    return {
        f"{n} {m.key}": f"{m.started_at}/{m.wall_s}" for n in STAGES for m in store.manifests(n)
    }


def so_far(out: Path) -> str:
    return ", ".join(name.split()[0] for name in made(out)) or "nothing"


def states(home: Path) -> set[str]:
    """States of all runs in the database of that home's server."""
    with sqlite3.connect(f"file:{home}/prefect/prefect.db?mode=ro", uri=True, timeout=60) as file:
        return {row[0] for row in file.execute("select distinct state_type from flow_run")}


def clean(out: Path) -> None:
    """No process of ours, no lock and no scaffolding is left."""
    assert left_over(out) == []
    store = CaseFolder(out).store
    keys = CaseFolder(out).load_record().keys
    assert not any(store.is_locked(name, key) for name, key in keys.items())
    assert list((store.root / "store").glob("*/.*")) == []
