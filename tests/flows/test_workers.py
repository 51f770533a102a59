"""A real server, deployments, and a real worker on a small case."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.remote.deploy import RULES
from flows.remote.places import POOLS
from flows.remote.watch_flow import submit_new_cases
from tests.flows.aftermath import clean, contents, made
from tests.flows.harness import ONE_THREAD, SHORT, SMALL, Porf, SmallCase, until
from tests.flows.processes import kill, pids, stage_pids
from tests.flows.services import (
    free_port,
    postgres,
    run_id,
    running_service,
    states_by_id,
    waiting_run_id,
)

GOING_ON = ("SCHEDULED", "PENDING", "RUNNING")


@pytest.fixture(scope="module")
def deployed(porf: Porf) -> Porf:
    """The session's server, with everything deployed twice."""
    there = Porf({**porf.env, "PREFECT_API_URL": porf.api_url}, porf.api_url)
    for _ in range(2):
        finished = there("deploy", "--cpu-limit", "3")
        assert finished.code == 0, finished.text
    return there


def test_deploying_again_changes_nothing(deployed: Porf) -> None:
    def named(kind: str, **body: object) -> list[dict]:
        return [item for item in deployed.ask(f"{kind}/filter", body) if isinstance(item, dict)]

    pools = {p["name"]: p["concurrency_limit"] for p in named("work_pools")}
    assert pools["porf-cpu"] == 3
    assert pools["porf-gpu"] is None
    for pool in POOLS:
        queues = deployed.ask(f"work_pools/{pool}/queues/filter", {})
        assert {q["name"]: q["priority"] for q in queues} == {"urgent": 1, "default": 2}
    deployments = [d for d in named("deployments") if d["work_pool_name"] in POOLS]
    assert sorted(d["name"] for d in deployments) == sorted(POOLS.values())
    form = deployments[0]["parameter_openapi_schema"]["definitions"]["Case"]["properties"]
    assert form["photos"]["description"].startswith("folder of photos")
    rules = sorted(a["name"] for a in named("automations"))
    assert rules == sorted(rule.name for rule in RULES)


