"""A server as `porf server` runs it, a Postgres for it, and what it says of its runs."""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.harness import ONE_THREAD, Porf

RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def run_id(text: str) -> str:
    found = RUN_ID.search(text)
    assert found, text
    return found[0]


def waiting_run_id(process: "subprocess.Popen[str]") -> str:
    """The next id that a command prints which goes on."""
    assert process.stdout
    return run_id(next(line for line in process.stdout if RUN_ID.search(line)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A Postgres of its own; `url` is its address as SQLAlchemy writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "nobody")
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = str(folder / "data")
        make = [*self._as_user, "initdb", "-D", data, "-U", "prefect", "-A", "trust"]
        subprocess.run(make, check=True, cwd="/", capture_output=True)
        self.url = f"postgresql+asyncpg://prefect:unused@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        data, port = str(self._folder / "data"), str(self._port)
        run = [*self._as_user, "postgres", "-D", data, "-p", port, "-k", str(self._folder)]
        self._server = subprocess.Popen(run, cwd="/", stderr=subprocess.DEVNULL)

    @property
    def alive(self) -> bool:
        return self._server.poll() is None

    def kill(self) -> None:
        """kill -9 of all its processes."""
        mother = psutil.Process(self._server.pid)
        for process in [mother, *mother.children(recursive=True)]:
            process.kill()
        self._server.wait()

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(60)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running one."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("no Postgres here")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    database = Postgres(folder)
    database.start()
    try:
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)


def service_at(porf: Porf, folder: Path, more: dict[str, str], port: int) -> Porf:
    """Commands for a server at that port with a password, and with a home of their own."""
    env = {
        **porf.env,
        **more,
        "PORF_HOME": str(folder / "home"),
        "PREFECT_SERVER_API_AUTH_STRING": "porf:secret",
        "PREFECT_API_AUTH_STRING": "porf:secret",
    }
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        env.pop(name, None)
    return Porf(env, f"http://127.0.0.1:{port}/api")


@contextmanager
def running_service(
    porf: Porf, tmp_path: Path, more: dict[str, str], port: int | None = None
) -> Iterator[Porf]:
    """A running `porf server`."""
    port = port or free_port()
    own = service_at(porf, tmp_path, more, port)
    log = tmp_path / "server.log"
    process = own.start("server", "--port", str(port), log=log)
    try:
        _wait_healthy(own.api_url, process, log)
        yield own
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def working(service: Porf, home: Path, *words: str) -> Iterator[None]:
    """A worker for one run at a time, with a home of its own."""
    own = {"PORF_HOME": str(home), "PREFECT_API_URL": service.api_url}
    home.mkdir()
    process = service.start("worker", "--limit", "1", *words, log=home / "log", **ONE_THREAD, **own)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _wait_healthy(url: str, process: "subprocess.Popen[str]", log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    raise AssertionError("the server did not start")


def states_by_id(service: Porf) -> dict[str, str]:
    """Every run's state."""
    headers = {"Authorization": "Basic " + base64.b64encode(b"porf:secret").decode()}
    url = f"{service.api_url}/flow_runs/filter"
    runs = httpx.post(url, json={}, headers=headers, timeout=60).json()
    return {run["id"]: run["state_type"] for run in runs}
