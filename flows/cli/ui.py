"""`porf ui`: Prefect's pages with the run history."""

import os
import signal
import threading
import webbrowser
from typing import Annotated

import typer

from flows.cli import console
from flows.server import prefect_server


def ui(
    browser: Annotated[bool, typer.Option(help="Open a browser too.")] = True,
) -> None:
    """Serve the UI with the history of all runs until Ctrl-C, and print its address."""
    with prefect_server() as api_url:
        address = api_url.removesuffix("/api")
        console.print(f"run history: [bold]{address}[/]  (Ctrl-C ends it)")
        has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        if browser and has_screen:
            webbrowser.open(address)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
