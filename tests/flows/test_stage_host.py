"""Stages as forks of one process that has loaded their libraries."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import stage_host
from flows.stage_process import StageCrashed, run_stage_process
from pipeline.imaging.config import IngestConfig
from stages.process import StageRequest
from stages.registry import STAGES
from tests.flows.harness import REPOSITORY, until
from tests.flows.processes import kill, parent_of, pids, stage_pids

Make = Callable[[str], StageRequest]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Requests for an ingest of about a second, each in a folder of its own."""
    stage_host.close_idle()  # one of this test's own comes instead
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        picture = noise.integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
        Image.fromarray(picture).save(photos / f"{number}.jpg")

    def request(name: str) -> StageRequest:
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        out.mkdir(parents=True)
        work.mkdir()
        options = IngestConfig().model_dump(mode="json")
        return StageRequest(
            stage="ingest",
            options=options,
            seed=0,
            inputs={},
            external={"photos": photos},
            out=out,
            work=work,
            outcome=work / "outcome.json",
        )

    yield request
    stage_host.close_idle()
    assert not pids("stages.host", str(tmp_path))


def killer(find: Callable[[], list[int]]) -> threading.Thread:
    """Kills as soon as there is somebody to kill."""
    thread = threading.Thread(target=until, args=(lambda: kill(find()), 60))
    thread.start()
    return thread


def test_stages_are_forks_of_one_process(make: Make, tmp_path: Path) -> None:
    first = run_stage_process(make("first"), lambda event: None)
    (host,) = pids("stages.host", str(tmp_path))
    seen: set[int] = set()
    watcher = killer(lambda: stage_pids(tmp_path))  # the second one is killed …
    with pytest.raises(StageCrashed, match="SIGKILL"):
        run_stage_process(make("second"), lambda event: None)
    watcher.join()
    third = run_stage_process(  # … and the host does not mind
        make("third"), lambda event: seen.update(map(parent_of, stage_pids(tmp_path)))
    )
    assert seen == {host}
    assert pids("stages.host", str(tmp_path)) == [host]
    assert third["verdict"] == first["verdict"]
    assert 0.5 < third["peak_memory_mb"] / first["peak_memory_mb"] < 2


def test_a_host_that_is_killed_takes_its_stage_along(make: Make, tmp_path: Path) -> None:
    watcher = killer(lambda: [parent_of(pid) for pid in stage_pids(tmp_path)])
    with pytest.raises(StageCrashed, match="SIGKILL"):
        run_stage_process(make("first"), lambda event: None)
    watcher.join()
    until(lambda: not pids("stages.host", str(tmp_path)), 10)
    assert run_stage_process(make("second"), lambda event: None)["verdict"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stage_that_nobody_can_hear_ends(make: Make, tmp_path: Path) -> None:
    def deaf(event: object) -> None:
        raise ValueError("expected by this test")

    with pytest.raises(StageCrashed):
        run_stage_process(make("first"), deaf)
    until(lambda: not pids("stages.host", str(tmp_path)), 10)


def test_no_stage_touches_a_gpu_before_it_is_a_process_of_its_own() -> None:
    """CUDA cannot be used in a fork of a process that has begun to use it."""
    code = "import torch\ndef refuse(*_): raise SystemExit('a GPU was asked for')\n"
    for name in ("is_available", "device_count", "_lazy_init", "init"):
        code += f"torch.cuda.{name} = refuse\n"
    code += f"import {', '.join(f'stages.{name}' for name in STAGES)}\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
