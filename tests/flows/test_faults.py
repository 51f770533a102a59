"""kill -9 of anything at any moment: the same command finishes, with byte-identical results."""

import fcntl
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.registry import STAGES
from tests.flows.aftermath import clean, contents, made, so_far, states
from tests.flows.harness import ONE_THREAD, SHORT, WHOLE, Porf, SmallCase, command, refuse, until
from tests.flows.processes import children_of, kill, pids, stage_pids

VICTIMS = {"command": 2, "stage": 2, "server": 1}
"""How often each is drawn; a server takes as long to start as some stages to compute."""
KILLS_A_SEED = 10


def victims(kind: str, process: "subprocess.Popen[str]", out: Path, home: Path) -> list[int]:
    if kind == "stage":
        return stage_pids(out)
    if kind == "server":
        return [child for pid in pids("flows.server", str(home)) for child in children_of(pid)]
    return [process.pid]


def kill_at(
    kind: str, process: "subprocess.Popen[str]", out: Path, home: Path, after_s: float
) -> bool:
    """Kill once the moment has come and there is something to kill; False if it ended before."""
    began = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began >= after_s and kill(victims(kind, process, out, home)):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def undisturbed(
    porf: Porf, photos_and_truth: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict[str, str]], float]:
    """Contents and seconds of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    finished = porf(*command(photos_and_truth / "photos", out, SHORT), **ONE_THREAD)
    assert finished.code == 0, finished.text
    return contents(out), time.monotonic() - began


@pytest.mark.parametrize(("kind", "seed"), [("command", 1), ("stage", 2)])
def test_a_kill_at_a_random_moment(
    porf: Porf,
    photos_and_truth: Path,
    undisturbed: tuple[dict[str, dict[str, str]], float],
    tmp_path: Path,
    kind: str,
    seed: int,
) -> None:
    expected, duration_s = undisturbed
    words = command(photos_and_truth / "photos", tmp_path / "out", SHORT)
    process = porf.start(*words, **ONE_THREAD)
    moment_s = random.Random(seed).uniform(0.2, 0.7) * duration_s
    kill_at(kind, process, tmp_path / "out", Path(porf.env["PORF_HOME"]), moment_s)
    text, _ = process.communicate(timeout=600)
    assert "Traceback" not in text
    finished = porf(*words, **ONE_THREAD)
    assert finished.code == 0, finished.text
    assert contents(tmp_path / "out") == expected
    clean(tmp_path / "out")


@pytest.mark.slow
def test_a_server_that_dies_is_started_again_under_the_run(
    porf: Porf,
    photos_and_truth: Path,
    undisturbed: tuple[dict[str, dict[str, str]], float],
    tmp_path: Path,
) -> None:
    words = command(photos_and_truth / "photos", tmp_path / "out", SHORT)
    own = {**ONE_THREAD, "PORF_HOME": str(tmp_path / "home")}
    process = porf.start(*words, **own)
    until(lambda: stage_pids(tmp_path), 600)
    kill(victims("server", process, tmp_path / "out", tmp_path / "home"))
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert "Traceback" not in text
    assert contents(tmp_path / "out") == undisturbed[0]
    clean(tmp_path / "out")
    assert states(tmp_path / "home") == {"COMPLETED"}


@dataclass(frozen=True)
class Undisturbed:
    """A run of all stages that nothing happened to, and the home whose server it used.

    Attributes:
        porf: commands with that home.
        expected: files by stage.
        duration_s: how long it took, the start of its server included.
    """

    porf: Porf
    home: Path
    expected: dict[str, dict[str, str]]
    duration_s: float


@pytest.fixture(scope="module")
def whole(
    photos_and_truth: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    """One such run; the server stays up until all tests that use it have ended."""
    folder = tmp_path_factory.mktemp("whole")
    home = folder / "home"
    env = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PREFECT_HOME")}
    porf = Porf({**env, **ONE_THREAD, "PORF_HOME": str(home), "NO_COLOR": "1"}, "")
    (home / "prefect").mkdir(parents=True)
    with (home / "prefect" / "server.users").open("a") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_SH)  # as another run would
        began = time.monotonic()
        finished = porf(*command(photos_and_truth / "photos", folder / "out", WHOLE))
        assert finished.code == 0, finished.text
        yield Undisturbed(porf, home, contents(folder / "out"), time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_fifty_kills(photos_and_truth: Path, whole: Undisturbed, tmp_path: Path, seed: int) -> None:
    """Ten for each seed: of the command, of stages and of the server, at moments drawn at random.

    The same command is typed until the run is finished; a run outlives several kills.
    """
    out, drawn, killed = tmp_path / "out", random.Random(seed), 0
    words = command(photos_and_truth / "photos", out, WHOLE)
    process, before = whole.porf.start(*words), made(out)
    while killed < KILLS_A_SEED:
        kind = drawn.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        after_s = drawn.uniform(0, 0.1) * whole.duration_s
        hit = kill_at(kind, process, out, whole.home, after_s)
        killed += hit
        if hit:
            told = f"seed {seed}, kill {killed}: {kind}; made until then: {so_far(out)}"
            print(f"{time.strftime('%H:%M:%S')} {told}", flush=True)
        if hit and kind != "command":
            continue  # the command goes on by itself: stages and servers are started again
        text, _ = process.communicate(timeout=1800)
        assert "Traceback" not in text, (kind, text)
        if process.returncode == 0:
            assert contents(out) == whole.expected
            clean(out)
            print(f"{time.strftime('%H:%M:%S')} seed {seed}: finished, byte-identical", flush=True)
            shutil.rmtree(out)
            before = {}
        assert before.items() <= made(out).items(), "what was made was made again"
        before = made(out)
        process = whole.porf.start(*words)
    text, _ = process.communicate(timeout=1800)
    assert "Traceback" not in text
    if process.returncode:  # the last kill was of the command, or of a stage or server too often
        finished = whole.porf(*words)
        assert finished.code == 0, finished.text
    assert contents(out) == whole.expected
    assert before.items() <= made(out).items(), "what was made was made again"
    clean(out)
    until(lambda: states(whole.home).isdisjoint({"RUNNING", "PENDING"}), 120)
    print(f"{time.strftime('%H:%M:%S')} seed {seed}: finished, byte-identical", flush=True)


def test_a_killed_command_does_not_stay_running(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    def latest_state() -> str:
        body = {"sort": "START_TIME_DESC", "limit": 1}
        runs = porf.ask("flow_runs/filter", body)
        return str(runs[0]["state_type"]) if runs[0]["id"] not in before else "not begun"

    before = {run["id"] for run in porf.ask("flow_runs/filter", {})}
    process = porf.start(*command(photos_and_truth / "photos", tmp_path / "out", SHORT))
    until(lambda: latest_state() == "RUNNING" and stage_pids(tmp_path), 300)
    process.kill()
    process.communicate()
    until(lambda: latest_state() == "CRASHED", 120)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, to be filled, resized and protected."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_disk_that_fills_up_and_is_made_larger(
    porf: Porf, photos_and_truth: Path, disk: Path
) -> None:
    words = command(photos_and_truth / "photos", disk / "out", SHORT)
    sizes = ("400k", "1m", "2m")
    for size in sizes:
        remount(disk, f"size={size}")
        finished = porf(*words, **ONE_THREAD)
        assert finished.code == 2, finished.text
        assert "disk is full" in finished.text
        assert "Traceback" not in finished.text
        assert list((disk / "out" / ".porf").glob("store/*/.*")) == []
    remount(disk, "size=50m")
    finished = porf(*words, **ONE_THREAD)
    assert finished.code == 0, finished.text
    clean(disk / "out")


@pytest.mark.slow
def test_a_disk_that_is_full_when_a_stage_begins(
    porf: Porf, photos_and_truth: Path, disk: Path
) -> None:
    """Every stage in turn finds hardly any room, then enough."""
    for stage in STAGES:
        words = command(photos_and_truth / "photos", disk / "out", [*WHOLE, "--to", stage])
        remount(disk, f"size={shutil.disk_usage(disk).used // 1024 + 16}k")
        finished = porf(*words, **ONE_THREAD)
        assert finished.code == 2, (stage, finished.text)
        assert "disk" in finished.text
        assert "Traceback" not in finished.text
        assert list((disk / "out" / ".porf").glob("store/*/.*")) == []
        remount(disk, "size=100m")
        finished = porf(*words, **ONE_THREAD)
        assert finished.code == 0, (stage, finished.text)
    clean(disk / "out")


def test_a_read_only_folder_can_be_looked_at(small_case: SmallCase, disk: Path) -> None:
    remount(disk, "size=100m")
    shutil.copytree(small_case.out, disk / "out")
    remount(disk, "ro")
    assert refuse("status", disk / "out").code == 0
    assert refuse("explain", disk / "out").code == 0
    refused = refuse("run", small_case.photos, "-o", disk / "out")
    assert refused.code == 2
    assert "read-only" in refused.text


def test_a_copy_elsewhere_of_photos_elsewhere_is_cached(
    porf: Porf, small_case: SmallCase, tmp_path: Path
) -> None:
    shutil.copytree(small_case.photos, tmp_path / "moved")
    out = shutil.copytree(small_case.out, tmp_path / "copied")
    moved = SmallCase(tmp_path / "moved", small_case.truth, Path(out))
    finished = porf.run(moved)
    assert finished.code == 0, finished.text
    assert finished.text.count("cached") == len(small_case.keys())


@pytest.mark.slow
def test_twenty_runs_at_once(porf: Porf, photos_and_truth: Path, tmp_path: Path) -> None:
    photos = photos_and_truth / "photos"
    words = ["--to", "ingest"]
    started = [porf.start("run", photos, "-o", tmp_path / str(i), *words) for i in range(20)]
    ended = [process.communicate(timeout=1800)[0] for process in started]
    assert [p.returncode for p in started] == [0] * 20, "\n".join(ended)
    first = contents(tmp_path / "0")
    assert all(contents(tmp_path / str(i)) == first for i in range(20))
