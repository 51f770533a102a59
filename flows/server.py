"""One local Prefect server a home: with UI, shared by concurrent runs, ended with the last of them.

Prefect's own ephemeral server has no UI, gives up after 20 s, drops task records at exit and is
orphaned by a kill. Here a watcher owns the server. Every run holds a shared flock on
`server.users`; the kernel drops it however the run ends, and the watcher, which waits for the
exclusive lock, then stops the server. A server that dies under its users is started again.
"""

import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.alive import LOCAL, bury_all, bury_dead
from flows.devices import porf_home
from pipeline.errors import InputError, PorfError
from pipeline.store.files import disk_error, write_json

_STARTUP_S = 600.0
"""A busy machine takes minutes; a server that died is noticed at once."""
_WATCH_S = 0.5
"""How often a server looks whether anybody still uses it."""
_RESTARTS = 3
"""Starts in a row that a server which once answered may fail."""
_BURY_S = 20.0
"""How often it looks for runs that were killed."""
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
}
_UNUSED = (
    "SCHEDULER",
    "LATE_RUNS",
    "FOREMAN",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "TRIGGERS",
    "CLEANUP_RECONCILER",
    "CANCELLATION_CLEANUP",
)
"""Services for deployments, workers and automations, which a local server has none of; each asks
the database every few seconds, and half of an idle server's processor time is theirs."""


def home() -> Path:
    """Where the run history lives: `PREFECT_HOME`, else `PORF_HOME` (default ~/.porf)/prefect."""
    if os.environ.get("PREFECT_HOME"):
        return Path(os.environ["PREFECT_HOME"]).expanduser().absolute()
    return porf_home() / "prefect"


def is_healthy(api_url: str, timeout_s: float = 5.0) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def prefect_server() -> Iterator[str]:
    """The API address of the user's own server, or of a local one that lives as long as needed.

    Sets `PREFECT_API_URL` and `PREFECT_HOME` for this process and its children meanwhile.

    Raises:
        InputError: the server named by `PREFECT_API_URL` does not answer, or the home cannot be
            written.
        PorfError: the local server did not start.
    """
    own = os.environ.get("PREFECT_API_URL")
    if own:
        if not is_healthy(own):
            raise InputError(
                f"no Prefect server answers at PREFECT_API_URL={own}",
                hint="start that server, or unset PREFECT_API_URL to use a local one",
            )
        yield own
        return
    with _local_server(home()) as url, _environment(PREFECT_API_URL=url, PREFECT_HOME=str(home())):
        yield url


@contextlib.contextmanager
def _local_server(folder: Path) -> Iterator[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        users = (folder / "server.users").open("a")
    except OSError as error:
        raise disk_error(error, folder) from error
    with users, (folder / "server.lock").open("a") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a watcher that is just closing down
        fcntl.flock(starting, fcntl.LOCK_EX)
        url = running_server(folder) or _await_starting(folder) or _start(folder)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield url


def running_server(folder: Path) -> str | None:
    """API address of the local server of this home, if it runs."""
    url = _announced_url(folder)
    if url is None:
        return None
    # a dead server refuses at once; a busy one takes its time, and a second one beside it would
    # lock it out of the database
    return url if is_healthy(url, timeout_s=_STARTUP_S / 10) else None


def server_name() -> str:
    """The server in use: its API address, or `LOCAL` for the one of this home."""
    url = os.environ.get("PREFECT_API_URL", "")
    return LOCAL if url == _announced_url(home()) else url


def _await_starting(folder: Path) -> str | None:
    """The server whose starter was killed before it answered; None if there is none."""
    url, watcher = _announced_url(folder), _announced_pid(folder)
    deadline = time.monotonic() + _STARTUP_S
    while url and watcher and _watches(watcher, folder) and time.monotonic() < deadline:
        if is_healthy(url):
            return url
        time.sleep(0.1)
    return None


def _watches(pid: int, folder: Path) -> bool:
    """Whether that process lives and is the watcher of this home."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"flows.server" in words and os.fsencode(folder) in words


def _announced_url(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _start(folder: Path) -> str:
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    with (folder / "server.log").open("ab") as log:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(folder), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _STARTUP_S
    importlib.import_module("prefect")  # takes seconds, which the server needs anyway
    while not is_healthy(url):
        if watcher.poll() is not None or time.monotonic() > deadline:
            raise PorfError(
                "the local Prefect server did not start", hint=f"see {folder / 'server.log'}"
            )
        time.sleep(0.1)
    return url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def watch(folder: Path, port: int) -> None:
    """Run the server until no run uses it any more; the process `_start` launches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    url = f"http://127.0.0.1:{port}/api"
    other = _announced_pid(folder)
    if other is not None and other != os.getpid() and _watches(other, folder):
        return  # two servers would lock each other out of the database
    write_json(folder / "server.json", {"url": url, "pid": os.getpid()})
    with (folder / "server.users").open("a") as users:
        starts_left = 1
        while starts_left:
            server = subprocess.Popen(
                _command(port),
                env=_server_environment(folder, port),
                stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  (one thread here)
            )
            worked = _wait_for_last_user(users.fileno(), server, folder, url)
            if server.poll() is None:
                break
            starts_left = _RESTARTS if worked else starts_left - 1
        with contextlib.suppress(OSError):
            bury_dead(folder, LOCAL, url)
            bury_all(folder, url)
        if _announced_pid(folder) == os.getpid():
            (folder / "server.json").unlink(missing_ok=True)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_last_user(
    users: int, server: "subprocess.Popen[bytes]", folder: Path, url: str
) -> bool:
    """Return, with the lock, when no run is left, or when the server has died.

    Returns whether it has answered. Where it has, it is worth another start: its history is on
    disk, and Prefect's client asks a server that is away for about a minute.
    """
    looked, worked = time.monotonic(), False
    while server.poll() is None:
        worked = worked or is_healthy(url, timeout_s=1.0)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return worked
        except BlockingIOError:
            time.sleep(_WATCH_S)
        if time.monotonic() - looked > _BURY_S:
            looked = time.monotonic()
            with contextlib.suppress(OSError):
                bury_dead(folder, LOCAL, url)
    return worked


def _announced_pid(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / "server.json").read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _command(port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "--factory"]
    command += ["prefect.server.api.server:create_app", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--log-level", "error", "--lifespan", "on"]
    return [*command, "--timeout-graceful-shutdown", "5"]


def _server_environment(folder: Path, port: int) -> dict[str, str]:
    environment = {
        **os.environ,
        **_QUIET,
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED},
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT__SERVER_FINAL": "1",
    }
    environment.pop("PREFECT_API_URL", None)
    return environment


def _end_with_parent() -> None:
    """Runs in the server's process before it becomes the server: no orphan after a kill (Linux)."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), int(sys.argv[2]))
