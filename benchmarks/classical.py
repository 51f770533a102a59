"""Classical bundle adjustment of a case: COLMAP's own tools, with their default options."""

import tempfile
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.formats.case import Case
from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.pixels import idr_to_colmap_px
from pipeline.sfm.colmap import c2w_of

ROUNDS = 5


def adjusted_by_colmap(case: Case) -> NDArray:
    """Poses (V, 4, 4) after rounds of `triangulate_points` and `bundle_adjustment`.

    The matches are the case's own, but those held out; the intrinsics stay. A case without a point
    that can be triangulated stays as it is.
    """
    c2w = case.cameras.c2w.copy()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        model = _write(case, database)
        for _ in range(ROUNDS):
            options = pycolmap.IncrementalPipelineOptions()
            options.num_threads = 1
            options.extract_colors = False
            model = pycolmap.triangulate_points(model, database, folder, folder, options=options)
            if model.num_points3D() == 0:
                return c2w
            pycolmap.bundle_adjustment(model, _poses_only())
    for index in range(len(case)):
        if model.exists_image(index + 1):
            c2w[index] = c2w_of(model.image(index + 1))
    return c2w


def _poses_only() -> pycolmap.BundleAdjustmentOptions:
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = False
    options.refine_principal_point = False
    return options


def _write(case: Case, path: Path) -> pycolmap.Reconstruction:
    """A database of the case's matches, and a model of its cameras; view i is image i + 1."""
    model = pycolmap.Reconstruction()
    keypoints = [_Keypoints() for _ in range(len(case))]
    pairs = _pairs(case, keypoints)
    with pycolmap.Database.open(str(path)) as database:
        for index, w2c in enumerate(invert_pose(case.cameras.c2w)):
            camera = _camera(case, index)
            database.write_camera(camera, use_camera_id=True)
            model.add_camera_with_trivial_rig(camera)
            image = pycolmap.Image(name=str(index), image_id=index + 1, camera_id=index + 1)
            pose = pycolmap.Rigid3d(pycolmap.Rotation3d(w2c[:3, :3]), w2c[:3, 3])
            model.add_image_with_trivial_frame(image, pose)
            database.write_rig(model.rig(index + 1), use_rig_id=True)
            database.write_frame(model.frame(index + 1), use_frame_id=True)
            database.write_image(image, use_image_id=True)
            database.write_keypoints(index + 1, idr_to_colmap_px(keypoints[index].table()))
        for (i, j), features in pairs.items():
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
            geometry.inlier_matches = features
            database.write_matches(i + 1, j + 1, features)
            database.write_two_view_geometry(i + 1, j + 1, geometry)
    return model


def _camera(case: Case, index: int) -> pycolmap.Camera:
    K = case.cameras.K[index]
    centre = idr_to_colmap_px(K[:2, 2])
    return pycolmap.Camera(
        camera_id=index + 1,
        model="PINHOLE",
        width=case.width,
        height=case.height,
        params=[K[0, 0], K[1, 1], *centre],
    )


class _Keypoints:
    """Places in one view, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[float, float], int] = {}

    def numbers(self, xy_px: NDArray) -> NDArray:
        """Numbers (M,) of places (M, 2)."""
        places = map(tuple, xy_px.tolist())
        return np.array([self._numbers.setdefault(place, len(self._numbers)) for place in places])

    def table(self) -> NDArray:
        """All places, (F, 2)."""
        return np.array(list(self._numbers), dtype=np.float32).reshape(-1, 2)


def _pairs(case: Case, keypoints: list[_Keypoints]) -> dict[tuple[int, int], NDArray]:
    """Features (M, 2) of each pair of views i < j that are not held out."""
    found = {}
    for i, view in enumerate(case.matches):
        for j, xyxy, heldout in zip(view.sources, view.matches_px, view.heldout, strict=True):
            if i < j and not heldout.all():
                used = xyxy[~heldout]
                ends = keypoints[i].numbers(used[:, :2]), keypoints[j].numbers(used[:, 2:])
                found[i, j] = np.stack(ends, axis=1).astype(np.uint32)
    return found
