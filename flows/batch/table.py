"""The table of a batch: one row a run, for terminals, files and pages alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.batch.record import Figure, RunResult
from flows.console import duration

COLUMNS = {
    "rotation_mean_refined": ("rotation", "deg"),
    "translation_of_span_refined": ("position", "% of span"),
    "chamfer_of_radius": ("Chamfer", "% of radius"),
    "f_score": ("F-score", "%"),
    "heldout_epipolar_median_refined": ("held-out epipolar", "px"),
    "psnr_heldout": ("held-out PSNR", "dB"),
}
"""Figures with a column of their own, where any run has them; the rest is in `batch.json`."""

_COLOURS = {"done": "green", "cached": "green", "failed": "red", "interrupted": "yellow"}


@dataclass(frozen=True)
class Row:
    """One run in words; `figures` in the order of the header's."""

    result: RunResult
    views: str
    time: str
    memory: str
    figures: list[str]
    note: str


def header(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Name and title of every figure that some run has."""
    return [
        (name, f"{title}, {unit}")
        for name, (title, unit) in COLUMNS.items()
        if any(name in result.figures for result in results)
    ]


def rows(results: Sequence[RunResult]) -> list[Row]:
    """All runs in words."""
    names = [name for name, _ in header(results)]
    return [
        Row(
            result=result,
            views="" if result.views is None else f"{result.views[0]} of {result.views[1]}",
            time=duration(result.wall_s) if result.wall_s else "",
            memory=f"{result.peak_memory_mb / 1024:.1f} GB" if result.peak_memory_mb else "",
            figures=[value(result.figures.get(name)) for name in names],
            note=_note(result),
        )
        for result in results
    ]


def value(figure: Figure | None) -> str:
    """A figure to three significant digits."""
    if figure is None or figure.value is None:
        return "–"
    return f"{figure.value:.3g}" if isinstance(figure.value, float) else str(figure.value)


def summary(results: Sequence[RunResult]) -> str:
    """How many ended how."""
    words = {
        "done": "computed",
        "cached": "there already",
        "failed": "failed",
        "interrupted": "interrupted",
        "waiting": "not run",
    }
    counts = {status: sum(r.status == status for r in results) for status in words}
    told = [f"{count} {words[status]}" for status, count in counts.items() if count]
    return f"{len(results)} run{'s' * (len(results) != 1)}: " + ", ".join(told)


def print_table(console: Console, results: Sequence[RunResult]) -> None:
    """The table as a person reads it in a terminal or a log, then why runs failed."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for title in ("run", "state", "views", "time", "memory"):
        table.add_column(title, overflow="fold")
    for _, title in header(results):
        table.add_column(title, justify="right")
    table.add_column("warnings", justify="right")
    for row in rows(results):
        colour = _COLOURS.get(row.result.status, "dim")
        table.add_row(
            escape(row.result.name),
            f"[{colour}]{row.result.status}[/]",
            row.views,
            row.time,
            row.memory,
            *row.figures,
            str(len(row.result.warnings) or ""),
        )
    console.print(table)
    for result in results:
        if not result.succeeded:
            console.print(f"[red]{escape(result.name)}[/]: {escape(_note(result))}")


def _note(result: RunResult) -> str:
    if result.message:
        where = f"{result.stage}: " if result.stage else ""
        return where + result.message
    count = len(result.warnings)
    return f"{count} warning{'s' * (count != 1)}" if count else ""
