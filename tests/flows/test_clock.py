"""A wall clock that jumps by an hour, during runs and between them."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from flows.batch.page import _picture
from flows.batch.record import RunResult
from tests.flows.harness import Porf, SmallCase
from tests.flows.test_faults import ONE_THREAD, SHORT, clean, command, contents, made, pids, states

HOUR_S = 3600


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that shifts the wall clock of the processes that it is preloaded into."""
    library = tmp_path_factory.mktemp("clock") / "jumping_clock.so"
    source = Path(__file__).with_name("jumping_clock.c")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    build = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
    subprocess.run(build, check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_during_a_run_and_after_it(
    porf: Porf, photos_and_truth: Path, jumping: Path, tmp_path: Path, jump_s: int
) -> None:
    """The command, its stages and its server see the jump; nothing else changes."""
    offset, out, home = tmp_path / "offset", tmp_path / "out", tmp_path / "home"
    offset.write_text("0")
    own = {**ONE_THREAD, "PORF_HOME": str(home)}
    own |= {"LD_PRELOAD": str(jumping), "CLOCK_OFFSET_FILE": str(offset)}
    words = command(photos_and_truth / "photos", out, SHORT)
    process = porf.start(*words, **own)
    while not pids("stages.process", str(out)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    offset.write_text(str(jump_s))
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text
    assert "Traceback" not in text
    assert states(home) == {"COMPLETED"}
    before = made(out)
    for later_s in (-jump_s, 24 * jump_s):
        offset.write_text(str(later_s))
        again = porf(*words, **own)
        assert again.code == 0, again.text
        assert again.text.count("cached") == len(contents(out))
    assert made(out) == before
    clean(out)


def test_a_thumbnail_follows_its_report_though_the_clock_went_back(
    small_case: SmallCase, tmp_path: Path
) -> None:
    result = RunResult(name="out", case="c", preset="fast", seed=0, photos="p", status="done")
    shown = tmp_path / str(_picture(tmp_path, result))
    first = shown.stat().st_mtime_ns
    picture = small_case.folder.store.artifact("report", small_case.keys()["report"])
    picture = picture / "pictures" / "mesh.png"
    assert first == picture.stat().st_mtime_ns
    an_hour_ago = first - HOUR_S * 10**9
    os.utime(picture, ns=(an_hour_ago, an_hour_ago))
    _picture(tmp_path, result)
    assert shown.stat().st_mtime_ns == an_hour_ago
