"""Exported cameras: the same rays in every format, and every similarity can be undone."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation

from flows.cli import export as export_command
from pipeline.errors import InputError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.frame import WorldFrame, frame_from_json
from pipeline.formats.idr import IdrCameras, load_idr_cameras, save_idr_cameras
from pipeline.formats.poses import load_pose_text
from pipeline.geometry.similarity import Similarity
from pipeline.geometry.tracks import Tracks
from pipeline.porf.lens import Lens
from pipeline.sfm.export import (
    REFINED_FILE,
    TRAIN_FIGURES,
    CameraState,
    CaseParts,
    state_of_case,
    state_of_run,
    write_export,
)
from tests.flows.harness import refuse
from tests.stages.photo_run import box_run


def _parts(train: Path | None = None) -> CaseParts:
    run = box_run()
    return CaseParts(run.folder("ingest"), run.folder("sfm"), run.folder("scene"), train)


def _world(state: CameraState) -> list:
    return [camera.c2w for camera in state.cameras]


def test_all_formats_hold_the_same_cameras(tmp_path: Path) -> None:
    state = state_of_run(_parts(), "sfm", undistorted=True)
    write_export(tmp_path, state, ("colmap", "nerfstudio", "idr"), "world", True)
    for part in ("sparse/0", "transforms.json", "cameras.npz"):
        read = load_cameras(tmp_path / part)
        assert [Path(c.name).name for c in read.cameras] == [c.name for c in state.cameras]
        for mine, theirs in zip(state.cameras, read.cameras, strict=True):
            np.testing.assert_allclose(theirs.c2w, mine.c2w, atol=1e-6)
            np.testing.assert_allclose(theirs.K, mine.K, rtol=1e-7)
    np.testing.assert_allclose(load_pose_text(tmp_path / "poses.txt"), _world(state), atol=1e-8)
    document = json.loads((tmp_path / "transforms.json").read_text())
    assert all((tmp_path / frame["file_path"]).is_file() for frame in document["frames"])
    record = json.loads((tmp_path / "frame.json").read_text())
    assert list(record["photos"].values()) == box_run().names


@pytest.mark.parametrize("undistorted", [True, False])
def test_the_exported_model_reprojects_as_the_original(tmp_path: Path, undistorted: bool) -> None:
    """Tracks, pixel conventions and lenses: COLMAP finds the small errors that SfM left."""
    write_export(tmp_path, state_of_run(_parts(), "sfm", undistorted), ("colmap",), "world", False)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    original = pycolmap.Reconstruction(str(box_run().folder("sfm") / "sparse"))
    original.update_point_3d_errors()
    assert model.num_points3D() == original.num_points3D()
    wanted = original.compute_mean_reprojection_error()
    assert model.compute_mean_reprojection_error() == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize("frame", ["world", "sfm", "unit-sphere"])
def test_every_frame_can_be_undone(tmp_path: Path, frame: str) -> None:
    state = state_of_run(_parts(), "sfm", undistorted=True)
    turn = Rotation.from_rotvec([0.3, -0.5, 1.0]).as_matrix()
    known = WorldFrame("m", "a test", Similarity(2.5, turn, np.array([3.0, -1, 2])))
    state = CameraState(**{**vars(state), "frame": known})
    write_export(tmp_path, state, ("colmap", "idr"), frame, False)  # type: ignore[arg-type]
    record = json.loads((tmp_path / "frame.json").read_text())
    back = Similarity.from_matrix(np.array(record["world_from_export"]))
    for mine, theirs in zip(state.cameras, load_cameras(tmp_path).cameras, strict=True):
        np.testing.assert_allclose(back.apply_c2w(theirs.c2w), mine.c2w, atol=1e-8)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    assert model.compute_mean_reprojection_error() < 1.0  # the points moved along
    if frame == "unit-sphere":
        np.testing.assert_allclose(load_idr_cameras(tmp_path / "cameras.npz").radius, 1.0)
    assert frame_from_json(record["world"]).as_json() == known.as_json()


def test_points_follow_refined_cameras(tmp_path: Path) -> None:
    """Cameras all moved alike must not leave the points behind."""
    sfm = load_idr_cameras(box_run().folder("scene") / "cameras_colmap.npz")
    moved = sfm.c2w.copy()
    moved[:, :3, 3] += 0.05 * sfm.radius
    save_idr_cameras(tmp_path / REFINED_FILE, IdrCameras(sfm.K, moved, sfm.scale_mat))
    state = state_of_run(_parts(tmp_path), "refined", undistorted=True)
    write_export(tmp_path / "out", state, ("colmap",), "world", False)
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    assert model.compute_mean_reprojection_error() < 1.0
    with pytest.raises(InputError, match="no refined cameras"):
        state_of_run(_parts(), "refined", undistorted=True)


def _with_lens_found(folder: Path, k1: float, k2: float) -> CaseParts:
    """A training that kept the poses, moved the intrinsics and found distortion."""
    sfm = load_idr_cameras(box_run().folder("scene") / "cameras_colmap.npz")
    K = sfm.K.copy()
    K[:, :2, :2] *= 1.01
    K[:, 0, 2] += 3.0
    save_idr_cameras(folder / REFINED_FILE, IdrCameras(K, sfm.c2w, sfm.scale_mat))
    figures = {"figures": {"distortion_left": [k1, k2]}}
    (folder / TRAIN_FIGURES).write_text(json.dumps(figures))
    return _parts(folder)


def test_distortion_that_training_undid_is_exported(tmp_path: Path) -> None:
    """COLMAP's and training's lens are one: what the first projects the second straightens."""
    k1, k2 = -0.06, 0.02
    state = state_of_run(_with_lens_found(tmp_path, k1, k2), "refined", undistorted=True)
    write_export(tmp_path / "out", state, ("colmap", "nerfstudio", "idr"), "world", False)
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    camera = model.image(1).camera
    assert camera.model_name == "OPENCV"
    rays = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    seen_px = camera.img_from_cam(np.concatenate([rays, np.ones((50, 1))], axis=1)) - 0.5
    pinhole = load_idr_cameras(tmp_path / "out/cameras.npz")
    K = torch.from_numpy(pinhole.K[:1])
    tracks = Tracks(np.arange(50), np.zeros(50, dtype=np.int64), seen_px)
    straight_px = Lens(1.0, (0.0, 0.0), (k1, k2)).undistorted_px(tracks, K)
    expected_px = rays * pinhole.K[0][[0, 1], [0, 1]] + pinhole.K[0][:2, 2]
    np.testing.assert_allclose(straight_px, expected_px, atol=1e-3)
    assert np.abs(seen_px - expected_px).max() > 1.0
    document = json.loads((tmp_path / "out/transforms.json").read_text())
    lens = {**document, **document["frames"][0]}
    assert (lens["k1"], lens["k2"], lens["p1"]) == (k1, k2, 0.0)
    read = load_cameras(tmp_path / "out/transforms.json").cameras[0]
    np.testing.assert_allclose(read.params, camera.params, rtol=1e-9)
    record = json.loads((tmp_path / "out/frame.json").read_text())
    assert record["distortion_of_images"] == [k1, k2]


def test_the_photos_own_lens_cannot_follow_a_refined_one(tmp_path: Path) -> None:
    parts = _with_lens_found(tmp_path, -0.06, 0.02)
    with pytest.raises(InputError, match="changed the lens"):
        state_of_run(parts, "refined", undistorted=False)
    assert state_of_run(parts, "sfm", undistorted=False).distortion is None


def test_observations_stay_where_the_images_show_them(tmp_path: Path) -> None:
    """Refined intrinsics change the cameras, not the pixels of the images made before."""
    parts = _with_lens_found(tmp_path, -0.06, 0.02)
    refined, sfm = (state_of_run(parts, s, undistorted=True) for s in ("refined", "sfm"))
    for moved, point in zip(refined.points, sfm.points, strict=True):
        np.testing.assert_array_equal(moved.xy_px, point.xy_px)


def test_the_command_tells_what_the_idr_file_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of_run(_with_lens_found(tmp_path, -0.06, 0.02), "refined", undistorted=True)
    monkeypatch.setattr(export_command, "load_state", lambda *_: state)
    words = ("export-cameras", tmp_path, "-o", tmp_path / "out", "--no-images", "--format")
    assert "leaves out the radial distortion" in " ".join(refuse(*words, "idr").text.split())
    assert "leaves out" not in refuse(*words, "colmap").text


def test_a_case_from_elsewhere_through_the_command_line(tmp_path: Path) -> None:
    scene = box_run().folder("scene")
    out = tmp_path / "out"
    done = refuse("export-cameras", scene, "-o", out, "--format", "nerfstudio", "--no-images")
    assert done.code == 0, done.text
    assert "14 sfm cameras" in done.text
    want = state_of_case(scene, "sfm").cameras
    for mine, theirs in zip(want, load_cameras(out / "transforms.json").cameras, strict=True):
        np.testing.assert_allclose(theirs.c2w, mine.c2w, atol=1e-9)
    assert refuse("export-cameras", scene, "-o", out, "--no-images").code == 0  # replaces its own
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    refused = refuse("export-cameras", scene, "-o", tmp_path / "thesis")
    assert (refused.code, "no earlier export" in refused.text) == (2, True)
    refused = refuse("export-cameras", scene, "--state", "refined")
    assert (refused.code, REFINED_FILE in refused.text) == (2, True)
