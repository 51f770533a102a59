"""The stage on rendered photos with known cameras, and on photos that cannot work."""

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.idr import load_idr_cameras
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.imaging.records import load_ingest
from pipeline.metrics.poses import split_rotation_error
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.reconstruct import choose_pairs
from tests.stages.photo_run import box_run, run_stage, to_truth


def _report(artifacts: Path, name: str = "sfm") -> dict:
    return json.loads((artifacts / name / "sfm.json").read_text())


def _ingested(tmp_path: Path, images: list[np.ndarray], masks: list[np.ndarray] | None = None):
    """Artifacts folder with an ingest of these pictures."""
    external = {"photos": tmp_path / "photos"}
    (tmp_path / "photos").mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i:02d}.png")
    if masks is not None:
        external["masks"] = tmp_path / "given_masks"
        external["masks"].mkdir()
        for i, mask in enumerate(masks):
            Image.fromarray(mask).save(external["masks"] / f"{i:02d}.png")
    run_stage("ingest", tmp_path / "run", external)
    return tmp_path / "run"


def _texture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_every_view_is_registered_with_true_rotations() -> None:
    run = box_run()
    cameras = load_idr_cameras(run.folder("scene") / "cameras_colmap.npz")
    assert run.names == run.truth.names
    similarity, errors_deg = to_truth(cameras.c2w, run.names, run.truth)
    found = similarity.apply_c2w(cameras.c2w)[:, :3, :3]
    _, scatter_deg = split_rotation_error(found, run.truth.c2w[:, :3, :3])
    assert scatter_deg.mean() < 0.06
    # the rest is common to all views: two pixels of the principal point turn them by 0.25°, and a
    # quarter of the points more or less moves it by 0.05° to 0.1°
    assert errors_deg.mean() < 0.25


def test_the_principal_point_is_found_by_evidence() -> None:
    run = box_run()
    calibration = _report(run.artifacts)["calibration"]
    assert calibration["chosen"]["principal_point"]
    assert len(calibration["candidates"]) == 6
    offset = calibration["principal_points"][0]["offset_px"]
    np.testing.assert_allclose(offset, run.truth.offset_px, atol=2.0)
    assert calibration["rationale"] in run.verdicts["sfm"].figures["calibration"]


def test_the_report_counts_what_is_there() -> None:
    run = box_run()
    report = _report(run.artifacts)
    assert report["registered"] == run.truth.names
    assert report["unregistered"] == []
    assert report["pairs"]["tried"] == 14 * 13 // 2
    assert report["consistency"]["contradicting_share"] < 0.05
    assert 0 < report["reprojection_px"]["median"] < 0.5
    assert run.verdicts["sfm"].status == "ok"


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_photos_give_the_same_files(tmp_path: Path) -> None:
    run = box_run()
    artifacts = tmp_path / "run"
    shutil.copytree(run.folder("ingest"), artifacts / "ingest")
    run_stage("sfm", artifacts)
    assert _digests(artifacts / "sfm") == _digests(run.folder("sfm"))


def test_an_interrupted_attempt_is_taken_up(tmp_path: Path, monkeypatch) -> None:
    run = box_run()
    artifacts = tmp_path / "run"
    shutil.copytree(run.folder("ingest"), artifacts / "ingest")
    work = artifacts / "work" / "sfm"
    shutil.copytree(run.artifacts / "work" / "sfm", work)
    extracted = []
    monkeypatch.setattr("pipeline.sfm.features._extract_one", lambda *args: extracted.append(args))
    verdict = run_stage("sfm", artifacts)
    assert extracted == []
    assert verdict.figures["registered"] == 14


def test_photos_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    artifacts = _ingested(tmp_path, [_texture(seed) for seed in range(4)])
    with pytest.raises(InputError, match="do not overlap") as caught:
        run_stage("sfm", artifacts)
    assert "neighbours" in (caught.value.hint or "")


def test_photos_that_leave_most_others_alone_are_refused(tmp_path: Path) -> None:
    run = box_run()
    photos = [np.asarray(Image.open(run.photos / name)) for name in run.truth.names[:4]]
    artifacts = _ingested(tmp_path, [*photos, *(_texture(seed, 400, 300) for seed in range(10))])
    with pytest.raises(InputError, match="only 4 of 14 photos found their place") as caught:
        run_stage("sfm", artifacts)
    assert "take photos between 04.png and 03.png" in (caught.value.hint or "")
    verdict = run_stage("sfm", artifacts, options={"min_registered": 0.2}, out_name="few")
    assert verdict.figures["registered"] == 4
    assert "take photos between 04.png and 03.png" in verdict.figures["advice"][0]
    assert _report(artifacts, "few")["advice"] == verdict.figures["advice"]


def test_nearness_by_gps_brings_pairs_beyond_the_limit(tmp_path: Path) -> None:
    run = box_run()
    database = tmp_path / "d.db"
    shutil.copyfile(run.folder("sfm") / "database.db", database)
    photos = load_ingest(run.folder("ingest") / "ingest.json").used
    with_gps = [
        # photos half the way apart were taken side by side
        photo.model_copy(update={"gps": (47.0 + 1e-4 * (position % 7), 8.0, None)})
        for position, photo in enumerate(photos)
    ]
    config = SfmConfig(exhaustive_limit=5, neighbours=2)
    ids = list(range(1, len(photos) + 1))
    without, added = (choose_pairs(database, p, ids, config, 0) for p in (photos, with_gps))
    assert set(without) < set(added)
    assert {(0, 7), (3, 10), (6, 13)} <= set(added)


