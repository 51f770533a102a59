"""Handing cases to workers."""

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound

from flows.remote.case import Case
from flows.remote.places import POOLS
from pipeline.errors import InputError
from pipeline.text import visible

FLOW = "reconstruct-case"


def queue(
    client: SyncPrefectClient, case: Case, pool: str, idempotency_key: str | None = None
) -> UUID:
    """Queue a case; returns the id of its run.

    Args:
        idempotency_key: a second submission under the same key is the first one.

    Raises:
        InputError: bad options, or `porf deploy` was not run on this server.
    """
    case.request()
    try:
        deployment = client.read_deployment_by_name(f"{FLOW}/{POOLS[pool]}")
    except ObjectNotFound as error:
        raise InputError(
            f"this server has no deployment {FLOW}/{POOLS[pool]}", hint="run `porf deploy` first"
        ) from error
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"case": case.model_dump(mode="json")},
        name=visible(case.name),
        idempotency_key=idempotency_key,
        tags=["porf"],
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
