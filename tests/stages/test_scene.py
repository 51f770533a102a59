"""The stage on rendered photos whose box and cameras are known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.formats.case import common_size, load_case, sorted_images
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.views import load_views
from pipeline.geometry.cameras import project
from pipeline.sfm.config import SceneConfig
from tests.sfm.box_scene import BOX
from tests.stages.photo_run import box_run, run_stage, to_truth


def _scene(artifacts: Path, name: str = "scene") -> dict:
    return json.loads((artifacts / name / "scene.json").read_text())


def test_the_case_loads_as_training_loads_it() -> None:
    run = box_run()
    case = load_case(run.folder("scene"), run.folder("matches"))
    assert len(case) == 14
    scene = _scene(run.artifacts)
    assert (case.width, case.height) == (scene["width"], scene["height"])
    assert case.mask_paths is None
    assert case.cameras.radius == pytest.approx(scene["radius"])
    np.testing.assert_allclose(case.cameras.centre, scene["center"])


def test_sparse_points_project_onto_their_colours() -> None:
    """Image, camera and points agree: a half-pixel or frame mistake would break this."""
    run = box_run()
    cameras = load_idr_cameras(run.folder("scene") / "cameras_colmap.npz")
    sparse = np.load(run.folder("scene") / "sparse.npz")
    sound = sparse["track_lengths"] >= 4
    points, colours = sparse["points"][sound], sparse["colors"][sound].astype(float)
    assert len(points) > 100
    errors = []
    for i in (0, 6, 13):
        image = np.asarray(Image.open(run.folder("scene") / f"image/{i:03d}.png")).astype(float)
        xy_px, _ = project(cameras.K[i], cameras.c2w[i], points)
        columns, rows = np.rint(np.nan_to_num(xy_px, nan=-1)).astype(int).T
        inside = (columns >= 0) & (columns < image.shape[1]) & (rows >= 0)
        inside &= rows < image.shape[0]
        errors.append(np.abs(image[rows[inside], columns[inside]] - colours[inside]).mean(axis=1))
    # hidden points show another colour; the median is of the seen ones
    assert np.median(np.concatenate(errors)) < 30


def test_the_region_holds_the_box_without_waste() -> None:
    run = box_run()
    cameras = load_idr_cameras(run.folder("scene") / "cameras_colmap.npz")
    similarity, _ = to_truth(cameras.c2w, run.names, run.truth)
    corners = similarity.inverse().apply_points(run.truth.corners)
    reach = np.linalg.norm(corners - cameras.centre, axis=1).max() / cameras.radius
    assert 0.6 < reach <= 1.0
    report = _scene(run.artifacts)
    assert report["cameras_inside"] == 0
    assert len(report["view_inside_fraction"]) == 14
    up = similarity.rotation @ np.array(report["up"])
    assert up @ [0, 0, 1] > 0.999
    assert BOX[1, 2] * 0.25 < similarity.apply_points(cameras.centre[None])[0, 2] < BOX[1, 2]


def test_views_tell_of_every_photo() -> None:
    run = box_run()
    views = load_views(run.folder("scene") / "views.json")
    assert [view.name for view in views] == run.truth.names
    assert [view.index for view in views] == list(range(14))
    assert all(view.registered and view.reason is None for view in views)


def test_indices_close_up_over_photos_that_are_not_registered(tmp_path: Path) -> None:
    run = box_run()
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in run.truth.names[:6]:
        shutil.copy(run.photos / name, photos / name)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "box_00_stranger.jpg")
    Image.new("RGB", (400, 300), (120, 130, 140)).save(photos / "box_01_wall.jpg")
    (photos / "box_02_empty.jpg").write_bytes(b"")
    artifacts = tmp_path / "run"
    run_stage("ingest", artifacts, {"photos": photos})
    verdict = run_stage("sfm", artifacts)
    for name in ("scene", "matches"):
        run_stage(name, artifacts)
    views = {view.name: view for view in load_views(artifacts / "scene" / "views.json")}
    assert len(views) == 9
    assert [views[name].index for name in run.truth.names[:6]] == list(range(6))
    reasons = {name: view.reason or "" for name, view in views.items() if view.index is None}
    assert "overlap" in reasons["box_00_stranger.jpg"]
    assert "no texture" in reasons["box_01_wall.jpg"]
    assert "empty" in reasons["box_02_empty.jpg"]
    assert verdict.status == "warn"
    assert "6 of 8 photos registered" in verdict.reasons[0]
    assert len(load_case(artifacts / "scene", artifacts / "matches")) == 6


def test_the_region_can_be_given(tmp_path: Path) -> None:
    run = box_run()
    artifacts = tmp_path / "run"
    for name in ("ingest", "sfm"):
        shutil.copytree(run.folder(name), artifacts / name)
    found = _scene(run.artifacts)
    options = {"roi_center": found["center"], "roi_radius": 0.5, "roi_scale": 2.0}
    run_stage("scene", artifacts, options=options)
    given = _scene(artifacts)
    assert given["radius"] == pytest.approx(1.0)
    assert given["region_source"] == "given"
    np.testing.assert_allclose(given["center"], found["center"])
    far = {"roi_center": (1e4, 1e4, 1e4), "roi_radius": 1.0}
    with pytest.raises(InputError, match="no photo shows the region"):
        run_stage("scene", artifacts, options=far, out_name="far")
    run_stage("scene", artifacts, options={"roi_radius": 50.0}, out_name="huge")
    huge = _scene(artifacts, "huge")
    assert huge["cameras_inside"] == 14
    assert huge["verdict"]["status"] == "warn"


def test_a_centre_without_a_radius_is_refused() -> None:
    with pytest.raises(ValidationError, match="roi_center needs roi_radius"):
        SceneConfig.model_validate({"roi_center": (0, 0, 0)})


def test_mixed_shapes_and_masks_become_one_size(tmp_path: Path) -> None:
    run = box_run()
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for i, name in enumerate(run.truth.names[:8]):
        image = Image.open(run.photos / name)
        if i % 4 == 3:  # another camera: a larger picture of another shape
            image = image.crop((50, 0, 350, 300)).resize((450, 450), Image.Resampling.BICUBIC)
        image.save(photos / f"{i}.png")
        Image.new("L", image.size, 255).save(masks / f"{i}.png")
    artifacts = tmp_path / "run"
    run_stage("ingest", artifacts, {"photos": photos, "masks": masks})
    run_stage("sfm", artifacts)
    run_stage("scene", artifacts)
    images = sorted_images(artifacts / "scene" / "image")
    assert common_size(images) == common_size(sorted_images(artifacts / "scene" / "mask"))
    cameras = load_idr_cameras(artifacts / "scene" / "cameras_colmap.npz")
    registered = [v.name for v in load_views(artifacts / "scene" / "views.json") if v.registered]
    assert len(registered) == len(images) >= 7
    names = [run.truth.names[int(Path(name).stem)] for name in registered]
    _, errors_deg = to_truth(cameras.c2w, names, run.truth)
    assert errors_deg.mean() < 0.5
