"""Talking to the server, with its refusals in a user's words."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from pipeline.errors import InputError, PorfError

_UNAUTHORIZED = 401


@contextmanager
def talk() -> Iterator[SyncPrefectClient]:
    """A client of the server that `use_server` found.

    Raises:
        InputError: the server wants an auth string.
        PorfError: it went away, or refused.
    """
    with in_plain_words(), get_client(sync_client=True) as client:
        yield client


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Errors of Prefect's client as ours."""
    try:
        yield
    except PrefectHTTPStatusError as error:
        if error.response.status_code == _UNAUTHORIZED:
            raise InputError(
                "the server wants an auth string", hint="set PREFECT_API_AUTH_STRING=user:password"
            ) from error
        said = error.response.text[:300]
        raise PorfError(f"the server refused ({error.response.status_code}): {said}") from error
    except (httpx.TransportError, httpx.TimeoutException) as error:
        raise PorfError(
            f"the server went away: {error}", hint="`porf runs` shows what it knows once it is back"
        ) from error
