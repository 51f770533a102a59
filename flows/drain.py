"""Wait until Prefect has written down how a run ended."""

import time
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker


def drain(flow_run_id: UUID | None, timeout_s: float = 20.0) -> bool:
    """Wait until every task run of a flow run is recorded as final.

    Task runs reach the server as events, a moment after the flow's end; a server that is stopped
    before that shows them as running for ever. Returns whether all were recorded in time.
    """
    if flow_run_id is None:
        return False
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + timeout_s
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=wanted)
            if runs and all(run.state and run.state.is_final() for run in runs):
                return True
            time.sleep(0.2)
    return False


def flush(timeout_s: float = 5.0) -> None:
    """Send what Prefect's background services still hold, while there is a server to take it.

    Left to the interpreter's exit, they retry for minutes against a server that has ended.
    """
    for service in (EventsWorker, APILogWorker):
        service.drain_all(timeout=timeout_s)
