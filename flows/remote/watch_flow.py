"""A look at a folder for new cases, as a flow that a schedule can run."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.batch.entries import BatchRun
from flows.batch.record import fingerprint
from flows.remote.arrivals import QUIET_S, arrived
from flows.remote.case import Case
from flows.remote.places import POOLS
from flows.remote.submit import queue
from flows.settings import DEFAULT_PRESET
from pipeline.text import visible


@flow(name="watch-folder", flow_run_name="look into {folder}")
def submit_new_cases(
    folder: Path,
    out: Path,
    preset: str = DEFAULT_PRESET,
    options: dict[str, Any] | None = None,
    pool: str = next(iter(POOLS)),
    quiet_s: float = QUIET_S,
) -> dict[str, str]:
    """Submit every case of a folder that is new or has changed; returns run ids by name."""
    log = get_run_logger()
    submitted = {}
    with get_client(sync_client=True) as client:
        for run in arrived(folder, out, preset, options or {}, quiet_s):
            submitted[run.name] = submit_arrived(client, run, options or {}, pool)
            log.info("%s: run %s", visible(run.name), submitted[run.name])
    return submitted


def submit_arrived(
    client: SyncPrefectClient, run: BatchRun, options: dict[str, Any], pool: str
) -> str:
    """Queue a case of a watched folder, once for each state of its files and options."""
    assert run.request
    external = {str(role): path for role, path in run.request.external.items()}
    case = Case(
        photos=run.request.photos,
        out=run.request.out,
        preset=run.preset,
        options=options,
        **external,
    )
    return str(queue(client, case, pool, f"{run.name}-{fingerprint(run)}"))
