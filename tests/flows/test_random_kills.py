"""kill -9 of whatever serves submitted runs, at random moments; nothing is lost."""

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.aftermath import clean, contents, made, so_far
from tests.flows.harness import SMALL, WHOLE, Finished, Porf, until
from tests.flows.processes import kill, stage_pids
from tests.flows.services import Postgres, free_port, postgres, run_id, service_at, states_by_id

KILLS = 12
KINDS = ("worker", "worker and its runs", "postgres", "server", "stage")
RESTART_S = 2.0
PATIENCE_S = 900
"""Until a server that was killed answers again, or a run that nobody disturbs any more ends."""
DEAD_S = 120
"""No run without a living process may stay RUNNING for longer."""
BEGIN_S = 120
"""A run that was taken and does not begin within this time is submitted again."""


class Site:
    """Postgres, server and worker, each started again some seconds after it died, as by systemd."""

    def __init__(self, porf: Porf, folder: Path, database: Postgres) -> None:
        url = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url}
        port = free_port()
        self.porf = service_at(porf, folder, url, port)
        self._home = self.porf.env["PORF_HOME"]
        self._database = database
        self._there = {"PREFECT_API_URL": self.porf.api_url}
        one_thread_each = ("--limit", str(os.cpu_count()))
        self._words = {"server": ("--port", str(port)), "worker": one_thread_each}
        self._logs = folder
        self._up: dict[str, subprocess.Popen[str]] = {}
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """While this lasts, what dies is started again."""
        self._start_again("server")
        self.healthy()
        self("deploy")
        self._start_again("worker")
        self._keeper.start()
        try:
            yield
        finally:
            self._ended.set()
            self._keeper.join()
            kill([self._up["worker"].pid, *self._of_runs(), self._up["server"].pid])

    def _start_again(self, name: str) -> None:
        own = self._there if name == "worker" else {}
        log = self._logs / f"{name}.log"
        self._up[name] = self.porf.start(name, *self._words[name], log=log, **own)

    def _keep(self) -> None:
        while not self._ended.wait(RESTART_S):
            if not self._database.alive:
                self._database.start()
            for name in ("server", "worker"):
                if self._up[name].poll() is not None:
                    self._start_again(name)

    def __call__(self, *words: str | Path) -> Finished:
        """A command, until the server answers it."""
        end = time.monotonic() + PATIENCE_S
        while (finished := self.porf(*words, **self._there)).code:
            assert "Traceback" not in finished.text, finished.text
            assert time.monotonic() < end, finished.text
            time.sleep(2)
        return finished

    def healthy(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self.porf.api_url}/health", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        until(answers, PATIENCE_S)

    def states(self) -> dict[str, str]:
        """Of all runs, once the server answers."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return states_by_id(self.porf)
            except (httpx.HTTPError, TypeError, ValueError):
                assert time.monotonic() < end
                time.sleep(1)

    def _of_runs(self) -> list[int]:
        """Processes of runs and their stages, also of those whose worker is dead already."""
        known = {process.pid for process in self._up.values()}
        return [
            process.pid
            for process in psutil.process_iter(["environ", "cmdline"])
            if (process.info["environ"] or {}).get("PORF_HOME") == self._home
            and process.pid not in known
            and any(w in " ".join(process.info["cmdline"] or []) for w in ("prefect", "stages."))
        ]

    def works(self) -> bool:
        """Whether a process of any run lives."""
        return bool(self._of_runs())

    def kill(self, kind: str, out: Path) -> bool:
        """kill -9; whether there was anybody to kill."""
        if kind == "stage":
            return kill(stage_pids(out))
        if kind == "postgres":
            there = self._database.alive
            if there:
                self._database.kill()
            return there
        victims = [self._up[kind.split(maxsplit=1)[0]].pid]
        if kind == "worker and its runs":
            victims += self._of_runs()
        return kill(victims)


@dataclass
class Case:
    """A submitted case, and the user who looks after it: retries what crashed, submits again."""

    site: Site
    photos: Path
    out: Path
    run: str = ""
    submitted: int = 0
    _since: dict[str, float] = field(default_factory=dict)

    def submit(self) -> None:
        words = ["submit", self.photos, "-o", self.out, "--config", SMALL, *WHOLE]
        self._go_on_with(run_id(self.site(*words).text))

    def _go_on_with(self, run: str) -> None:
        self.run, self._since = run, {}
        self.submitted += 1

    def look(self) -> bool:
        """Do what the state asks for; True once the case is complete."""
        state = self.site.states()[self.run]
        if state == "COMPLETED":
            return True
        if state in ("CRASHED", "FAILED"):
            told(f"run is {state}: retried")
            self._go_on_with(run_id(self.site("retry", self.run).text))
        elif state == "PENDING" and self._lasts("pending", True) > BEGIN_S:
            told("run was taken and not begun: submitted again")
            self.submit()
        dead = state == "RUNNING" and not self.site.works()
        assert self._lasts("dead", dead) < DEAD_S, "a dead run stays RUNNING"
        return False

    def has_no_server(self) -> None:
        """Nobody can mark a run meanwhile: what lasts too long is counted from now."""
        self._since.clear()

    def _lasts(self, what: str, true: bool) -> float:
        """Seconds since something has been true without a break."""
        now = time.monotonic()
        if not true:
            self._since.pop(what, None)
        return now - self._since.setdefault(what, now) if true else 0.0


def told(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


@pytest.mark.slow
def test_kills_of_worker_postgres_server_and_stages(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    """The case is submitted once and looked after as a user would; a new one once it is complete.

    Kills fall at moments drawn over its run, whatever happens then.
    """
    photos, drawn, killed = photos_and_truth / "photos", random.Random(6), 0
    with postgres() as database:
        site = Site(porf, tmp_path, database)
        with site.kept_up():
            began = time.monotonic()
            case = Case(site, photos, tmp_path / "undisturbed")
            case.submit()
            until(case.look, PATIENCE_S)
            whole_s, expected = time.monotonic() - began, contents(case.out)
            told(f"undisturbed: {whole_s:.0f} s, submitted {case.submitted} times")
            case = Case(site, photos, tmp_path / "out")
            case.submit()
            before: dict[str, str] = {}
            while killed < KILLS:
                kind = drawn.choice(KINDS)
                moment = time.monotonic() + drawn.uniform(0, 0.2) * whole_s
                hit = complete = False
                while not (hit or complete):
                    complete = case.look()
                    hit = time.monotonic() >= moment and site.kill(kind, case.out)
                    time.sleep(0.5)
                killed += hit
                if hit:
                    if kind in ("postgres", "server"):
                        case.has_no_server()
                    told(f"kill {killed}: {kind}; made until then: {so_far(case.out)}")
                assert before.items() <= made(case.out).items(), "what was made was made again"
                before = made(case.out)
                if complete:
                    judge(case, expected)
                    before = {}
                    case.submit()
            until(case.look, PATIENCE_S)
            assert before.items() <= made(case.out).items(), "what was made was made again"
            judge(case, expected)
            until(lambda: "RUNNING" not in site.states().values(), DEAD_S)


def judge(case: Case, expected: dict[str, dict[str, str]]) -> None:
    """A complete case: the same files, and nothing left over."""
    until(lambda: not case.site.works(), DEAD_S)
    assert contents(case.out) == expected
    clean(case.out)
    told(f"complete after {case.submitted} submissions: byte-identical, nothing left over")
    shutil.rmtree(case.out)