def test_a_folder_is_watched_by_a_schedule(deployed: Porf, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    words = ["deploy", "--watch", inbox, "-o", tmp_path / "out", "--pool", "cpu"]
    for bad, told in (
        (["--cron", "tonight"], "no cron schedule"),
        (["--every", "0s"], "every 0 s"),
        (["--every", "1h", "--cron", "0 20 * * *"], "either"),
        (["--set", "train.setps=1"], "did you mean 'train.steps'"),
    ):
        refused = deployed(*words, *bad)
        assert (refused.code, told in refused.text) == (2, True), refused.text
    for _ in range(2):
        assert deployed(*words, "--every", "1h", "--set", "train.steps=7").code == 0
    (found,) = [
        d
        for d in deployed.ask("deployments/filter", {})
        if d["parameters"].get("folder") == str(inbox)
    ]
    assert found["work_pool_name"] == found["parameters"]["pool"] == "porf-cpu"
    assert found["parameters"]["options"] == {"train.steps": 7}
    assert [s["schedule"]["interval"] for s in found["schedules"]] == [3600]


def test_a_queued_run_is_listed_cancelled_and_queued_again(
    deployed: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos = photos_and_truth / "photos"
    bad = deployed("submit", photos, "-o", tmp_path / "out", "--set", "train.setps=1")
    assert bad.code == 2
    assert "did you mean 'train.steps'" in bad.text
    words = ["submit", photos, "-o", tmp_path / "out", "--pool", "cpu", "--urgent"]
    submitted = deployed(*words)
    assert submitted.code == 0, submitted.text
    first = run_id(submitted.text)
    listed = next(line for line in deployed("runs").text.splitlines() if first[:8] in line)
    assert f"{photos.parent.name} @ fast" in listed
    assert first[:8] not in deployed("runs", "--state", "crashed").text
    assert "did you mean 'failed'" in deployed("runs", "--state", "fialed").text
    early = deployed("retry", first[:8])
    assert early.code == 2
    assert "has not ended" in early.text
    assert "Cancel" in deployed("cancel", first).text
    again = run_id(deployed("retry", first, "--from", "sfm").text)
    assert again != first
    queued = deployed.ask(f"flow_runs/{again}")
    assert queued["parameters"]["case"]["start"] == "sfm"
    assert queued["work_queue_name"] == "urgent"
    assert deployed("logs", again).code == 0
    assert "names no run" in deployed("cancel", "no such run").text
    assert "did you mean 'mesh'" in deployed("retry", first, "--from", "messh").text
    deployed("cancel", again)


def test_a_run_of_a_terminal_cannot_be_cancelled_from_elsewhere(
    deployed: Porf, small_case: SmallCase
) -> None:
    local = str(small_case.folder.load_record().flow_run_id)
    refused = deployed("cancel", local)
    assert refused.code == 2
    assert "terminal" in refused.text


def test_submit_waits_until_every_run_has_ended(
    deployed: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    def submit(*folders: Path) -> "subprocess.Popen[str]":
        return deployed.start("submit", *folders, "-o", tmp_path / "out", "--pool", "cpu", "--wait")

    def end(run: str, kind: str) -> None:
        state = {"type": kind, "message": f"[red]{kind.lower()} by the test{reason}"}
        deployed.ask(f"flow_runs/{run}/set_state", {"state": state, "force": True})

    photos, reason = photos_and_truth / "photos", " for a long reason" * 10
    both, alone = submit(photos, tmp_path / "other"), submit(photos)
    first, second, third = (waiting_run_id(process) for process in (both, both, alone))
    end(first, "COMPLETED")
    end(third, "COMPLETED")
    text, _ = alone.communicate(timeout=120)
    assert (alone.returncode, both.poll()) == (0, None), text
    assert f"{third[:8]}  {photos.parent.name} @ fast  completed: [red]completed by" in text
    end(second, "FAILED")
    text, _ = both.communicate(timeout=120)
    assert both.returncode == 1, text
    told = [line for line in text.splitlines() if " by the test" in line]
    assert [line.split()[0] for line in told] == [first[:8], second[:8]]
    assert "other @ fast  failed: [red]failed by the test" in told[1]
    assert f"[red]failed by the test{reason}" in deployed("runs", "--state", "failed").text


def test_a_log_is_followed_until_its_run_has_ended(
    deployed: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    def write(text: str) -> None:
        line = {"name": "test", "level": 20, "message": text, "flow_run_id": run}
        now = datetime.now(UTC).isoformat()
        logged = httpx.post(f"{deployed.api_url}/logs/", json=[{**line, "timestamp": now}])
        assert logged.status_code == 201, logged.text

    photos = photos_and_truth / "photos"
    run = run_id(deployed("submit", photos, "-o", tmp_path / "out", "--pool", "cpu").text)
    write("the [red]first line")
    following = deployed.start("logs", run[:8], "--follow")
    assert following.stdout
    assert any("the [red]first line" in line for line in following.stdout)
    write("the last line")
    assert following.poll() is None
    state = {"state": {"type": "COMPLETED"}, "force": True}
    deployed.ask(f"flow_runs/{run}/set_state", state)
    text, _ = following.communicate(timeout=120)
    assert (following.returncode, "the last line" in text, "first" in text) == (0, True, False)


def test_a_watched_case_is_queued_once_by_whoever_looks(
    deployed: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    shutil.copytree(photos_and_truth / "photos", inbox / "one")

    def look() -> str:
        words = ("watch", inbox, "-o", out, "--submit", "--pool", "cpu", "--once", "--quiet", "0s")
        return run_id(deployed(*words).text)

    first = look()
    with temporary_settings({PREFECT_API_URL: deployed.api_url}):
        by_schedule = submit_new_cases(inbox, out, pool="porf-cpu", quiet_s=0)
    assert by_schedule == {"one": first}
    next((inbox / "one").iterdir()).unlink()
    assert look() != first
    assert deployed.ask(f"flow_runs/{first}")["parameters"]["case"]["out"] == str(out / "one")


def test_a_worker_of_a_script_ends_when_it_is_asked_to(deployed: Porf, tmp_path: Path) -> None:
    """The shell of a script ignores SIGINT for what it runs in the background."""
    log = tmp_path / "log"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # nothing is queued for workers with a GPU
        worker = deployed.start("worker", "--gpu", "0", "--name", "desk", log=log)
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: "started!" in log.read_text(), 120)
    worker.terminate()
    assert worker.wait(60) == 0, log.read_text()
    assert "Worker 'desk' stopped!" in log.read_text()


@pytest.fixture(params=["sqlite", "postgres"])
def service(porf: Porf, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Porf]:
    """A server of its own, as `porf server` runs it, with a password."""
    with ExitStack() as stack:
        database = {}
        if request.param == "postgres":
            url = stack.enter_context(postgres()).url
            database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        yield stack.enter_context(running_service(porf, tmp_path, database))


@pytest.mark.slow
def test_a_worker_works_off_what_was_submitted(
    service: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos, out = photos_and_truth / "photos", tmp_path / "out"
    assert httpx.post(f"{service.api_url}/flow_runs/filter", json={}).status_code == 401
    assert service("runs", PREFECT_API_AUTH_STRING="porf:wrong").code == 2
    assert service("deploy").code == 0
    waiting = service.start("submit", photos, "-o", out, "--to", "ingest", "--wait")
    first = waiting_run_id(waiting)
    worked = service("worker", "--once", "--limit", "1")
    assert worked.code == 0, worked.text
    waited, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, "completed" in waited) == (0, True), waited
    assert "completed" in service("runs").text
    said = service("logs", first).text
    assert "ingest starts: not made yet" in said
    assert "secret" not in said + worked.text
    again = run_id(service("retry", first).text)
    assert service("worker", "--once", "--limit", "1").code == 0
    assert "ingest: cached" in service("logs", again).text
    waiting = service.start("submit", tmp_path / "absent", "-o", tmp_path / "out2", "--wait")
    wrong = waiting_run_id(waiting)
    service("worker", "--once", "--limit", "1")
    waited, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, "does not exist" in waited) == (1, True), waited
    told = service("logs", wrong).text
    assert "does not exist" in told
    assert "Traceback" not in told
    assert "does not exist" in service("runs", "--state", "failed", COLUMNS="200").text
    for path in (out / ".porf").rglob("*.json"):
        assert b"secret" not in path.read_bytes()


@pytest.mark.slow
def test_postgres_is_killed_and_comes_back(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos, out = photos_and_truth / "photos", tmp_path / "out"
    words = ["run", photos, "-o", out, "--config", SMALL, "--to", "scene"]
    with postgres() as database:
        url = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url}
        with running_service(porf, tmp_path, url) as service:
            there = {"PREFECT_API_URL": service.api_url}
            process = service.start(*words, **there)
            for _ in range(1200):
                if (out / ".porf" / "work" / "sfm").is_dir():
                    break
                time.sleep(0.25)
            database.kill()
            time.sleep(10)
            database.start()
            text, _ = process.communicate(timeout=600)
            print(f"the run that was disturbed ended with code {process.returncode}")
            assert "Traceback" not in text, text
            finished = service(*words, **there)
            assert finished.code == 0, finished.text
            states = set(states_by_id(service).values())
    assert states <= {"COMPLETED", "CRASHED", "FAILED"}


@pytest.mark.slow
@pytest.mark.parametrize("power_cut", [False, True])
def test_a_killed_worker_loses_no_result(
    porf: Porf, photos_and_truth: Path, tmp_path: Path, power_cut: bool
) -> None:
    """Killed alone, its run goes on and ends; killed with all its processes, a retry goes on."""
    photos, out = photos_and_truth / "photos", tmp_path / "out"
    with running_service(porf, tmp_path, {}) as service:
        assert service("deploy").code == 0
        short = [*SHORT, "-o", out]
        run = run_id(service("submit", photos, *short, **ONE_THREAD).text)
        health = free_port()
        words = ("worker", "--limit", "1", "--health-port", str(health))
        worker = service.start(*words, log=tmp_path / "worker.log", **ONE_THREAD)
        until(lambda: made(out) and stage_pids(out), 900)
        answer = httpx.get(f"http://127.0.0.1:{health}/health", timeout=60)
        assert answer.status_code == 200
        below = psutil.Process(worker.pid).children(recursive=True)
        for process in [psutil.Process(worker.pid), *(below if power_cut else [])]:
            process.kill()
        worker.wait()
        until(lambda: states_by_id(service)[run] not in GOING_ON, 120 if power_cut else 900)
        before = made(out)
        if power_cut:
            assert states_by_id(service)[run] == "CRASHED"
            run = run_id(service("retry", run).text)
            assert service("worker", "--once", "--limit", "1", **ONE_THREAD).code == 0
        assert states_by_id(service)[run] == "COMPLETED"
        assert before.items() <= made(out).items(), "what was made was made again"
        undisturbed = service("run", photos, *SHORT, "-o", tmp_path / "other", **ONE_THREAD)
        assert undisturbed.code == 0, undisturbed.text
    assert contents(out) == contents(tmp_path / "other")
    clean(out)


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_under_a_run(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos, out, port = photos_and_truth / "photos", tmp_path / "out", free_port()
    with running_service(porf, tmp_path, {}, port) as first:
        there = {**ONE_THREAD, "PREFECT_API_URL": first.api_url}
        process = first.start("run", photos, *SHORT, "-o", out, **there)
        until(lambda: stage_pids(out), 600)
        kill(pids("flows.cli", "server", f"--port {port}"))
    time.sleep(5)
    with running_service(porf, tmp_path, {}, port) as second:
        text, _ = process.communicate(timeout=900)
        assert process.returncode == 0, text
        assert "Traceback" not in text
        assert set(states_by_id(second).values()) == {"COMPLETED"}
    clean(out)
