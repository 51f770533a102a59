"""A server that is killed before a run has begun, or together with who started it."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from flows.request import RunRequest
from flows.run_flow import run_flow
from flows.server import _free_port, _local_server
from tests.flows.harness import REPOSITORY


def test_a_server_that_is_gone_before_the_run_is_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORF_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{_free_port()}/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    monkeypatch.setattr("flows.server.is_healthy", lambda *_, **__: True)
    failure = run_flow(RunRequest(photos=tmp_path, out=tmp_path / "out"))
    assert failure
    assert "the Prefect server went away" in failure.message


@pytest.mark.slow
def test_a_server_whose_starter_was_killed_is_taken_over(tmp_path: Path) -> None:
    with (tmp_path / "server.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        port = _free_port()
        command = [sys.executable, "-m", "flows.server", str(tmp_path), str(port)]
        watcher = subprocess.Popen(command, cwd=REPOSITORY)
        while not (tmp_path / "server.json").exists():
            assert watcher.poll() is None
        with _local_server(tmp_path) as url:
            assert url == f"http://127.0.0.1:{port}/api"
            second = [*command[:-1], str(_free_port())]
            assert subprocess.run(second, cwd=REPOSITORY, timeout=60, check=False).returncode == 0
    assert watcher.wait(60) == 0
