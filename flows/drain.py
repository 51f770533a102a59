"""Wait until Prefect has written down how a run ended."""

import time
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId


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
