"""`porf batch`: many cases on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.batch.conduct import default_jobs
from flows.batch.entries import BatchRun, Choices, read_batch
from flows.batch.reporter import BatchConsole
from flows.batch.run import Batch, batch_folder
from flows.batch.table import print_table, summary
from flows.case_folder import CaseFolder
from flows.cli import EXIT_FAILED, console, end_like_ctrl_c
from flows.cli.arguments import ConfigOption, SetOption, absolute
from flows.cli.publish import PublishOption, publish_folder
from flows.preflight.check import jobs_that_fit
from flows.server import prefect_server

SourceArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder with one folder of photos a case, or a list in YAML.", metavar="CASES"
    ),
]


def batch(
    source: SourceArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for all results.", show_default="porf_out/<CASES' name>"
        ),
    ] = None,
    presets: Annotated[
        list[str] | None, typer.Option("--preset", help="Preset; repeat it to compare several.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Seed; repeat it to compare several.", min=0)
    ] = None,
    overrides: SetOption = None,
    config: ConfigOption = None,
    stop: Annotated[
        str | None, typer.Option("--to", help="Stop every run after this stage.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed and has not changed.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", help="Runs at a time.", min=1, max=64, show_default="by cores, GPUs, memory"
        ),
    ] = None,
    publish: PublishOption = None,
) -> None:
    """Reconstruct many cases; one that fails never stops the others.

    The same command again does only what is missing. Ends with exit code 0 only if all succeeded.
    """
    if publish:
        from flows.publish import check_url  # noqa: PLC0415

        publish = check_url(publish)
    source = absolute(source)
    target = absolute(out) if out else Path.cwd() / "porf_out" / source.stem
    choices = Choices(
        tuple(presets or ()), tuple(seeds or ()), tuple(overrides or ()), config, stop
    )
    runs = read_batch(source, target, choices)
    with batch_folder(target, source):
        whole = Batch(source, target, runs)
        _perform(whole, retry_failed, jobs)
    results = list(whole.results.values())
    console.print()
    print_table(console, results)
    console.print(f"{summary(results)}; see [bold]{escape(str(target / 'index.html'))}[/]")
    if publish:
        for result in results:
            if result.succeeded:
                publish_folder(CaseFolder(target / result.name), f"{publish}/{result.name}")
    if not all(result.succeeded for result in results):
        raise typer.Exit(EXIT_FAILED)


def _perform(whole: Batch, retry_failed: bool, jobs: int | None) -> None:
    with BatchConsole(console, len(whole.runs)) as reporter:
        left = whole.sort_out(retry_failed, reporter.settled)
        if left:
            _compute(whole, left, jobs or _jobs(left), reporter)


def _jobs(left: list[BatchRun]) -> int:
    return jobs_that_fit((run.request for run in left if run.request), default_jobs())


def _compute(whole: Batch, left: list[BatchRun], jobs: int, reporter: BatchConsole) -> None:
    end_like_ctrl_c()
    with prefect_server():
        whole.compute(left, min(jobs, len(left)), reporter)
