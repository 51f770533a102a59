"""Estimates near what was measured, learned from runs, and refusals that say what would fit."""

from pathlib import Path

import pytest
from PIL import Image

from flows.preflight import check
from flows.preflight.check import Room, estimate, jobs_that_fit, refuse_what_cannot_fit, room
from flows.preflight.cost import Cost, stage_cost
from flows.preflight.measured import Measurements, measured_path, remember
from flows.preflight.workload import Workload, read_workload
from flows.request import RunRequest
from flows.settings import resolve
from pipeline.errors import InputError
from pipeline.store.manifest import Manifest
from pipeline.verdict import Verdict
from stages.registry import STAGES
from tests.flows.harness import refuse
from tests.store.test_store import recipe

MEASURED = {
    # views, width, height: seconds of sfm and train, GB of sfm and train (docs/results.md)
    (49, 1600, 1200): (727, 250, 1.2, 0.9),
    (47, 640, 480): (183, 585, 0.3, 0.6),
    (11, 1600, 1067): (100, 348, 1.1, 0.7),
    (24, 640, 480): (33, 433, 0.3, 0.6),
}
BIG = Workload(views=400, megapixels=48.0, longer_side_px=8000, largest_megapixels=48.0)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORF_HOME", str(tmp_path / "home"))


def load_of(views: int, width: int, height: int) -> Workload:
    megapixels = width * height / 1e6
    return Workload(views, megapixels, max(width, height), megapixels)


@pytest.mark.parametrize("photos", MEASURED)
def test_estimates_are_near_what_was_measured(photos: tuple[int, int, int]) -> None:
    sfm_s, train_s, sfm_gb, train_gb = MEASURED[photos]
    settings = resolve("fast", None, ["train.steps=1500", "sfm.threads=2"])
    sfm = stage_cost("sfm", load_of(*photos), settings, threads=1)
    train = stage_cost("train", load_of(*photos), settings, threads=1)
    assert 0.6 < sfm.wall_s / sfm_s < 2.5
    assert 0.6 < train.wall_s / train_s < 2.5
    assert 0.7 < sfm.memory_gb / sfm_gb < 1.8
    assert 0.7 < train.memory_gb / train_gb < 1.8


def test_every_stage_has_an_estimate_that_grows_with_its_options() -> None:
    load, plain = load_of(30, 1600, 1200), resolve()
    assert all(stage_cost(name, load, plain, 1).wall_s > 0 for name in STAGES)
    for stage, option in (
        ("train", "train.steps=100000"),
        ("mesh", "mesh.resolution=1024"),
        ("sfm", "sfm.max_features=60000"),
    ):
        more = stage_cost(stage, load_of(30, 6400, 4800), resolve("fast", None, [option]), 1)
        assert more.wall_s > stage_cost(stage, load, plain, 1).wall_s
    twice = resolve("fast", None, ["train.surface.mode=second_stage"])
    once, both = (stage_cost("train", load, settings, 1) for settings in (plain, twice))
    assert both.wall_s > 1.5 * once.wall_s
    assert both.memory_gb > once.memory_gb
    neus = resolve("fast", None, ["train.field=neus"])
    assert stage_cost("train", load, neus, 1).wall_s > 10_000


def test_a_stage_teaches_the_estimates_of_this_machine() -> None:
    load, settings = load_of(10, 640, 480), resolve()
    before = estimate(load, settings, ["mesh"], threads=1)
    expected = stage_cost("mesh", load, settings, 1)
    for _ in range(3):
        manifest = Manifest(
            recipe=recipe(),
            key="k",
            files={},
            verdict=Verdict(settings={"device": "cpu"}),
            wall_s=3 * expected.wall_s,
            peak_memory_mb=2 * 1024 * expected.memory_gb,
        )
        remember(manifest, expected, 1)
    after = estimate(load, settings, ["mesh"], threads=1)
    assert after.wall_s == pytest.approx(3 * before.wall_s, rel=0.01)
    assert after.memory_gb == pytest.approx(2 * before.memory_gb, rel=0.01)
    assert Measurements().time_ratio("mesh", "gpu") is None


