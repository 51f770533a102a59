"""Let estimates learn from a run that has ended."""

from datetime import datetime

from flows.case_folder import CaseFolder
from flows.preflight.check import thread_count
from flows.preflight.cost import stage_cost
from flows.preflight.measured import remember
from flows.preflight.workload import read_workload
from flows.request import RunRequest
from flows.settings import settings_from


def learn_from(request: RunRequest, since: datetime) -> None:
    """Note what every stage took that a run computed since then."""
    folder = CaseFolder(request.out)
    manifests = folder.current_manifests().values()
    computed = [m for m in manifests if datetime.fromisoformat(m.started_at or _NEVER) >= since]
    load = read_workload(request.paths) if computed else None
    if load is None:
        return
    settings, threads = settings_from(request.settings), thread_count()
    for manifest in computed:
        remember(manifest, stage_cost(manifest.stage, load, settings, threads), threads)


_NEVER = "1970-01-01T00:00:00+00:00"
