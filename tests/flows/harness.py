"""The command line as a user runs it, and a small case to run it on."""

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.case_folder import CaseFolder
from flows.cli import main
from flows.prefect_api import ask

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.yaml")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SHORT = ["--to", "matches", "--set", "sfm.threads=1"]
WHOLE = ["--set", "sfm.threads=1"]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    text: str


@dataclass(frozen=True)
class Porf:
    """The command line as a user's shell runs it, against the tests' Prefect server."""

    env: dict[str, str]
    api_url: str

    def start(
        self, *words: str | Path, log: Path | None = None, **env: str
    ) -> "subprocess.Popen[str]":
        """Start a command; what it says goes into a pipe, which must be read, or into a file."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            cwd=REPOSITORY,
            env={**self.env, **env},
            stdout=log.open("a") if log else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *words: str | Path, **env: str) -> Finished:
        process = self.start(*words, **env)
        text, _ = process.communicate(timeout=1800)
        return Finished(process.returncode, text)

    def run(self, case: "SmallCase", *words: str, **env: str) -> Finished:
        truth = ["--ground-truth", str(case.truth / "cameras.npz")]
        truth += ["--ground-truth-mesh", str(case.truth / "mesh_gt.ply")]
        return self("run", case.photos, "-o", case.out, "--config", SMALL, *truth, *words, **env)

    def ask(self, what: str, body: dict[str, Any] | None = None) -> Any:
        """The server's answer, which may keep one waiting: the tests' database is SQLite."""
        return ask(f"{self.api_url}/{what}", body)

    def task_states(self, case: "SmallCase") -> dict[str, str]:
        """Prefect's own word on every stage of the last run, by stage."""
        run_id = CaseFolder(case.out).load_record().flow_run_id
        runs = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {run["name"].split()[0]: run["state_name"] for run in runs}


@dataclass(frozen=True)
class SmallCase:
    """Photos with truth, and an output folder of one's own."""

    photos: Path
    truth: Path
    out: Path

    @property
    def folder(self) -> CaseFolder:
        return CaseFolder(self.out)

    def keys(self) -> dict[str, str]:
        return self.folder.load_record().keys

    def manifests(self) -> dict[str, Any]:
        """The manifest behind every stage's current result."""
        found = {n: self.folder.store.find(n, key)[0] for n, key in self.keys().items()}
        return {name: manifest for name, manifest in found.items() if manifest}


def refuse(*words: str | Path) -> Finished:
    """Run a command that is expected to end before anything starts, in this process."""
    said = io.StringIO()
    argv, sys.argv = sys.argv, ["porf", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.argv = argv
    return Finished(code, said.getvalue())


def command(photos: Path, out: Path, words: list[str]) -> list[str | Path]:
    return ["run", photos, "-o", out, "--config", SMALL, *words]


def until(true: Callable[[], object], seconds: float) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
