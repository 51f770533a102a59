"""One run of the flow from an ordinary process, under a local or the user's own Prefect server."""

import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx

from flows.alive import bury_dead, rest
from flows.case_folder import CaseFolder
from flows.finished import finished_results
from flows.hush import hush_services
from flows.listeners import current_reporter
from flows.prefect_api import BUSY
from flows.preflight.learn import learn_from
from flows.request import RunRequest
from flows.server import home, prefect_server, server_name
from pipeline.errors import PorfError
from pipeline.store.files import disk_error, is_disk_error

_PAUSES_S = (5.0, 15.0, 45.0)


class ServerBusyError(PorfError):
    """The Prefect server answers that it cannot answer now; worth another attempt."""


def run_flow(request: RunRequest) -> PorfError | None:
    """Run the flow and return what it failed with, if it did.

    Where many runs share a server, it may refuse one longer than Prefect's client asks again.
    Finished stages are in the store, so that the flow is simply run again.
    """
    for pause_s in _PAUSES_S:
        failure = _run_once(request)
        if not isinstance(failure, ServerBusyError):
            return failure
        current_reporter().say("server", "the Prefect server is busy; trying again", warning=True)
        time.sleep(pause_s)
    return _run_once(request)


def _run_once(request: RunRequest) -> PorfError | None:
    quiet_prefect()
    hush_services(current_reporter())
    began = datetime.now(UTC).replace(microsecond=0)
    with prefect_server() as api_url:
        from prefect.settings import (  # noqa: PLC0415
            PREFECT_API_URL,
            PREFECT_LOCAL_STORAGE_PATH,
            temporary_settings,
        )

        from flows.drain import drain, flush  # noqa: PLC0415
        from flows.reconstruct import reconstruct  # noqa: PLC0415

        with suppress(OSError):
            bury_dead(home(), server_name(), api_url)
        results = CaseFolder(request.out).prefect_results
        with temporary_settings({PREFECT_API_URL: api_url, PREFECT_LOCAL_STORAGE_PATH: results}):
            ended = False
            try:
                state = reconstruct(request, return_state=True)
                ended = True
                drain(state.state_details.flow_run_id)
                flush()
            except (httpx.HTTPError, OSError) as error:
                return _without_server(request, error)
            except RuntimeError as error:  # Prefect's, where it does not even reach the server
                if not isinstance(error.__cause__, httpx.HTTPError | OSError):
                    raise
                return _without_server(request, error.__cause__)
            finally:
                rest(known=ended)
        learn_from(request, began)
        if state.is_completed():
            return None
        return as_ours(state.result(raise_on_failure=False), request.out)


def _without_server(request: RunRequest, error: Exception) -> PorfError | None:
    """How a run ended whose server died; what it made is in the store all the same."""
    return None if finished_results(request) is not None else as_ours(error, request.out)


def as_ours(error: object, out: Path) -> PorfError:
    """Whatever ended a run, in words for a user."""
    if isinstance(error, PorfError):
        return error
    if isinstance(error, OSError) and is_disk_error(error):
        return disk_error(error, out)
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in BUSY:
        return ServerBusyError(
            f"the Prefect server is too busy (status {error.response.status_code})",
            hint="the same command goes on; for many runs at a time give the server a Postgres",
        )
    if isinstance(error, httpx.HTTPError | OSError):
        return PorfError(
            f"the Prefect server went away ({type(error).__name__})",
            hint="finished stages are kept; the same command goes on from there",
        )
    return PorfError(f"{type(error).__name__}: {error}")


def quiet_prefect() -> None:
    """Prefect's own lines go to its server, not to the user's terminal."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    logging.getLogger("prefect").setLevel(logging.INFO)
