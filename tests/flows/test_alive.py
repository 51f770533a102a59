"""Runs that were killed do not stay RUNNING; living ones are left alone."""

import os
import signal
from pathlib import Path

import pytest
from prefect.states import Completed, State

from flows.alive import bury_all, bury_dead, rest, show_alive
from flows.request import RunRequest
from flows.run_flow import run_flow
from flows.server import home
from tests.flows.harness import Porf


def state_of(porf: Porf, run_id: str) -> str:
    return str(porf.ask(f"flow_runs/{run_id}")["state_type"])


@pytest.fixture
def running(porf: Porf) -> str:
    """A run that the server believes to be running."""
    flow = porf.ask("flows/", {"name": "reconstruct"})["id"]
    body = {"flow_id": flow, "state": {"type": "RUNNING"}}
    return str(porf.ask("flow_runs/", body)["id"])


def killed_while_alive(folder: Path, run_id: str) -> None:
    """A process that says it lives, and is killed."""
    child = os.fork()
    if child == 0:
        show_alive(folder, run_id, "here")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_killed_run_is_marked_as_crashed(porf: Porf, running: str, tmp_path: Path) -> None:
    killed_while_alive(tmp_path, running)
    assert bury_dead(tmp_path, "elsewhere", porf.api_url) == []
    assert state_of(porf, running) == "RUNNING"
    assert bury_dead(tmp_path, "here", porf.api_url) == [running]
    assert state_of(porf, running) == "CRASHED"
    assert bury_dead(tmp_path, "here", porf.api_url) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_living_run_is_left_alone(porf: Porf, running: str, tmp_path: Path, known: bool) -> None:
    """Until its process rests: then it is forgotten, or dead where its server was not told."""
    show_alive(tmp_path, running, "here")
    assert bury_dead(tmp_path, "here", porf.api_url) == []
    rest(known)
    assert bury_dead(tmp_path, "here", porf.api_url) == ([] if known else [running])
    assert state_of(porf, running) == ("RUNNING" if known else "CRASHED")
    assert list((tmp_path / "alive").iterdir()) == []


def test_a_run_is_seen_to_live_until_its_server_knows_how_it_ended(
    porf: Porf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its last stage and that moment, it would stay RUNNING."""
    path = home() / "alive" / "8edab853-93ce-4409-8145-bfb170bb9e89.json"
    seen = []

    def body(_: RunRequest, return_state: bool) -> State:
        show_alive(home(), path.stem, "here")
        return Completed()

    monkeypatch.setattr("flows.reconstruct.reconstruct", body)
    monkeypatch.setattr("flows.drain.flush", lambda: seen.append(path.exists()))
    monkeypatch.setattr("flows.run_flow.learn_from", lambda *_: None)
    assert run_flow(RunRequest(photos=tmp_path, out=tmp_path)) is None
    assert seen == [True]
    assert not path.exists()


def test_a_run_that_never_began_is_marked_once_nobody_is_left(
    porf: Porf, running: str, tmp_path: Path
) -> None:
    flow = porf.ask("flows/", {"name": "reconstruct"})["id"]
    other = porf.ask("flows/", {"name": "somebody's"})["id"]
    waiting, foreign = (
        str(porf.ask("flow_runs/", {"flow_id": i, "state": {"type": "PENDING"}})["id"])
        for i in (flow, other)
    )
    show_alive(tmp_path, running, "elsewhere")
    bury_all(tmp_path, porf.api_url)
    rest(known=True)
    found = [state_of(porf, run) for run in (waiting, foreign, running)]
    assert found == ["CRASHED", "PENDING", "RUNNING"]


def test_what_no_server_answers_for_waits(tmp_path: Path) -> None:
    killed_while_alive(tmp_path, "8edab853-93ce-4409-8145-bfb170bb9e89")
    (tmp_path / "alive" / "bad.json").write_text("{")
    assert bury_dead(tmp_path, "here", "http://127.0.0.1:9/api") == []
    assert len(list((tmp_path / "alive").iterdir())) == 2
    show_alive(tmp_path, None, "here")
