"""`porf server`, `porf worker`, `porf deploy`: a place where runs are queued and worked off."""

import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.batch.child import thread_environment
from flows.cli import console
from flows.cli.arguments import DEFAULT, ConfigOption, PresetOption, SetOption, absolute
from flows.cli.gc import parse_age
from flows.remote.places import DEFAULT_PORT, POOLS, announced, service_home, use_server
from flows.settings import options_over
from pipeline.errors import InputError

AUTH = "PREFECT_SERVER_API_AUTH_STRING"


def server(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = DEFAULT_PORT,
    database: Annotated[
        str | None,
        typer.Option(
            help="Database, as postgresql+asyncpg://user:password@host/name; by default SQLite "
            "beneath PORF_HOME. Give it by the variable: arguments can be seen by others.",
            envvar="PREFECT_SERVER_DATABASE_CONNECTION_URL",
            show_envvar=True,
            show_default=False,
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="Address under which browsers reach it, if it is another."),
    ] = None,
) -> None:
    """Run a Prefect server with its pages in the foreground until Ctrl-C.

    Beyond this machine it is reachable only with PREFECT_SERVER_API_AUTH_STRING=user:password;
    clients then set PREFECT_API_AUTH_STRING to the same.
    """
    if not is_loopback(host) and not os.environ.get(AUTH):
        raise InputError(
            f"listening at {host} would let everybody on the network run code here",
            hint=f"set {AUTH}=user:password, or leave --host at 127.0.0.1",
        )
    refuse_taken(host, port)
    folder = service_home()
    folder.mkdir(parents=True, exist_ok=True)
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    address = public_url or f"http://{_bracketed(reached)}:{port}"
    os.environ.update(server_environment(folder, port, address, database))
    os.environ.pop("PREFECT_API_URL", None)
    import uvicorn  # noqa: PLC0415  (after the environment is set)

    console.print(f"server: [bold]{escape(address)}[/]  (Ctrl-C ends it)")
    console.print(f"  elsewhere: export PREFECT_API_URL={escape(address)}/api")
    with announced(f"http://{_bracketed(reached)}:{port}/api"):
        uvicorn.run(
            "prefect.server.api.server:create_app",
            factory=True,
            host=host,
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )


def worker(
    gpu: Annotated[
        str | None,
        typer.Option(help="Serve the GPU pool with this device, as CUDA names it."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time.", min=1, max=64, show_default="2 with a GPU, else by cores"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name on Prefect's pages.")] = None,
    nice: Annotated[int, typer.Option(help="Give way to other programs.", min=0, max=19)] = 0,
    once: Annotated[bool, typer.Option("--once", help="Work off what is due, then end.")] = False,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Answer at http://127.0.0.1:PORT/health: 503 once the server is not heard.",
            min=1,
            max=65535,
        ),
    ] = None,
) -> None:
    """Work off submitted runs in the foreground until Ctrl-C.

    With --gpu it computes on that device alone, without on CPUs alone. Two runs on one GPU share
    it sensibly: one trains while the other does structure from motion.
    """
    if health_port:
        refuse_taken("127.0.0.1", health_port)
    url = use_server()
    pool = next(name for name, kind in POOLS.items() if kind == ("cpu" if gpu is None else "gpu"))
    cores = os.cpu_count() or 1
    runs = limit or (2 if gpu is not None else max(1, cores // 4))
    os.environ.update(thread_environment(max(1, cores // runs)))
    os.environ.update(worker_environment(url, gpu))
    os.nice(nice)
    # A script's shell ignores SIGINT for what it runs in the background, and Prefect's worker,
    # which passes SIGTERM on to itself as SIGINT, would hear neither.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    words += ["--type", "process", "--limit", str(runs), "--name", name or _worker_name(gpu)]
    words += ["--run-once"] if once else []
    if health_port:
        os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = "127.0.0.1"
        os.environ["PREFECT_WORKER_WEBSERVER_PORT"] = str(health_port)
        words.append("--with-healthcheck")
    os.execv(sys.executable, words)


def deploy(
    gpu_limit: Annotated[
        int | None,
        typer.Option(help="Runs at a time on all GPU workers together.", min=1),
    ] = None,
    cpu_limit: Annotated[
        int | None,
        typer.Option(help="Runs at a time on all CPU workers together.", min=1),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="Let workers look at this folder for new cases, by a schedule."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the watched cases' results go.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="How often to look, as 10m or 1h.", metavar="TIME")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help="When to look (UTC), as five cron fields.", metavar="FIELDS")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Of the watched folder's runs: gpu or cpu.",
            show_default="gpu if such a worker is online",
        ),
    ] = None,
    preset: PresetOption = DEFAULT,
    overrides: SetOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell the server of our work pools, deployments and rules; again, it changes nothing."""
    if watch is not None and out is None:
        raise InputError("--watch needs -o: a folder for the results")
    if watch is None and (every or cron or out):
        raise InputError("--out, --every and --cron belong to a watched folder: give --watch, too")
    use_server()
    options = options_over(preset, config, overrides or [])
    from flows.remote import deploy as remote  # noqa: PLC0415
    from flows.remote.talk import in_plain_words  # noqa: PLC0415
    from flows.run_flow import quiet_prefect  # noqa: PLC0415

    quiet_prefect()
    watches = []
    if watch is not None and out is not None:
        every_s = None if every is None else parse_age(every).total_seconds()
        interval = 600.0 if every_s is None and cron is None else every_s
        places = str(absolute(watch)), str(absolute(out))
        watches = [remote.WatchOrder(*places, interval, cron, pool, preset, options)]
    with in_plain_words():
        for line in remote.deploy({"porf-gpu": gpu_limit, "porf-cpu": cpu_limit}, watches):
            console.print(f"[green]✓[/] {escape(line)}")


def server_environment(
    folder: Path, port: int, address: str, database: str | None
) -> dict[str, str]:
    """Settings of the server's process."""
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT__SERVER_FINAL": "1",
        # in memory, slots held when the server restarts would be lost for good
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
    }
    if database:
        settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    return settings


def worker_environment(api_url: str, gpu: str | None) -> dict[str, str]:
    """Settings of a worker's process, inherited by its runs."""
    return {
        "PREFECT_API_URL": api_url,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "DO_NOT_TRACK": "1",
        "CUDA_VISIBLE_DEVICES": "" if gpu is None else gpu,
    }


def refuse_taken(host: str, port: int) -> None:
    """Refuse an address at which another program listens, or that is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"nothing can listen at {_bracketed(host)}:{port}: {error.strerror or error}",
                hint="choose another port, or end the program that has it",
            ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _worker_name(gpu: str | None) -> str:
    device = "cpu" if gpu is None else f"gpu{gpu}"
    return f"{os.uname().nodename}-{device}-{os.getpid()}"
