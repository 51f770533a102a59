"""What a person sees while a run goes on."""

import io

import pytest
from rich.console import Console

from flows.batch.reporter import BatchConsole
from flows.console import PlainReporter, TerminalReporter, figures_text

FIGURES = {
    "loss": 0.1592,
    "color": 0.0512,
    "epipolar": 0.3201,
    "psnr": 24.39,
    "heldout_px": 0.4445,
    "moved_deg": 1.7e-14,
    "steps_per_s": 6.413,
}


def _shown(progress: TerminalReporter | BatchConsole, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(progress._progress.get_renderable())
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 120])
def test_bar_count_and_every_figure_have_room(width: int) -> None:
    reporter = TerminalReporter(Console(file=io.StringIO(), width=width, force_terminal=True))
    reporter.stage_starts("train", ["not made yet"])
    assert "train" in _shown(reporter, width)
    reporter.advance("train", "joint", 1851, 2500, FIGURES)
    shown = _shown(reporter, width)
    for part in ("train", "joint", "━━━━", "1851/2500", "ETA", "moved_deg 0 "):
        assert part in shown
    for name in FIGURES:
        assert f"{name} " in shown
    assert "…" not in shown


def test_a_batch_shows_a_line_of_figures_for_each_run() -> None:
    batch = BatchConsole(Console(file=io.StringIO(), width=80, force_terminal=True), 2)
    for run in ("skull", "a [bold]case[/] with a long, long name"):
        batch.starts(run)
        event = {"kind": "advance", "phase": "joint", "done": 10, "total": 40, "figures": FIGURES}
        batch.event(run, "train", event)
    shown = _shown(batch, 80)
    assert shown.count("psnr 24.39") == 2
    assert shown.index("skull") < shown.index("psnr") < shown.index("a [bold]case[/]")
    assert "train joint" in shown
    assert "━━" in shown


def test_where_there_is_no_terminal_lines_are_whole() -> None:
    text = io.StringIO()
    PlainReporter(Console(file=text, width=200)).advance("train", "joint", 1, 4, FIGURES)
    assert text.getvalue() == f"  train joint 1/4 (25%) {figures_text(FIGURES)}\n"
