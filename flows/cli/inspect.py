"""`porf status`, `porf explain`, `porf options`: looking without touching."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.case_folder import CaseFolder, RunRecord
from flows.cli import console
from flows.cli.arguments import DEFAULT, ConfigOption, OutArgument, SetOption, absolute
from flows.console import duration
from flows.plan import Choice, Prospect, external_files, look_ahead
from flows.reference import markdown, meanings
from flows.settings import (
    Settings,
    flat_options,
    merged,
    parse_override,
    preset_description,
    preset_names,
    resolve,
    settings_from,
)
from pipeline.errors import InputError
from pipeline.store.manifest import Manifest
from stages.registry import STAGES, find_stage

VerifyOption = Annotated[bool, typer.Option("--verify", help="Compare files with their SHA-256.")]


def status(out: OutArgument, verify: VerifyOption = False) -> None:
    """Show each stage: done, cached, stale, failed or running; when, how long, verdict."""
    folder = CaseFolder(absolute(out))
    record = folder.load_record()
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for column in ("stage", "state", "when (UTC)", "took", "memory", "verdict"):
        table.add_column(column, overflow="fold")
    for prospect in _prospects(folder, record, settings_from(record.settings), verify):
        table.add_row(*_status_row(folder, record, prospect))
    console.print(f"[bold]{escape(record.photos)}[/] @ {escape(record.preset)}")
    console.print(table)


def _status_row(folder: CaseFolder, record: RunRecord, prospect: Prospect) -> list[str]:
    name = prospect.stage
    state, reason = stage_state(folder, record, prospect)
    manifest = prospect.manifest or _latest(folder, record, name)
    colours = {"done": "green", "cached": "green", "failed": "red", "running": "cyan"}
    shown = f"[{colours.get(state, 'yellow')}]{state}[/]"
    if manifest is None:
        return [name, shown, "", "", "", f"[dim]{escape(reason)}[/]"]
    verdict = manifest.verdict
    judgement = "ok" if verdict.status == "ok" else "[yellow]warn[/]: " + escape(verdict.reasons[0])
    return [
        name,
        shown,
        manifest.finished_at.replace("T", " ").removesuffix("+00:00"),
        duration(manifest.wall_s),
        f"{manifest.peak_memory_mb / 1024:.1f} GB",
        judgement if prospect.manifest else f"[dim]{escape(reason)}[/]",
    ]


def stage_state(folder: CaseFolder, record: RunRecord, prospect: Prospect) -> tuple[str, str]:
    """A stage's state in one word, and why where it is not up to date.

    `stale`: a result exists, but of other options, inputs or code; `interrupted`: the run was
    killed and its checkpoint waits.
    """
    name = prospect.stage
    state = folder.load_state(name)
    if state and state.status == "running":
        alive = folder.store.is_locked(name, state.key)
        return ("running", "since " + state.at) if alive else ("interrupted", "continues when run")
    if prospect.manifest:
        return ("cached" if state and state.status == "cached" else "done"), ""
    if state and state.status == "failed":
        return "failed", state.reason
    reason = "; ".join(prospect.reasons)
    return ("stale" if _latest(folder, record, name) else "not run"), reason


def explain(
    out: OutArgument,
    preset: Annotated[
        str | None, typer.Option("--preset", help="As if this preset were given.")
    ] = None,
    overrides: SetOption = None,
    config: ConfigOption = None,
) -> None:
    """Say why each stage would run again: which option, file or code version changed.

    Without options it looks at the last run's own; with them, at what they would change.
    """
    folder = CaseFolder(absolute(out))
    record = folder.load_record()
    settings = changed_settings(record, preset, config, overrides or [])
    for prospect in _prospects(folder, record, settings, deep=False):
        if prospect.manifest:
            console.print(f"[green]✓[/] {prospect.stage:9} [dim]up to date[/]")
        else:
            reason = escape("; ".join(prospect.reasons))
            mark = "?" if prospect.recipe is None else "→"
            console.print(f"[yellow]{mark}[/] {prospect.stage:9} {reason}")


def options(
    stage: Annotated[str | None, typer.Argument(help="Only this stage.", metavar="[STAGE]")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Values as in this preset.")] = DEFAULT,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="The whole reference as Markdown.")
    ] = False,
) -> None:
    """List presets, and every option with its value and meaning."""
    if as_markdown:
        typer.echo(markdown(), nl=False)
        return
    names = [find_stage(stage).name] if stage else list(STAGES)
    for name in preset_names():
        console.print(f"[bold]--preset {name:22}[/] {escape(preset_description(name))}")
    values, default = flat_options(resolve(preset)), flat_options(Settings())
    told = meanings()
    for name in names:
        console.print(f"\n[bold]{name}[/] [dim]{escape(STAGES[name].description)}[/]")
        for option in (o for o in values if o.startswith(name + ".")):
            changed = "" if values[option] == default[option] else f" (default {default[option]})"
            line = f"  {option} = {values[option]}{changed}"
            console.print(f"{escape(line)}\n      [dim]{escape(told.get(option, ''))}[/]")


def changed_settings(
    record: RunRecord, preset: str | None, config: Path | None, overrides: list[str]
) -> Any:
    """The last run's options, or a preset's or file's instead, with `--set` applied."""
    if preset or config:
        return resolve(preset or record.preset, config, overrides)
    values = dict(record.settings)
    for override in overrides:
        values = merged(values, parse_override(override))
    return settings_from(values)


def _prospects(folder: CaseFolder, record: RunRecord, settings: Any, deep: bool) -> list[Prospect]:
    paths = {role: Path(path) for role, path in record.external.items()}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise InputError(
            f"{missing[0]} is gone, so nothing can be said about what would run",
            hint="put it back, or run `porf run` with its new place and the same -o",
        )
    external = external_files(paths, folder.hashes())
    return look_ahead(folder, settings, external, Choice.of(roles=external), deep)


def _latest(folder: CaseFolder, record: RunRecord, stage: str) -> Manifest | None:
    key = record.keys.get(stage)
    return folder.store.find(stage, key)[0] if key else None
