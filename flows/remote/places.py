"""Where runs go and where the server is; knows nothing of Prefect, so that it loads at once."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from flows.devices import porf_home
from flows.server import home, is_healthy, running_server
from pipeline.errors import InputError
from pipeline.store.files import write_json

POOLS = {"porf-gpu": "gpu", "porf-cpu": "cpu"}
"""Work pools, and the deployment of each."""
URGENT = "urgent"
"""Queue of every pool whose runs come before all others that wait."""
DEFAULT_PORT = 4200


def service_home() -> Path:
    """Where `porf server` keeps its database and its address."""
    return porf_home() / "service"


@contextlib.contextmanager
def announced(api_url: str) -> Iterator[None]:
    """Let other commands of this user find the server while it runs."""
    path = service_home() / "server.json"
    write_json(path, {"url": api_url, "pid": os.getpid()})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def use_server(only_look: bool = False) -> str:
    """Find the server, and let Prefect's client talk to it: `PREFECT_API_URL`, else this user's.

    Args:
        only_look: the local server that lives while `porf run` does will do, too.

    Raises:
        InputError: none answers.
    """
    own = os.environ.get("PREFECT_API_URL")
    url = own or _announced_url() or (running_server(home()) if only_look else None)
    if url is None or not is_healthy(url):
        where = f" at PREFECT_API_URL={own}" if own else ""
        raise InputError(
            f"no Prefect server answers{where}",
            hint="start one with `porf server`, or name yours by PREFECT_API_URL",
        )
    os.environ["PREFECT_API_URL"] = url
    return url


def _announced_url() -> str | None:
    try:
        return str(json.loads((service_home() / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
