"""`porf run`: photos to a measured mesh."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.case_folder import CaseFolder
from flows.cli import console, end_like_ctrl_c, errors, exit_code
from flows.cli.arguments import (
    DEFAULT,
    CamerasOption,
    ConfigOption,
    GroundTruthMeshOption,
    GroundTruthOption,
    MasksOption,
    PresetOption,
    RoiOption,
    SetOption,
    absolute,
    external_paths,
    roi_overrides,
)
from flows.cli.publish import PublishOption, publish_folder
from flows.cli.summary import print_results
from flows.console import make_reporter
from flows.finished import finished_results
from flows.listeners import RunReporter, reporting
from flows.preflight.check import check_run
from flows.request import RunRequest, open_run
from flows.run_flow import run_flow
from flows.server import home, running_server
from flows.settings import changed_options, resolve
from flows.stage_process import log_tail
from pipeline.errors import PorfError

PhotosArgument = Annotated[
    Path, typer.Argument(help="Folder of photos, or a video.", metavar="PHOTOS")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Output folder.", show_default="porf_out/<PHOTOS' name>"),
]
FromOption = Annotated[
    str | None, typer.Option("--from", help="Compute this stage and all after it anew.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Stop after this stage.")]
ForceOption = Annotated[
    list[str] | None, typer.Option("--force", help="Compute this stage anew; may be repeated.")
]
VerifyOption = Annotated[
    bool, typer.Option("--verify", help="First compare stored files with their SHA-256.")
]


def run(
    photos: PhotosArgument,
    out: OutOption = None,
    preset: PresetOption = DEFAULT,
    overrides: SetOption = None,
    config: ConfigOption = None,
    masks: MasksOption = None,
    cameras: CamerasOption = None,
    roi: RoiOption = None,
    ground_truth: GroundTruthOption = None,
    ground_truth_mesh: GroundTruthMeshOption = None,
    start: FromOption = None,
    stop: ToOption = None,
    force: ForceOption = None,
    verify: VerifyOption = False,
    publish: PublishOption = None,
) -> None:
    """Reconstruct a folder of photos; what is done already is not computed again."""
    if publish:
        from flows.publish import check_url  # noqa: PLC0415

        publish = check_url(publish)
    overrides = [*(overrides or []), *roi_overrides(roi)]
    settings = resolve(preset, config, overrides)
    photos = absolute(photos)
    folder = absolute(out) if out else Path.cwd() / "porf_out" / photos.name
    request = RunRequest(
        photos=photos,
        out=folder,
        preset=preset,
        settings=settings.model_dump(mode="json"),
        external=external_paths(masks, ground_truth, ground_truth_mesh, cameras),
        start=start,
        stop=stop,
        force=force or [],
    )
    retry = continue_command(photos, folder, preset, overrides, config, request.external)
    execute(request, retry + (f" --publish {shlex.quote(publish)}" if publish else ""), verify)
    if publish:
        publish_folder(CaseFolder(folder), publish)


def execute(request: RunRequest, retry_command: str, verify: bool = False) -> None:
    """Run the flow under a Prefect server and tell the user how it ended.

    Raises:
        typer.Exit: with the exit code where the run failed.
        InputError: the request is refused before anything starts.
    """
    # refuses bad input, and what cannot fit, before a server starts
    folder, settings, choice, external = open_run(request)
    if verify:
        drop_damaged(folder)
    expected = check_run(request, folder, choice, external)
    print_start(request, changed_options(settings))
    if expected:
        console.print(f"[dim]expected: {escape(expected.text())}[/]")
    end_like_ctrl_c()
    with make_reporter(console) as reporter, reporting(reporter):
        failure = None if _all_is_there(request, reporter) else run_flow(request)
    if failure is None:
        print_results(folder)
        return
    print_failure(folder, failure, retry_command)
    raise typer.Exit(exit_code(failure))


def _all_is_there(request: RunRequest, reporter: RunReporter) -> bool:
    """Whether nothing is left to do; then no server is started only to write that down."""
    if os.environ.get("PREFECT_API_URL") or running_server(home()):
        return False
    found = finished_results(request)
    for stage in found or ():
        reporter.stage_cached(stage)
    return found is not None


def drop_damaged(folder: CaseFolder) -> None:
    """Forget artifacts whose files differ from their SHA-256; they are then made anew."""
    from stages.registry import STAGES  # noqa: PLC0415

    for stage, key in folder.load_record().keys.items():
        if stage not in STAGES:
            continue
        manifest, problem = folder.store.find(stage, key, deep=True)
        if manifest is None and problem != "not made yet":
            console.print(f"[yellow]! {stage}: {escape(problem)}; it is made anew[/]")
            (folder.store.artifact(stage, key) / "manifest.json").unlink(missing_ok=True)


def print_start(request: RunRequest, changed: dict[str, object]) -> None:
    """What runs, where to, and which options are not the defaults."""
    console.print(f"[bold]{escape(str(request.photos))}[/] → {escape(str(request.out))}")
    table = Table.grid(padding=(0, 2))
    for name, value in changed.items():
        table.add_row(f"[dim]{escape(name)}[/]", f"[dim]{escape(str(value))}[/]")
    if changed:
        console.print(
            f"[dim]preset {escape(request.preset)}; options that differ from the defaults:[/]"
        )
        console.print(table)


def print_failure(folder: CaseFolder, failure: PorfError, retry_command: str) -> None:
    """What failed, the likely cause, and the command that continues."""
    record = folder.load_record()
    from stages.registry import STAGES  # noqa: PLC0415

    failed = [n for n in STAGES if (s := folder.load_state(n)) and s.status == "failed"]
    errors.print(f"[red]failed:[/] {escape(failure.message)}")
    if failed and exit_code(failure) != 2:
        state = folder.load_state(failed[-1])
        tail = log_tail(folder.store.work(failed[-1], state.key)) if state else []
        for line in tail[-6:]:
            errors.print(f"  [dim]{escape(line)}[/]")
    if failure.hint:
        errors.print(f"  → {escape(failure.hint)}")
    done = ", ".join(n for n in record.keys if n not in failed)
    if done:
        errors.print(f"  finished stages are kept: {escape(done)}")
    errors.print(f"  continue with: [bold]{escape(retry_command)}[/]")


def continue_command(
    photos: Path,
    out: Path,
    preset: str,
    overrides: Iterable[str],
    config: Path | None,
    external: dict[str, Path],
) -> str:
    """The command that repeats this run; finished stages are then cached."""
    words = ["porf", "run", str(photos), "-o", str(out), "--preset", preset]
    for override in overrides:
        words += ["--set", override]
    if config:
        words += ["--config", str(absolute(config))]
    for role, path in external.items():
        words += [f"--{role.replace('_', '-')}", str(path)]
    return shlex.join(words)
