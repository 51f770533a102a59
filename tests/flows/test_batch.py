"""A batch on a real small case: computes what is missing, never stops at a bad case."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from flows.batch.conduct import default_jobs, with_threads
from flows.batch.page import write_page
from flows.batch.record import BatchRecord, Figure, RunResult
from flows.request import RunRequest
from flows.settings import resolve
from flows.terminal import make_console
from pipeline.metrics.compare import compare_sources
from stages.registry import STAGES
from tests.flows.harness import SMALL, Finished, Porf, SmallCase, refuse
from tests.flows.processes import left_over
from tests.flows.test_scenarios import started_at, wait_for


@pytest.fixture
def batch(small_case: SmallCase, tmp_path: Path) -> Path:
    """A list of one finished case, one whose report is missing, and one without photos."""
    out = tmp_path / "results"
    (out / ".batch").mkdir(parents=True)
    for name in ("whole", "partial"):
        shutil.copytree(small_case.out, out / name)
    shutil.rmtree(out / "partial" / ".porf" / "store" / "report")
    (tmp_path / "empty").mkdir()
    truth = f"ground_truth: {small_case.truth}/cameras.npz"
    truth += f", ground_truth_mesh: {small_case.truth}/mesh_gt.ply"
    path = tmp_path / "list.yaml"
    path.write_text(
        "cases:\n"
        f"  - {{photos: {small_case.photos}, name: whole, {truth}}}\n"
        "  - {photos: empty}\n"
        f"  - {{photos: {small_case.photos}, name: partial, {truth}}}\n"
    )
    return path


def run_batch(porf: Porf, batch: Path, *words: str) -> tuple[Finished, dict[str, RunResult]]:
    out = batch.parent / "results"
    finished = porf("batch", batch, "-o", out, "--config", SMALL, *words)
    record = BatchRecord.load(out)
    assert record, finished.text
    return finished, {run.name: run for run in record.runs}


def test_only_what_is_missing_is_computed_and_failures_are_remembered(
    porf: Porf, small_case: SmallCase, batch: Path
) -> None:
    out = batch.parent / "results"
    whole = SmallCase(small_case.photos, small_case.truth, out / "whole")
    partial = SmallCase(small_case.photos, small_case.truth, out / "partial")
    before, half = started_at(whole), started_at(partial)
    finished, runs = run_batch(porf, batch)
    assert finished.code == 1
    statuses = {name: run.status for name, run in runs.items()}
    assert statuses == {"whole": "cached", "empty": "failed", "partial": "done"}
    assert started_at(whole) == before
    after = started_at(partial)
    assert {n for n in STAGES if half.get(n) != after[n]} == {"report"}
    assert "no images" in runs["empty"].message
    assert runs["partial"].views == (10, 10)
    assert isinstance(runs["whole"].figures["rotation_mean_refined"].value, float)
    page = (out / "index.html").read_text()
    assert 'href="whole/report.html"' in page
    assert (out / ".batch" / "thumbnails" / "partial.webp").is_file()
    assert "1 there already" in finished.text
    table = compare_sources([str(out)])
    assert [row.name for row in table.rows] == ["whole", "partial", "mean of fast (2 runs)"]

    again, runs = run_batch(porf, batch)
    assert "nothing has changed" in again.text
    assert {runs["whole"].status, runs["partial"].status} == {"cached"}
    shutil.rmtree(batch.parent / "empty")
    third, runs = run_batch(porf, batch, "--retry-failed")
    assert "does not exist" in runs["empty"].message
    assert "nothing has changed" not in third.text


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_runs_at_a_time_as_asked_for_each_with_its_seed(
    porf: Porf, tmp_path: Path, jobs: int
) -> None:
    """Photos that turn out to be none end a run soon."""
    case, out = tmp_path / "cases" / "bad", tmp_path / "out"
    case.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (case / name).write_text("no photo")
    words = ["--seed", "3", "--seed", "5", "--jobs", str(jobs)]
    said = porf("batch", case.parent, "-o", out, *words).text
    record = BatchRecord.load(out)
    assert record
    assert {run.name: run.seed for run in record.runs} == {"bad-seed3": 3, "bad-seed5": 5}
    both_started = max(said.index(f"bad-seed{seed} starts") for seed in (3, 5))
    assert (both_started < said.index("1/2")) == (jobs == 2)


def test_a_batch_that_is_asked_to_stop_lets_its_runs_save(
    porf: Porf, small_case: SmallCase, tmp_path: Path
) -> None:
    source, out = tmp_path / "cases", tmp_path / "results"
    shutil.copytree(small_case.photos, source / "one")
    (out / ".batch").mkdir(parents=True)
    shutil.copytree(small_case.out, out / "one")
    steps = ["--set", "train.steps=4000", "--set", "train.checkpoint_every=20"]
    process = porf.start("batch", source, "-o", out, "--config", SMALL, *steps)
    wait_for(out / "one" / ".porf" / "work" / "train", "*/log.txt")
    refused = refuse("batch", source, "-o", out)
    assert "another `porf batch`" in refused.text
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    record = BatchRecord.load(out)
    assert record
    assert record.runs[0].status == "interrupted"
    assert left_over(out) == []


def test_a_watched_case_that_fails_is_told_once(porf: Porf, tmp_path: Path) -> None:
    case = tmp_path / "inbox" / "bad"
    case.mkdir(parents=True)
    for i in range(3):
        (case / f"{i}.jpg").write_bytes(b"not a photo")
    words = ["watch", tmp_path / "inbox", "-o", tmp_path / "out", "--once", "--quiet", "0s"]
    first = porf(*words)
    assert first.code == 0, first.text
    assert "0 usable" in first.text or "no images" in first.text
    record = BatchRecord.load(tmp_path / "out")
    assert record
    assert [run.status for run in record.runs] == ["failed"]
    assert "no images" not in porf(*words).text  # nothing has changed since
    (case / "3.jpg").write_bytes(b"nor this")
    assert "3.jpg" in porf(*words).text


def test_folders_that_are_not_for_results(small_case: SmallCase, tmp_path: Path) -> None:
    (tmp_path / "cases" / "a").mkdir(parents=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    source = tmp_path / "cases"
    for out, word in ((source, "mix"), (tmp_path / "thesis", "not of a batch")):
        refused = refuse("batch", source, "-o", out)
        assert (refused.code, word in refused.text) == (2, True), refused.text
    refused = refuse("batch", source, "-o", tmp_path / "x", "--preset", "fsat")
    assert "did you mean 'fast'" in refused.text


def test_names_and_messages_cannot_break_page_or_terminal(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"\x1b[2J\u202e'
    failed = RunResult(
        name=evil, case=evil, preset="fast", seed=0, photos=evil, status="failed", message=evil
    )
    record = BatchRecord(source=f"/{evil}", runs=[failed])
    write_page(tmp_path, record)
    page = (tmp_path / "index.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    console = make_console(file=(tmp_path / "said").open("w"), force_terminal=True)
    console.print(evil, markup=False)
    console.file.close()
    assert "\x1b[2J" not in (tmp_path / "said").read_text()


def test_the_record_is_plain_json_with_units(tmp_path: Path) -> None:
    run = RunResult(
        name="a",
        case="a",
        preset="fast",
        seed=0,
        photos="/p",
        status="done",
        figures={"chamfer": Figure(value=1.5, unit="mm")},
    )
    BatchRecord(source="/cases", runs=[run]).save(tmp_path)
    plain = json.loads((tmp_path / "batch.json").read_bytes())
    assert plain["runs"][0]["figures"]["chamfer"] == {"value": 1.5, "unit": "mm"}
    (tmp_path / "batch.json").write_text("{")
    assert BatchRecord.load(tmp_path) is None  # damaged: everything is looked at anew


def test_threads_are_shared_and_change_no_result() -> None:
    settings = resolve().model_dump(mode="json")
    request = RunRequest(photos=Path("/p"), out=Path("/o"), settings=settings)
    shared = with_threads(request, 1).settings
    assert shared["sfm"]["threads"] == shared["ingest"]["threads"] == 1
    assert {**shared, "sfm": 0, "ingest": 0} == {**settings, "sfm": 0, "ingest": 0}
    assert default_jobs() >= 1
