"""Looking at runs on a server, and operating them."""

import itertools
import time
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log, StateType
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.remote.case import Case
from pipeline.errors import InputError, PorfError
from pipeline.suggest import nearest
from pipeline.text import visible
from stages.registry import find_stage

_PAGE = 200
_SEARCHED = 2000
"""Latest runs among which a short id or a name is looked up."""


def latest(client: SyncPrefectClient, count: int, state: str | None = None) -> list[FlowRun]:
    """The latest runs, newest first; what a schedule has planned for later is left out.

    Args:
        state: only those; Prefect's states in any case, where late runs count as scheduled.

    Raises:
        InputError: an unknown state.
    """
    wanted = None
    if state:
        known = [kind.value.lower() for kind in StateType]
        if state.lower() not in known:
            raise InputError(
                f"unknown state '{visible(state)}'{nearest(state.lower(), known)}",
                hint=f"states: {', '.join(known)}",
            )
        kind = FlowRunFilterStateType(any_=[StateType(state.upper())])
        wanted = FlowRunFilter(state=FlowRunFilterState(type=kind))
    found: list[FlowRun] = []
    for start in itertools.count(0, _PAGE):
        page = client.read_flow_runs(
            flow_run_filter=wanted,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=start,
        )
        found += [run for run in page if not (run.auto_scheduled and run.state_name == "Scheduled")]
        if len(page) < _PAGE or len(found) >= count:
            break
    return found[:count]


def telling_digits(ids: list[str], least: int = 8) -> int:
    """As many first digits as tell these ids apart; those of scheduled runs begin with the time."""
    return next(n for n in range(least, 37) if len({i[:n] for i in ids}) == len(ids))


def find(client: SyncPrefectClient, text: str) -> FlowRun:
    """A run by id, by the beginning of its id, or by its name if that is unique.

    Raises:
        InputError: none or several.
    """
    try:
        return client.read_flow_run(UUID(text))
    except ObjectNotFound as error:
        raise InputError(f"this server has no run {text}", hint="`porf runs` lists them") from error
    except ValueError:
        pass  # a short id, or a name
    recent = latest(client, _SEARCHED)
    begins = [run for run in recent if len(text) >= 4 and str(run.id).startswith(text.lower())]
    matching = begins or [run for run in recent if run.name == text]
    if len(matching) == 1:
        return matching[0]
    what = "no run" if not matching else f"{len(matching)} runs"
    raise InputError(f"'{text}' names {what}", hint="`porf runs` lists them with their ids")


def case_of(run: FlowRun) -> Case:
    """The case that a run was given.

    Raises:
        InputError: the run is not one of a worker's.
    """
    if run.deployment_id is None or "case" not in run.parameters:
        raise InputError(
            f"{run.name} was not submitted to a worker: it runs in somebody's terminal",
            hint="press Ctrl-C there, or run the same `porf run` again",
        )
    return Case.model_validate(run.parameters["case"])


def cancel(client: SyncPrefectClient, run: FlowRun) -> str:
    """Ask a run to end; its training saves a checkpoint. Returns the state it is in then.

    Raises:
        InputError: it has ended already, or does not run on a worker.
    """
    case_of(run)
    if run.state and run.state.is_final():
        raise InputError(f"{run.name} has ended already: {run.state.name}")
    client.set_flow_run_state(run.id, Cancelling())
    state = client.read_flow_run(run.id).state
    return (state.name if state else None) or "unknown"


def retry(client: SyncPrefectClient, run: FlowRun, start: str | None) -> UUID:
    """Queue a run's case again; finished stages are cached. Returns the new run's id.

    Raises:
        InputError: it still runs, or does not run on a worker; an unknown stage.
    """
    case = case_of(run)
    if run.state and not run.state.is_final():
        raise InputError(f"{run.name} has not ended: {run.state.name}", hint="`porf cancel` first")
    if start:
        case = case.model_copy(update={"start": find_stage(start).name})
    case.request()
    assert run.deployment_id
    again = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters={"case": case.model_dump(mode="json")},
        name=run.name,
        work_queue_name=run.work_queue_name,
        tags=[*run.tags, f"retry of {run.id}"],
    )
    return again.id


def logs(client: SyncPrefectClient, run_id: UUID, skip: int = 0) -> Iterator[Log]:
    """The lines of a run's log, oldest first, after the first `skip`."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    while True:
        page = client.read_logs(wanted, limit=_PAGE, offset=skip, sort=LogSort.TIMESTAMP_ASC)
        yield from page
        skip += len(page)
        if len(page) < _PAGE:
            return


def wait(client: SyncPrefectClient, run_ids: list[UUID], poll_s: float = 3.0) -> list[FlowRun]:
    """Wait until all have ended; a server that is away for a while is waited for, too."""
    left, ended = list(run_ids), {}
    while left:
        for run_id in list(left):
            run = read_patiently(client, run_id)
            if run.state and run.state.is_final():
                ended[run_id] = run
                left.remove(run_id)
        if left:
            time.sleep(poll_s)
    return [ended[run_id] for run_id in run_ids]


def read_patiently(client: SyncPrefectClient, run_id: UUID, patience_s: float = 300.0) -> FlowRun:
    """A run, from a server that may restart meanwhile.

    Raises:
        PorfError: the server stayed away.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return client.read_flow_run(run_id)
        except ObjectNotFound:
            raise
        except Exception as error:
            if time.monotonic() > deadline:
                raise PorfError(
                    f"the server has not answered for {patience_s:.0f} s",
                    hint="the run itself goes on; `porf runs` shows it once the server is back",
                ) from error
            time.sleep(2.0)


def started(run: FlowRun) -> datetime | None:
    """When it began, or is due."""
    return run.start_time or run.expected_start_time
