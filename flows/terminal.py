"""A console that no name of a file can repaint."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from pipeline.text import visible

_NO_EDGE = 10_000


class SafeConsole(Console):
    """Writes control characters out in everything that it prints.

    Rich escapes its own markup only: an escape sequence in a photo's name would reach the
    terminal. Segments that rich itself marks as control codes (cursor moves) pass.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _safe(segment)


def _safe(segment: Segment) -> Segment:
    text = visible(segment.text)
    return segment if text == segment.text else Segment(text, segment.style)


def make_console(**options: Any) -> Console:
    """A console in the command line's style."""
    console = SafeConsole(highlight=False, soft_wrap=True, **options)
    if not console.is_terminal:
        console.width = _NO_EDGE  # tables in a file or a pipe take the width they need
    return console
