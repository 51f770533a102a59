"""`porf watch`: cases are reconstructed as they arrive in a folder."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.batch.conduct import default_jobs
from flows.batch.entries import BatchRun
from flows.batch.reporter import BatchConsole
from flows.batch.run import Batch, batch_folder
from flows.cli import console, end_like_ctrl_c
from flows.cli.arguments import DEFAULT, ConfigOption, PresetOption, SetOption, absolute
from flows.cli.gc import parse_age
from flows.preflight.check import jobs_that_fit
from flows.remote.arrivals import arrived
from flows.remote.places import use_server
from flows.server import prefect_server
from flows.settings import options_over
from pipeline.errors import InputError


def watch(
    folder: Annotated[
        Path, typer.Argument(help="Folder into which cases are copied, one folder each.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all results.")],
    preset: PresetOption = DEFAULT,
    overrides: SetOption = None,
    config: ConfigOption = None,
    every: Annotated[
        str, typer.Option(help="How often to look, as 30s or 5m.", metavar="TIME")
    ] = "60s",
    quiet: Annotated[
        str, typer.Option(help="A case is whole once nothing changed so long.", metavar="TIME")
    ] = "30s",
    submit: Annotated[
        bool, typer.Option("--submit", help="Queue the cases for workers; compute nothing here.")
    ] = False,
    pool: Annotated[str | None, typer.Option(help="With --submit: gpu or cpu.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
) -> None:
    """Reconstruct every case that arrives in a folder until Ctrl-C.

    What fails is told and left alone until its photos or the options change.
    """
    folder, target = absolute(folder), absolute(out)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="create it, then copy cases into it")
    options = options_over(preset, config, overrides or [])
    interval_s, quiet_s = parse_age(every).total_seconds(), parse_age(quiet).total_seconds()
    end_like_ctrl_c()
    console.print(f"watching [bold]{escape(str(folder))}[/]  (Ctrl-C ends it)")
    told: set[str] = set()
    while True:
        runs = arrived(folder, target, preset, options, quiet_s)
        if runs and submit:
            _submit(runs, options, pool, told)
        elif runs:
            _compute(folder, target, runs)
        if once:
            return
        time.sleep(interval_s)


def _compute(folder: Path, out: Path, runs: list[BatchRun]) -> None:
    with batch_folder(out, folder), BatchConsole(console, len(runs)) as reporter:
        whole = Batch(folder, out, runs, keep_others=True)
        left = whole.sort_out(False, lambda _: None)
        if left:
            jobs = jobs_that_fit((r.request for r in left if r.request), default_jobs())
            with prefect_server():
                whole.compute(left, min(jobs, len(left)), reporter)


def _submit(
    runs: list[BatchRun], options: dict[str, object], pool: str | None, told: set[str]
) -> None:
    use_server()
    from flows.remote.submit import choose_pool  # noqa: PLC0415
    from flows.remote.talk import talk  # noqa: PLC0415
    from flows.remote.watch_flow import submit_arrived  # noqa: PLC0415

    with talk() as client:
        chosen = choose_pool(client, pool)
        for run in runs:
            run_id = submit_arrived(client, run, options, chosen)
            if run_id not in told:
                console.print(f"{run_id}  {escape(run.name)}")
            told.add(run_id)
