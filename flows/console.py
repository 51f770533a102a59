"""Progress for a person: rich bars in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_PLAIN_INTERVAL_S = 10.0
_ZERO = 1e-5


def make_reporter(console: Console) -> "TerminalReporter | PlainReporter":
    """Bars where the output is a terminal, lines where it is a file or a pipe."""
    return TerminalReporter(console) if console.is_terminal else PlainReporter(console)


def duration(seconds: float) -> str:
    """3.2 s, 4 min 05 s or 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def figures_text(figures: dict[str, float]) -> str:
    """Figures with a progress bar; what rounding left of zero is zero."""
    return "  ".join(
        f"{name} {0 if abs(value) < _ZERO else value:.4g}" for name, value in figures.items()
    )


class _Lines:
    """The lines that both forms share."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage_cached(self, stage: str) -> None:
        """See `RunReporter`."""
        self.console.print(f"[green]✓[/] [bold]{stage:9}[/] [dim]cached[/]")

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """See `RunReporter`."""
        self.console.print(f"[green]✓[/] [bold]{stage:9}[/] {duration(wall_s)}")
        for warning in warnings:
            self.console.print(f"  [yellow]! {escape(warning)}[/]")

    def stage_failed(self, stage: str, message: str) -> None:
        """See `RunReporter`."""
        self.console.print(f"[red]✗[/] [bold]{stage:9}[/] {escape(message)}")

    def say(self, stage: str, text: str, warning: bool = False) -> None:
        """See `RunReporter`."""
        style = "yellow" if warning else "dim"
        self.console.print(f"  [{style}]{escape(text)}[/]")


class PlainReporter(_Lines):
    """One line at a time, for logs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last = 0.0

    def __enter__(self) -> "PlainReporter":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """See `RunReporter`."""
        self.console.print(f"… {stage:9} {escape('; '.join(reasons))}")

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """See `RunReporter`."""
        now = time.monotonic()
        if now - self._last >= _PLAIN_INTERVAL_S:
            self._last = now
            share = 100 * done / max(total, 1)
            line = f"  {stage} {phase} {done}/{total} ({share:.0f}%) {figures_text(figures)}"
            self.console.print(escape(line.rstrip()))


class BarsWithFigures(Progress):
    """Bars with their field `figures` on a line of its own: beside a bar there is no room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """A bar, its figures, the next bar …"""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["figures"]:
                yield Padding(Text(task.fields["figures"], style="dim"), (0, 0, 0, 2))


class TerminalReporter(_Lines):
    """A live bar for the running stage."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = BarsWithFigures(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[stage]:9}[/] {task.description:11}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._phase = ("", "")

    def __enter__(self) -> "TerminalReporter":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage_starts(self, stage: str, reasons: list[str]) -> None:
        """See `RunReporter`."""
        self._show(stage, "starts", None)
        self.console.print(f"[dim]… {stage:9} {escape('; '.join(reasons))}[/]")

    def stage_done(self, stage: str, wall_s: float, warnings: list[str]) -> None:
        """See `RunReporter`."""
        self._clear()
        super().stage_done(stage, wall_s, warnings)

    def stage_failed(self, stage: str, message: str) -> None:
        """See `RunReporter`."""
        self._clear()
        super().stage_failed(stage, message)

    def advance(
        self, stage: str, phase: str, done: int, total: int, figures: dict[str, float]
    ) -> None:
        """See `RunReporter`."""
        if self._phase != (stage, phase):
            self._show(stage, phase, total)
        if self._task is not None:
            text = figures_text(figures)
            self._progress.update(self._task, completed=done, total=total, figures=text)

    def _show(self, stage: str, phase: str, total: int | None) -> None:
        self._clear()
        self._phase = (stage, phase)
        self._task = self._progress.add_task(phase, total=total, stage=stage, figures="")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = None