def test_the_report_says_how_far_rotations_can_be_off_and_what_holds_the_photos() -> None:
    run = box_run()
    report = _report(run.artifacts)
    sigma = report["rotation_uncertainty"]
    assert sorted(sigma["views_deg"]) == sorted(report["registered"])
    cameras = load_idr_cameras(run.folder("scene") / "cameras_colmap.npz")
    _, errors_deg = to_truth(cameras.c2w, run.names, run.truth)
    assert errors_deg.mean() / 5 < sigma["median_deg"] < 5 * errors_deg.mean()
    assert run.verdicts["sfm"].figures["rotation_sigma_deg"] == round(sigma["median_deg"], 4)
    assert report["network"]["weak_links"] == []
    assert report["network"]["median_step_deg"] > 0


def test_photos_without_texture_are_refused(tmp_path: Path) -> None:
    flat = [np.full((240, 320, 3), 60 + 40 * i, dtype=np.uint8) for i in range(4)]
    with pytest.raises(InputError, match="0 of 4 photos show enough texture"):
        run_stage("sfm", _ingested(tmp_path, flat))


def test_a_camera_that_does_not_move_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = _texture(2)
    noisy = [np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255) for _ in range(4)]
    with pytest.raises(InputError, match="no cameras could be recovered"):
        run_stage("sfm", _ingested(tmp_path, [n.astype(np.uint8) for n in noisy]))


def test_masks_keep_features_to_the_object(tmp_path: Path) -> None:
    run = box_run()
    photos = [np.asarray(Image.open(run.photos / name)) for name in run.truth.names[:5]]
    half = np.zeros(photos[0].shape[:2], dtype=np.uint8)
    half[:, 130:300] = 255
    artifacts = _ingested(tmp_path, photos, [half] * 5)
    run_stage("sfm", artifacts, options={"use_masks": True})
    masked = _report(artifacts)
    assert masked["features_masked"]
    assert masked["features_median"] < 0.75 * _report(run.artifacts)["features_median"]
    with sqlite3.connect(artifacts / "sfm" / "database.db") as database:
        stored = database.execute("SELECT rows, cols, data FROM keypoints").fetchall()
    x = np.concatenate([np.frombuffer(d, np.float32).reshape(r, c)[:, 0] for r, c, d in stored])
    assert x.min() >= 130
    assert x.max() < 300


def test_masks_that_leave_too_little_give_way_to_the_whole_photos(tmp_path: Path) -> None:
    run = box_run()
    photos = [np.asarray(Image.open(run.photos / name)) for name in run.truth.names[:5]]
    speck = np.zeros(photos[0].shape[:2], dtype=np.uint8)
    speck[140:160, 190:210] = 255
    artifacts = _ingested(tmp_path, photos, [speck] * 5)
    assert run_stage("sfm", artifacts).figures["registered"] == 5
    assert not _report(artifacts)["features_masked"]
    with pytest.raises(InputError, match="enough texture"):
        run_stage("sfm", artifacts, options={"use_masks": True}, out_name="masks_only")


def test_beyond_the_limit_fewer_pairs_reach_the_same_model(tmp_path: Path) -> None:
    run = box_run()
    artifacts = tmp_path / "run"
    shutil.copytree(run.folder("ingest"), artifacts / "ingest")
    run_stage("sfm", artifacts, options={"exhaustive_limit": 5, "neighbours": 6})
    report = _report(artifacts)
    assert report["pairs"]["tried"] < 0.8 * 14 * 13 / 2
    assert len(report["registered"]) == 14


def test_photos_of_a_real_camera(tmp_path: Path, shared: Path) -> None:
    artifacts = tmp_path / "run"
    run_stage("ingest", artifacts, {"photos": shared / "data" / "kermit"})
    verdict = run_stage("sfm", artifacts)
    assert verdict.figures["registered"] == 11
    assert verdict.figures["reprojection_median_px"] < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "views", "limit_deg"),
    [
        ("render_plant", 24, 0.10),
        ("fountain", 11, 0.05),
        ("temple", 47, 0.16),
        ("dtu65", 49, 0.12),
    ],
)
def test_rotations_of_the_shared_sets(
    tmp_path: Path, shared: Path, name: str, views: int, limit_deg: float
) -> None:
    data = shared / "data" / name
    artifacts = tmp_path / "run"
    run_stage("ingest", artifacts, {"photos": data / "photos"})
    for stage in ("sfm", "scene"):
        run_stage(stage, artifacts)
    found = load_idr_cameras(artifacts / "scene" / "cameras_colmap.npz")
    records = json.loads((artifacts / "scene" / "views.json").read_text())
    names = [r["name"] for r in records if r["registered"]]
    assert len(names) == views
    truth = load_idr_cameras(data / "cameras.npz")
    order = json.loads((data / "image_names.json").read_text())
    true_c2w = truth.c2w[[order.index(n) for n in names]]
    aligned = umeyama(found.c2w[:, :3, 3], true_c2w[:, :3, 3]).apply_c2w(found.c2w)
    assert rotation_angles_deg(aligned[:, :3, :3], true_c2w[:, :3, :3]).mean() <= limit_deg
