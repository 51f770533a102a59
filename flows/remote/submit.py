"""Handing cases to workers."""

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound

from flows.remote.case import Case
from flows.remote.places import POOLS, URGENT
from pipeline.errors import InputError
from pipeline.text import visible

FLOW = "reconstruct-case"


def queue(
    client: SyncPrefectClient,
    case: Case,
    pool: str,
    idempotency_key: str | None = None,
    urgent: bool = False,
) -> UUID:
    """Queue a case; returns the id of its run.

    Args:
        idempotency_key: a second submission under the same key is the first one.
        urgent: before all others that wait.

    Raises:
        InputError: bad options, or `porf deploy` was not run on this server.
    """
    case.request()
    try:
        deployment = client.read_deployment_by_name(f"{FLOW}/{POOLS[pool]}")
        if urgent:
            client.read_work_queue_by_name(URGENT, work_pool_name=pool)
    except ObjectNotFound as error:
        what = f"deployment {FLOW}/{POOLS[pool]}" + (f" or queue '{URGENT}'" if urgent else "")
        raise InputError(f"this server has no {what}", hint="run `porf deploy` first") from error
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"case": case.model_dump(mode="json")},
        name=visible(case.name),
        idempotency_key=idempotency_key,
        tags=["porf"],
        work_queue_name=URGENT if urgent else None,
    )
    return run.id


def choose_pool(client: SyncPrefectClient, wanted: str | None) -> str:
    """The pool that was asked for, else the first with a worker online, GPUs before CPUs.

    Raises:
        InputError: an unknown pool.
    """
    if wanted is not None:
        name = wanted if wanted in POOLS else f"porf-{wanted}"
        if name not in POOLS:
            raise InputError(f"unknown pool '{wanted}'", hint="pools: gpu, cpu")
        return name
    return next((pool for pool in POOLS if _has_worker(client, pool)), next(reversed(POOLS)))


def _has_worker(client: SyncPrefectClient, pool: str) -> bool:
    try:
        workers = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        return False
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)
