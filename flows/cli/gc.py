"""`porf gc`: free what no current result uses."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.batch.record import RECORD
from flows.case_folder import CaseFolder
from flows.cli import console
from flows.cli.arguments import absolute
from flows.console import duration
from pipeline.errors import InputError
from pipeline.store.collect import Key, Removable, free, removables

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS_B = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def gc(
    out: Annotated[
        Path, typer.Argument(help="Output folder of a run or of a batch.", metavar="OUT")
    ],
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Only what is older, as 12h, 30d or 2w.", metavar="AGE"),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Only as much as brings each store down to this size, as 500MB or 20GB.",
            metavar="SIZE",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it only shows.")] = False,
) -> None:
    """Free superseded artifacts and abandoned work; what current results use always stays."""
    age = None if older_than is None else parse_age(older_than)
    size = None if keep is None else parse_size(keep)
    chosen = [(f, removables(f.store, keys_in_use(f), age, size)) for f in folders(absolute(out))]
    items = [item for _, found in chosen for item in found]
    if not items:
        console.print("nothing to free: everything is in use, or newer than asked for")
        return
    _print_table(chosen)
    total = sum(item.size for item in items)
    if not yes:
        console.print(f"{size_text(total)} would be freed; add [bold]--yes[/] to do it")
        return
    freed = sum(free(folder.store, found) for folder, found in chosen)
    console.print(f"[green]✓[/] {size_text(freed)} freed")


def folders(out: Path) -> list[CaseFolder]:
    """The output folder itself, or those of a batch.

    Raises:
        InputError: neither.
    """
    if (out / RECORD).is_file():
        inside = (CaseFolder(path) for path in sorted(out.iterdir()) if path.is_dir())
        return [folder for folder in inside if folder.exists()]
    folder = CaseFolder(out)
    folder.load_record()
    return [folder]


def keys_in_use(folder: CaseFolder) -> set[Key]:
    """What the last run's results, and every stage's last state, stand on.

    Raises:
        InputError: the record of the last run cannot be read; nothing is safe to delete then.
    """
    return {*folder.load_record().keys.items(), *_states(folder)}


def _states(folder: CaseFolder) -> Iterator[Key]:
    for path in (folder.hidden / "state").glob("*.json"):
        state = folder.load_state(path.stem)
        if state:
            yield path.stem, state.key


def parse_age(text: str) -> timedelta:
    """`12h`, `30d` or `2w`; raises `InputError`."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if not match:
        raise InputError(f"--older-than {text}: expected an age as 12h, 30d or 2w")
    return timedelta(seconds=float(match[1]) * _UNITS_S[match[2]])


def parse_size(text: str) -> int:
    """`500MB` or `20GB`; raises `InputError`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if not match:
        raise InputError(f"--keep {text}: expected a size as 500MB or 20GB")
    return int(float(match[1]) * _UNITS_B[match[2]])


def size_text(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _print_table(chosen: list[tuple[CaseFolder, list[Removable]]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for title in ("folder", "stage", "what", "key"):
        table.add_column(title)
    table.add_column("age", justify="right")
    table.add_column("size", justify="right")
    now = datetime.now(UTC)
    for folder, found in chosen:
        for item in found:
            age = duration(max(0.0, (now - item.made_at).total_seconds()))
            cells = (folder.root.name, item.stage, item.kind, item.key[:8])
            table.add_row(*map(escape, cells), age, size_text(item.size))
    console.print(table)
