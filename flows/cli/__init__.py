"""The `porf` command line."""

import signal
import sys
import threading

from rich.markup import escape

from flows.terminal import make_console
from pipeline.errors import InputError, PorfError

EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

console = make_console()
errors = make_console(stderr=True)


def main() -> None:
    """Entry point: every error becomes lines that a user can act on, and an exit code."""
    from flows.cli.app import app  # noqa: PLC0415  (keeps `import flows.cli` light)

    try:
        app()
    except PorfError as error:
        show_error(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        errors.print("[yellow]interrupted[/]")
        sys.exit(EXIT_INTERRUPTED)


def show_error(error: PorfError) -> None:
    """What is wrong, and what to do next."""
    errors.print(f"[red]error:[/] {escape(error.message)}")
    if error.hint:
        errors.print(f"  → {escape(error.hint)}")


def exit_code(error: PorfError) -> int:
    """2 for what the user can mend, 1 for what we could not do."""
    return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


def end_like_ctrl_c() -> None:
    """Let SIGTERM end this process as Ctrl-C does: children save and end first, exit code 130."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
