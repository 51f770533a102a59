"""Exported cameras: the same rays in every format, and every similarity can be undone."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.frame import WorldFrame, frame_from_json
from pipeline.formats.idr import IdrCameras, load_idr_cameras, save_idr_cameras
from pipeline.formats.poses import load_pose_text
from pipeline.geometry.similarity import Similarity
from pipeline.sfm.export import (
    REFINED_FILE,
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