def test_a_damaged_file_of_measurements_is_read_as_far_as_it_goes() -> None:
    remember(
        Manifest(recipe=recipe(), key="k", files={}, wall_s=4, peak_memory_mb=512),
        Cost(2.0, 1.0, 0.0),
        1,
    )
    with measured_path().open("ab") as file:
        file.write(
            b'{"stage": 1\n\xff\xfe\n[]\n{"stage":"mesh","device":"cpu","wall_s":"x"}\nnull\n'
        )
    assert Measurements().time_ratio("mesh", "cpu") == 2.0


def test_what_cannot_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    settings = resolve("fast", None, ["sfm.threads=16", "ingest.max_side_px=8000"])
    request = RunRequest(
        photos=tmp_path, out=tmp_path / "out", settings=settings.model_dump(mode="json")
    )
    stages = list(STAGES)
    expected = estimate(BIG, settings, stages)
    with pytest.raises(InputError, match="GB of memory") as refused:
        refuse_what_cannot_fit(expected, Room(16.0, 1e6), request, BIG, stages)
    words = (refused.value.hint or "").split("--set ")[1:]
    advised = resolve(
        "fast", None, ["sfm.threads=16", "ingest.max_side_px=8000", *(w.strip() for w in words)]
    )
    assert estimate(BIG, advised, stages).memory_gb <= 16.0
    with pytest.raises(InputError, match=r"GB left") as refused:
        refuse_what_cannot_fit(expected, Room(1e6, 20.0), request, BIG, stages)
    assert "this would fit: --set ingest.max_side_px=" in (refused.value.hint or "")
    with pytest.raises(InputError) as refused:
        refuse_what_cannot_fit(expected, Room(0.2, 1e6), request, BIG, stages)
    assert "fewer photos" in (refused.value.hint or "")
    refuse_what_cannot_fit(expected, Room(1e6, 1e6), request, BIG, stages)


def test_photos_are_counted_from_their_headers(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (400, 300)).save(tmp_path / f"{i}.jpg")
    Image.new("RGB", (4000, 3000)).save(tmp_path / "large.png")
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    load = read_workload({"photos": tmp_path})
    assert load == Workload(4, 0.12, 400, 12.0)
    assert load.bounded(200) == pytest.approx(0.03)
    assert read_workload({"photos": tmp_path / "absent"}) is None
    assert read_workload({}) is None


def test_the_machine_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has = room(tmp_path / "not" / "yet" / "there")
    assert has.memory_gb > 0
    assert has.disk_gb > 0
    limit = tmp_path / "memory.max"
    limit.write_text("1500000000\n")
    monkeypatch.setattr(check, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "absent")))
    assert check.memory_limit_gb() == pytest.approx(1.5)
    limit.write_text("max\n")
    assert check.memory_limit_gb() == has.memory_gb


def test_as_many_runs_at_once_as_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        Image.new("RGB", (640, 480)).save(tmp_path / f"{i}.jpg")
    settings = resolve().model_dump(mode="json")
    request = RunRequest(photos=tmp_path, out=tmp_path / "out", settings=settings)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(check, "_CGROUP_LIMITS", (str(limit),))
    found = []
    for gigabytes in (100, 5, 1):
        limit.write_text(str(gigabytes * 10**9))
        found.append(jobs_that_fit([request], 4))
    assert found[-1] == 1
    assert found == sorted(found, reverse=True)
    assert found[1] == 2


def test_the_command_refuses_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.new("RGB", (1600, 1200), (i, 0, 0)).save(photos / f"{i}.jpg")
    monkeypatch.setattr(check, "memory_limit_gb", lambda: 0.3)
    refused = refuse("run", photos, "-o", tmp_path / "out")
    assert refused.code == 2
    assert "this machine has 0.3 GB" in refused.text
    assert not (tmp_path / "home" / "prefect").exists()  # no server was started
    assert not list((tmp_path / "out" / ".porf").glob("store/*"))
