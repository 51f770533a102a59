"""Everything that a Prefect server needs to know of us; applying it again changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule

from flows.remote.flow import reconstruct_case
from flows.remote.places import POOLS, URGENT
from flows.remote.submit import choose_pool
from flows.remote.watch_flow import submit_new_cases
from flows.settings import DEFAULT_PRESET
from pipeline.errors import InputError
from pipeline.text import visible


@dataclass(frozen=True)
class DeadRule:
    """What shows that a run's worker is dead, so that nobody will end the run.

    Attributes:
        after: the event after which silence is suspicious; any other event of the run ends it.
        within_s: seconds of silence.
        message: of the state that the run then gets.
    """

    name: str
    description: str
    after: str
    within_s: float
    message: str


RULES = (
    DeadRule(
        "porf: mark dead runs as crashed",
        "A run whose worker died is marked as crashed, and can be run again.",
        after="prefect.flow-run.heartbeat",
        within_s=90,  # workers make a run tell every 30 s that it is alive
        message="no heartbeat for 90 s",
    ),
    DeadRule(
        "porf: mark runs that never began as crashed",
        "A run whose worker died before the run began is marked as crashed, and can be run again.",
        after="prefect.flow-run.Pending",
        within_s=600,  # to begin takes seconds, on a machine that is overloaded minutes
        message="taken by a worker, and not begun within 10 min",
    ),
)


@dataclass(frozen=True)
class WatchOrder:
    """A schedule on which a folder is looked at for new cases.

    Attributes:
        folder, out: as the worker sees them.
        every_s: seconds between looks; or
        cron: five fields.
        pool: of the looks and the runs; None = of the workers that are online, GPUs first.
        preset, options: of the runs.
    """

    folder: str
    out: str
    every_s: float | None = None
    cron: str | None = None
    pool: str | None = None
    preset: str = DEFAULT_PRESET
    options: Mapping[str, Any] = field(default_factory=dict)


def deploy(limits: Mapping[str, int | None], watches: Sequence[WatchOrder] = ()) -> list[str]:
    """Create or update work pools, queues, deployments and automations; returns what stands then.

    Args:
        limits: runs at a time by pool; None = as it is, at first as many as its workers take.

    Raises:
        InputError: a schedule that cannot be kept, or an unknown pool.
    """
    schedules = [_schedule(order) for order in watches]
    with get_client(sync_client=True) as client:
        for pool, limit in limits.items():
            _apply_pool(client, pool, limit)
            _apply_urgent(client, pool)
        told = [f"work pool {pool}, with a queue '{URGENT}'" for pool in limits]
        pools = [choose_pool(client, order.pool) for order in watches]
    for pool in limits:
        _apply(reconstruct_case, POOLS[pool], pool)
        told.append(f"deployment {reconstruct_case.name}/{POOLS[pool]}")
    told += [_apply_watch(*look) for look in zip(watches, pools, schedules, strict=True)]
    for rule in RULES:
        _apply_rule(rule)
        told.append(f"automation '{rule.name}'")
    return told


def _apply_pool(client: SyncPrefectClient, name: str, limit: int | None) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        wanted = WorkPoolCreate(name=name, type="process", concurrency_limit=limit)
        client.create_work_pool(wanted)
        return
    if limit is not None:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def _apply_urgent(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_queue_by_name(URGENT, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(URGENT, work_pool_name=pool, priority=1)


def _apply(flow: Any, name: str, pool: str, **more: Any) -> None:
    deployment = RunnerDeployment.from_flow(
        flow,
        name=name,
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        tags=["porf"],
        **more,
    )
    deployment.apply()


def _schedule(order: WatchOrder) -> Schedule:
    if (order.every_s is None) == (order.cron is None):
        raise InputError("a watched folder needs either an interval or a cron schedule")
    if order.cron is None:
        if not order.every_s:
            raise InputError("a folder cannot be looked at every 0 s", hint="for example: 10m")
        return Interval(timedelta(seconds=order.every_s))
    try:
        return Cron(order.cron)
    except ValueError as error:
        raise InputError(
            f"'{visible(order.cron)}' is no cron schedule",
            hint="five fields, as '0 20 * * *': every day at 20:00 UTC",
        ) from error


def _apply_watch(order: WatchOrder, pool: str, schedule: Schedule) -> str:
    name = "watch-" + "".join(c if c.isalnum() else "-" for c in order.folder.strip("/"))
    parameters = {
        "folder": order.folder,
        "out": order.out,
        "preset": order.preset,
        "options": dict(order.options),
        "pool": pool,
    }
    # one look at a time: a look that outlasts its interval is not started twice
    _apply(
        submit_new_cases,
        name,
        pool,
        schedule=schedule,
        parameters=parameters,
        concurrency_limit=1,
    )
    return f"deployment {submit_new_cases.name}/{name} on {pool}"


def _apply_rule(rule: DeadRule) -> None:
    """Prefect leaves runs as they are whose worker was killed; silence ends them."""
    wanted = AutomationCore(
        name=rule.name,
        description=rule.description,
        trigger=EventTrigger(
            after={rule.after},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=rule.within_s),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=rule.message)],
    )
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(rule.name)
        for extra in known[1:]:
            client.delete_automation(extra.id)
        if known:
            client.update_automation(known[0].id, wanted)
        else:
            client.create_automation(wanted)
