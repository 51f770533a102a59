"""Shows a batch: bars of what runs in a terminal, lines elsewhere."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn

from flows.batch.conduct import Ended
from flows.batch.record import RunResult
from flows.console import BarsWithFigures, figures_text


class BatchConsole:
    """One line when a run or a stage ends; in a terminal also a bar for every run at work."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total, self._ended = total, 0
        self._bars: dict[str, TaskID] = {}
        self._progress = BarsWithFigures(
            TextColumn("[bold]{task.fields[run]:24}[/] {task.description:20}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "BatchConsole":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def settled(self, result: RunResult) -> None:
        """A run that needs no computing."""
        self._ended += 1
        if result.succeeded:
            self._line(result.name, "[green]✓[/]", "[dim]there already[/]")
            return
        earlier = "failed before and nothing has changed; --retry-failed tries again: "
        before = earlier if result.fingerprint else ""
        self._line(result.name, "[red]✗[/]", escape(before + result.message))

    def starts(self, run: str) -> None:
        """See `BatchReporter`."""
        self._bars[run] = self._progress.add_task("starts", total=None, run=_cell(run), figures="")
        self._console.print(f"… {escape(run)} starts")

    def event(self, run: str, stage: str | None, event: dict[str, Any]) -> None:
        """See `BatchReporter`."""
        kind, bar = event["kind"], self._bars.get(run)
        if kind == "starts" and bar is not None:
            self._progress.reset(bar, description=event["stage"], total=None, figures="")
        elif kind == "advance" and bar is not None:
            self._progress.update(
                bar,
                description=f"{stage or ''} {event['phase']}",
                completed=event["done"],
                total=event["total"],
                figures=figures_text(event["figures"]),
            )
        elif kind == "say" and event["warning"]:
            self._console.print(f"  [yellow]! {escape(run)}: {escape(event['text'])}[/]")

    def ended(self, run: str, outcome: Ended) -> None:
        """See `BatchReporter`."""
        self._progress.remove_task(self._bars.pop(run))
        self._ended += 1
        if outcome.status == "done":
            self._line(run, "[green]✓[/]", "done")
            return
        where = f"{outcome.stage}: " if outcome.stage else ""
        self._line(run, "[red]✗[/]", escape(where + outcome.message))
        if outcome.hint:
            self._console.print(f"    → {escape(outcome.hint)}")

    def _line(self, run: str, mark: str, text: str) -> None:
        self._console.print(f"{mark} {self._ended}/{self._total} [bold]{escape(run)}[/] {text}")


def _cell(run: str) -> str:
    return escape(run if len(run) <= 24 else run[:23] + "…")
