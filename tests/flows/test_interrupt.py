"""Ctrl-C and SIGTERM in the middle of COLMAP's long calls: the run ends, and can go on."""

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows.harness import Porf, SmallCase, until
from tests.flows.processes import left_over
from tests.sfm.box_scene import write_box_photos

VIEWS = 14


def _features_begun(work: Path) -> bool:
    return (work / "working.db").exists()


def _matching_begun(work: Path) -> bool:
    return (work / "pairs.txt").exists() or _mapping_begun(work)


def _mapping_begun(work: Path) -> bool:
    return (work / "database.db").exists()  # written right before mapping


def _free(lock: Path) -> bool:
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "photos"
    write_box_photos(folder, views=VIEWS, width=500, height=375)
    return folder


@pytest.mark.parametrize(
    ("begun", "number"),
    [
        pytest.param(_features_begun, signal.SIGINT, id="features-ctrl-c", marks=pytest.mark.slow),
        pytest.param(_matching_begun, signal.SIGINT, id="matching-ctrl-c", marks=pytest.mark.slow),
        pytest.param(_mapping_begun, signal.SIGTERM, id="mapping-sigterm"),
    ],
)
def test_sfm_can_be_interrupted_and_goes_on(
    porf: Porf,
    photos: Path,
    tmp_path: Path,
    begun: Callable[[Path], bool],
    number: signal.Signals,
) -> None:
    out = tmp_path / "out"
    words = ["run", str(photos), "-o", str(out), "--to", "sfm", "--set", "sfm.threads=1"]
    process = porf.start(*words)
    folder = out / ".porf" / "work" / "sfm"

    def has_begun() -> bool:
        assert process.poll() is None, "it ended before"
        return any(begun(work) for work in folder.glob("*/whole"))

    until(has_begun, 900)
    signalled = time.monotonic()
    process.send_signal(number)
    text, _ = process.communicate(timeout=600)
    print(f"ended {time.monotonic() - signalled:.1f} s after the signal")
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert left_over(out) == []
    locks = [Path(at) / name for at, _, names in os.walk(out) for name in names if "lock" in name]
    assert locks
    assert all(_free(lock) for lock in locks)
    finished = porf(*words)
    assert finished.code == 0, finished.text
    sfm = SmallCase(photos, photos, out).manifests()["sfm"]
    assert sfm.verdict.figures["registered"] == VIEWS
