"""A wall clock that jumps by an hour, during runs and between them."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from flows.batch.page import THUMBNAILS, write_page
from flows.batch.record import BatchRecord, RunResult
from flows.case_folder import CaseFolder, RunRecord
from tests.flows.aftermath import clean, contents, made, states
from tests.flows.harness import ONE_THREAD, SHORT, Porf, command
from tests.flows.processes import stage_pids

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
    while not stage_pids(out):
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


def test_a_thumbnail_follows_its_report_though_the_clock_went_back(tmp_path: Path) -> None:
    folder = CaseFolder(tmp_path / "case")
    folder.create()
    record = RunRecord(photos="p", external={}, preset="fast", settings={}, keys={"report": "k"})
    folder.save_record(record)
    picture = folder.store.artifact("report", "k") / "pictures" / "mesh.png"
    picture.parent.mkdir(parents=True)
    result = RunResult(name="case", case="c", preset="fast", seed=0, photos="p", status="done")
    shown = []
    for hour, colour in enumerate(("red", "blue")):
        Image.new("RGB", (64, 48), colour).save(picture)
        before_s = time.time() - hour * HOUR_S  # the second report seems to be older
        os.utime(picture, (before_s, before_s))
        write_page(tmp_path, BatchRecord(source="s", runs=[result]))
        (thumbnail,) = (tmp_path / THUMBNAILS).iterdir()
        shown.append(Image.open(thumbnail).convert("RGB").getpixel((30, 20)))
    assert shown[0][0] > 200
    assert shown[1][0] < 50
