"""Start of a module in a process of its own, whose output the parent reads line by line."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Idle threads of OpenMP (torch's) sleep: where they spin and another program wants the core, a
training with two threads was seen to take six times the processor time of one with a single one."""


def start_module(
    module: str,
    request: Path,
    environment: Mapping[str, str] | None = None,
    talks: bool = False,
) -> "subprocess.Popen[str]":
    """Run `python -m MODULE REQUEST` with standard output and errors in one pipe.

    In a session of its own: a Ctrl-C at the terminal is the parent's to pass on. Its idle threads
    sleep, unless OMP_WAIT_POLICY says otherwise.

    Args:
        environment: variables beside those of this process.
        talks: the parent will write to its standard input.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, str(request)],
        stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        env={**_PATIENT, **os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
    )
