"""Cameras that the user brings: kept in their frame, refined on demand, refused where they lie."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.colmap_model import save_colmap_model
from pipeline.formats.idr import IdrCameras, load_idr_cameras, make_scale_mat, save_idr_cameras
from pipeline.formats.nerfstudio import save_transforms
from pipeline.formats.posed import PosedCamera
from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.rotations import rotation_angles_deg
from tests.sfm.box_scene import FOCAL, K1, PRINCIPAL_OFFSET, BoxTruth, write_box_photos
from tests.stages.photo_run import run_stage

WIDTH, HEIGHT = 400, 300
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BoxTruth]:
    """Six photos, ingested."""
    folder = tmp_path_factory.mktemp("given")
    truth = write_box_photos(folder / "photos", views=14)
    for name in truth.names[6:]:
        (folder / "photos" / name).unlink()
    run_stage("ingest", folder / "run", {"photos": folder / "photos"})
    return folder, BoxTruth(truth.names[:6], truth.c2w[:6], truth.offset_px)


def true_cameras(truth: BoxTruth, c2w: NDArray | None = None) -> list[PosedCamera]:
    centre = np.array([WIDTH, HEIGHT]) / 2 + PRINCIPAL_OFFSET * WIDTH
    params = (FOCAL * WIDTH, float(centre[0]), float(centre[1]), K1)
    poses = truth.c2w if c2w is None else c2w
    return [
        PosedCamera(f"images/{name}", "SIMPLE_RADIAL", params, (WIDTH, HEIGHT), pose)
        for name, pose in zip(truth.names, poses, strict=True)
    ]


def place(box: tuple[Path, BoxTruth], tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ingest").symlink_to(box[0] / "run" / "ingest")
    return tmp_path / "run"


def sfm(run: Path, cameras: Path, **options: object) -> dict:
    run_stage("sfm", run, {"cameras": cameras}, options)
    stored: dict = json.loads((run / "sfm" / "sfm.json").read_text())
    return stored


def test_given_poses_are_kept_to_the_last_digit(box: tuple[Path, BoxTruth], tmp_path: Path) -> None:
    run, truth = place(box, tmp_path), box[1]
    save_transforms(tmp_path / "transforms.json", true_cameras(truth))
    report = sfm(run, tmp_path / "transforms.json", scale={"given_unit": "m"})
    assert report["registered"] == truth.names
    assert report["points"] > 100
    assert report["reprojection_px"]["median"] < 0.5
    assert report["consistency"]["contradicting_share"] < 0.05
    run_stage("scene", run)
    run_stage("matches", run)
    cameras = load_idr_cameras(run / "scene" / "cameras_colmap.npz")
    np.testing.assert_allclose(cameras.c2w, truth.c2w, atol=1e-6)
    scene = json.loads((run / "scene" / "scene.json").read_text())
    assert (scene["unit"], scene["frame"]["source"][:17]) == ("m", "the given cameras")
    with np.load(run / "scene" / "cameras_colmap.npz") as stored:
        assert str(stored["unit"]) == "m"


def test_rough_poses_are_refined_in_their_own_frame(
    box: tuple[Path, BoxTruth], tmp_path: Path
) -> None:
    run, truth = place(box, tmp_path), box[1]
    rng = np.random.default_rng(0)
    rough = truth.c2w.copy()
    rough[:, :3, :3] = (
        Rotation.from_rotvec(rng.normal(0, 0.006, (6, 3))).as_matrix() @ (rough[:, :3, :3])
    )
    rough[:, :3, 3] += rng.normal(0, 0.01, (6, 3))
    save_colmap_model(tmp_path / "model", true_cameras(truth, rough))
    report = sfm(run, tmp_path / "model", refine_given="poses")
    run_stage("scene", run)
    refined = load_idr_cameras(run / "scene" / "cameras_colmap.npz").c2w

    def relative_deg(c2w: NDArray) -> float:
        steps = [invert_pose(p)[:3, :3] @ q[:3, :3] for p, q in pairwise(c2w)]
        true = [invert_pose(p)[:3, :3] @ q[:3, :3] for p, q in pairwise(truth.c2w)]
        return float(rotation_angles_deg(np.stack(steps), np.stack(true)).mean())

    assert relative_deg(refined) < 0.25 * relative_deg(rough)
    assert np.linalg.norm(refined[:, :3, 3] - rough[:, :3, 3], axis=1).max() < 0.05
    assert report["given_cameras"]["refined"] == "poses"
    assert report["cameras"]["1"]["params"] == list(true_cameras(truth)[0].params)


def test_a_case_brings_its_region_along(box: tuple[Path, BoxTruth], tmp_path: Path) -> None:
    """Undistorted views of an earlier scene stage, as photos with their npz."""
    first = place(box, tmp_path)
    save_transforms(tmp_path / "transforms.json", true_cameras(box[1]))
    sfm(first, tmp_path / "transforms.json")
    run_stage("scene", first)
    case = first / "scene"
    cameras = load_idr_cameras(case / "cameras_colmap.npz")
    sphere = make_scale_mat(np.array([0.0, 0.0, 0.3]), 0.9)
    save_idr_cameras(case / "cameras_colmap.npz", IdrCameras(cameras.K, cameras.c2w, sphere))
    second = tmp_path / "second"
    run_stage("ingest", second, {"photos": case / "image"})
    sfm(second, case)
    run_stage("scene", second)
    scene = json.loads((second / "scene" / "scene.json").read_text())
    assert scene["region_source"] == "given cameras"
    np.testing.assert_allclose(scene["center"], [0, 0, 0.3], atol=1e-9)
    again = load_idr_cameras(second / "scene" / "cameras_colmap.npz")
    np.testing.assert_allclose(again.c2w, cameras.c2w, atol=1e-5)
    np.testing.assert_allclose(again.K, cameras.K, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda c2w: c2w @ FLIP, "other axes"),
        (invert_pose, "world-to-camera"),
        (lambda c2w: np.roll(c2w, 3, axis=0), "agree with these cameras"),
    ],
)
def test_poses_in_another_convention_are_told(
    box: tuple[Path, BoxTruth], tmp_path: Path, wrong, expected: str
) -> None:
    run, truth = place(box, tmp_path), box[1]
    save_transforms(tmp_path / "transforms.json", true_cameras(truth, wrong(truth.c2w)))
    with pytest.raises(InputError, match=expected):
        sfm(run, tmp_path / "transforms.json")


def test_missing_cameras(box: tuple[Path, BoxTruth], tmp_path: Path) -> None:
    run, truth = place(box, tmp_path), box[1]
    save_transforms(tmp_path / "transforms.json", true_cameras(truth)[:5])
    with pytest.raises(InputError, match=f"no camera for 1 of 6 photos: {truth.names[5]}"):
        sfm(run, tmp_path / "transforms.json")
    other = tmp_path / "other"
    other.mkdir()
    (other / "ingest").symlink_to(box[0] / "run" / "ingest")
    report = sfm(other, tmp_path / "transforms.json", missing_cameras="skip")
    assert report["registered"] == truth.names[:5]
    assert report["unregistered"] == [
        {"name": truth.names[5], "reason": "no camera was given for it"}
    ]


def test_cameras_of_other_photos(box: tuple[Path, BoxTruth], tmp_path: Path) -> None:
    run, truth = place(box, tmp_path), box[1]
    wide = [PosedCamera(c.name, c.model, c.params, (400, 200), c.c2w) for c in true_cameras(truth)]
    save_transforms(tmp_path / "transforms.json", wide)
    with pytest.raises(InputError, match="400×200 pixels, the upright photo has 400×300"):
        sfm(run, tmp_path / "transforms.json")
    save_idr_cameras(tmp_path / "cameras.npz", IdrCameras(np.eye(3)[None], np.eye(4)[None], FLIP))
    (run / "sfm").rmdir()
    with pytest.raises(InputError, match="1 cameras for 6 photos"):
        sfm(run, tmp_path / "cameras.npz")


def test_cameras_follow_the_size_of_the_photos(box: tuple[Path, BoxTruth], tmp_path: Path) -> None:
    """Ingest shrinks large photos; their cameras shrink with them."""
    photos, truth = tmp_path / "large", box[1]
    photos.mkdir()
    for name in truth.names:
        with Image.open(box[0] / "photos" / name) as image:
            image.resize((2 * WIDTH, 2 * HEIGHT)).save(photos / name, quality=95)
    run_stage("ingest", tmp_path / "run", {"photos": photos}, {"max_side_px": WIDTH})
    save_colmap_model(
        tmp_path / "model",
        [
            PosedCamera(
                c.name,
                c.model,
                tuple(2 * p for p in c.params[:3]) + c.params[3:],
                (2 * WIDTH, 2 * HEIGHT),
                c.c2w,
            )
            for c in true_cameras(truth)
        ],
        form="text",
    )
    report = sfm(tmp_path / "run", tmp_path / "model")
    np.testing.assert_allclose(report["cameras"]["1"]["params"], true_cameras(truth)[0].params)
    assert report["reprojection_px"]["median"] < 0.6
