"""`porf submit`, `runs`, `cancel`, `retry`, `logs`: runs on workers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli import EXIT_FAILED, console
from flows.cli.arguments import (
    DEFAULT,
    CamerasOption,
    ConfigOption,
    GroundTruthMeshOption,
    GroundTruthOption,
    MasksOption,
    PresetOption,
    SetOption,
    absolute,
    external_paths,
)
from flows.cli.publish import PublishOption
from flows.console import duration
from flows.remote.case import Case
from flows.remote.places import use_server
from flows.request import case_name
from flows.settings import options_over
from pipeline.errors import InputError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

RunArgument = Annotated[
    str,
    typer.Argument(help="Run: its id, the first four or more of its digits, or its name."),
]


def submit(
    photos: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of photos, one a case, or cases in the PoRF data convention.",
            metavar="PHOTOS|CASE…",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Output folder; with several cases one beneath it each."),
    ] = Path("porf_out"),
    preset: PresetOption = DEFAULT,
    overrides: SetOption = None,
    config: ConfigOption = None,
    masks: MasksOption = None,
    cameras: CamerasOption = None,
    ground_truth: GroundTruthOption = None,
    ground_truth_mesh: GroundTruthMeshOption = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Compute this stage and all after it anew.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", help="Stop after this stage.")] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="gpu or cpu.", show_default="gpu if such a worker is online"),
    ] = None,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Before all others that wait for such a worker.")
    ] = False,
    publish: PublishOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
) -> None:
    """Queue cases for workers and print the ids of their runs."""
    external = external_paths(masks, ground_truth, ground_truth_mesh, cameras)
    options = options_over(preset, config, overrides or [])
    alike = {"preset": preset, "options": options, "start": start, "stop": stop}
    cases = _cases([absolute(folder) for folder in photos], absolute(out), publish, external, alike)
    for case in cases:
        case.request()
    with _server() as client:
        from flows.remote import runs as remote  # noqa: PLC0415
        from flows.remote.submit import choose_pool, queue  # noqa: PLC0415

        chosen = choose_pool(client, pool)
        ids = [queue(client, case, chosen, urgent=urgent) for case in cases]
        for case, run_id in zip(cases, ids, strict=True):
            console.print(f"{run_id}  {escape(case.name)} → {escape(str(case.out))}")
        if wait:
            _report_end(remote.wait(client, ids))


def _cases(
    folders: list[Path],
    out: Path,
    publish: str | None,
    external: dict[str, Path],
    alike: dict[str, Any],
) -> list[Case]:
    """One case in `out` itself; several each in a folder of their own beneath it."""
    if len(folders) == 1:
        return [Case(photos=folders[0], out=out, publish=publish, **external, **alike)]
    if external:
        raise InputError(
            "masks, cameras and truth belong to one case: submit the cases one by one",
            hint="`porf batch` takes lists of cases with their files",
        )
    names = [case_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(
            "several of these cases would have the same output folder",
            hint="submit them one by one, each with its own -o",
        )
    targets = [f"{publish.rstrip('/')}/{name}" if publish else None for name in names]
    return [
        Case(photos=folder, out=out / name, publish=target, **alike)
        for folder, name, target in zip(folders, names, targets, strict=True)
    ]


def runs(
    count: Annotated[int, typer.Option("--limit", help="How many.", min=1, max=2000)] = 20,
    state: Annotated[
        str | None, typer.Option(help="Only those, as running, failed or completed.")
    ] = None,
) -> None:
    """List the latest runs."""
    with _server(only_look=True) as client:
        from flows.remote.runs import latest, started, telling_digits  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
        for title in ("id", "run", "state", "began (UTC)", "took", "message"):
            table.add_column(title, overflow="fold")
        found = latest(client, count, state)
        digits = telling_digits([str(run.id) for run in found])
        for run in found:
            began = started(run)
            message = (run.state.message or "") if run.state else ""
            table.add_row(
                str(run.id)[:digits],
                escape(run.name),
                _state(run),
                f"{began:%Y-%m-%d %H:%M:%S}" if began else "",
                duration(run.total_run_time.total_seconds()),
                escape(message.splitlines()[0] if message else ""),
            )
        console.print(table)


def cancel(run: RunArgument) -> None:
    """End a run; its training saves a checkpoint, and `porf retry` goes on from there."""
    with _server() as client:
        from flows.remote import runs as remote  # noqa: PLC0415

        found = remote.find(client, run)
        console.print(f"{found.id}  {escape(found.name)}: {remote.cancel(client, found)}")


def retry(
    run: RunArgument,
    start: Annotated[
        str | None, typer.Option("--from", help="Compute this stage and all after it anew.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
) -> None:
    """Queue a run's case again; what is done already is not computed again."""
    with _server() as client:
        from flows.remote import runs as remote  # noqa: PLC0415

        found = remote.find(client, run)
        again = remote.retry(client, found, start)
        console.print(f"{again}  {escape(found.name)}")
        if wait:
            _report_end(remote.wait(client, [again]))


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
) -> None:
    """Print a run's log."""
    with _server(only_look=True) as client:
        from flows.remote import runs as remote  # noqa: PLC0415

        found = remote.find(client, run)
        shown = 0
        while True:
            ended = bool(found.state and found.state.is_final())
            for line in remote.logs(client, found.id, shown):
                shown += 1
                console.print(f"[dim]{line.timestamp:%H:%M:%S}[/] {escape(line.message)}")
            if ended or not follow:
                return
            time.sleep(2.0)
            found = remote.read_patiently(client, found.id)


@contextmanager
def _server(only_look: bool = False) -> "Iterator[SyncPrefectClient]":
    use_server(only_look)
    from flows.run_flow import quiet_prefect  # noqa: PLC0415

    quiet_prefect()
    from flows.remote.talk import talk  # noqa: PLC0415

    with talk() as client:
        yield client


def _report_end(ended: list[Any]) -> None:
    for run in ended:
        message = f": {run.state.message}" if run.state.message else ""
        console.print(f"{str(run.id)[:8]}  {escape(run.name)}  {_state(run)}{escape(message)}")
    if not all(run.state.is_completed() for run in ended):
        raise typer.Exit(EXIT_FAILED)


def _state(run: Any) -> str:
    if run.state is None:
        return "unknown"
    final = "green" if run.state.is_completed() else "red"
    colour = final if run.state.is_final() else "cyan"
    return f"[{colour}]{run.state.name.lower()}[/]"
