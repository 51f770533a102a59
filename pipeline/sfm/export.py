"""Cameras of a finished case for other programs, in any frame that was ever recorded."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.camera_files import CASE_FILES, NAMES_FILE, TRANSFORMS_FILE
from pipeline.formats.case import common_size, sorted_images
from pipeline.formats.colmap_model import ScenePoint, as_reconstruction
from pipeline.formats.frame import WorldFrame, load_frame
from pipeline.formats.idr import IdrCameras, load_idr_cameras, save_idr_cameras
from pipeline.formats.nerfstudio import OPENCV_FROM_OPENGL, save_transforms
from pipeline.formats.posed import (
    PosedCamera,
    from_idr,
    to_idr,
    with_radial,
    without_distortion,
)
from pipeline.formats.poses import save_pose_text
from pipeline.formats.views import load_views, registered_names
from pipeline.geometry.pixels import idr_to_colmap_px
from pipeline.geometry.similarity import Similarity
from pipeline.imaging.records import load_ingest
from pipeline.sfm.undistortion import undistort_points_px
from pipeline.sfm.views import RegisteredView, load_model, registered_views
from pipeline.store.files import write_json

State = Literal["sfm", "refined"]
FrameName = Literal["world", "sfm", "unit-sphere"]
Format = Literal["colmap", "nerfstudio", "idr"]
FORMATS: tuple[Format, ...] = ("colmap", "nerfstudio", "idr")
REFINED_FILE = "cameras_refine_porf.npz"
TRAIN_FIGURES = "train.json"
FRAME_FILE = "frame.json"
POSES_FILES: dict[State, str] = {"sfm": "poses.txt", "refined": "refined_pose.txt"}
IMAGES = "images"


@dataclass(frozen=True)
class CameraState:
    """Cameras of all registered views at one stage of a case.

    Attributes:
        state: which stage.
        cameras: named as their images in the export.
        images: the image file of each.
        photo_names: the user's photo behind each.
        scale_mat: (4, 4) unit sphere of the region of interest → world.
        points: sparse points with their observations in these images; may be none.
        frame: what the world frame is.
        distortion: k1, k2 that refinement found in the undistorted images; the cameras have them.
    """

    state: State
    cameras: list[PosedCamera]
    images: list[Path]
    photo_names: list[str]
    scale_mat: NDArray[np.float64]
    points: list[ScenePoint]
    frame: WorldFrame
    distortion: tuple[float, float] | None = None

    def moved(self, similarity: Similarity) -> "CameraState":
        """The same in another frame, which `similarity` leads to."""
        cameras = [replace(c, c2w=similarity.apply_c2w(c.c2w)) for c in self.cameras]
        points = [replace(p, xyz=similarity.apply_points(p.xyz)) for p in self.points]
        scale_mat = np.diag([*[similarity.scale * self.scale_mat[0, 0]] * 3, 1.0])
        scale_mat[:3, 3] = similarity.apply_points(self.scale_mat[:3, 3])
        return replace(self, cameras=cameras, points=points, scale_mat=scale_mat)


@dataclass(frozen=True)
class CaseParts:
    """Artifact folders of a run by stage; `train` only where it was trained."""

    ingest: Path
    sfm: Path
    scene: Path
    train: Path | None


def state_of_run(parts: CaseParts, state: State, undistorted: bool) -> CameraState:
    """Cameras of a run.

    Args:
        undistorted: pinhole cameras of the ideal views, which training and all refinement use;
            otherwise the lenses with distortion of the upright photos, with the poses of `state`.

    Raises:
        InputError: the refined cameras are asked for where there are none, or refinement changed
            the lens and the photos' own is asked for.
    """
    ideal = load_idr_cameras(parts.scene / "cameras_colmap.npz")
    chosen, distortion = ideal, None
    if state == "refined":
        if parts.train is None:
            raise InputError(
                "there are no refined cameras yet",
                hint="run `porf run` to the stage train, or export --state sfm",
            )
        chosen = load_idr_cameras(parts.train / REFINED_FILE)
        distortion = _distortion_left(parts.train)
    model = load_model(parts.sfm)
    views = registered_views(model, load_ingest(parts.ingest / "ingest.json"))
    names = registered_names(load_views(parts.scene / "views.json"))
    if undistorted:
        images = sorted_images(parts.scene / "image")
        size_px = common_size(images[:1])
        pinholes = from_idr(chosen, [path.name for path in images], size_px, str(parts.scene))
        cameras = _distorted(pinholes, distortion)
        points = _ideal_points(model, views, ideal.K)  # the images are made with these
    else:
        _require_same_lens(ideal, chosen, distortion)
        images = [parts.ingest / str(view.photo.file) for view in views]
        cameras = [_photo_camera(view, chosen.c2w[view.index]) for view in views]
        points = _points(model, views, {view.image_id: _seen(model, view) for view in views})
    if state == "refined":
        points = settle_points(cameras, points)
    frame = load_frame(parts.sfm / "sfm.json")
    return CameraState(state, cameras, images, names, chosen.scale_mat, points, frame, distortion)


def _distortion_left(train: Path) -> tuple[float, float] | None:
    """k1, k2 that training found in the views and undid."""
    file = train / TRAIN_FIGURES
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))["figures"].get("distortion_left")
    return None if found is None else (float(found[0]), float(found[1]))


def _distorted(
    pinholes: list[PosedCamera], distortion: tuple[float, float] | None
) -> list[PosedCamera]:
    return [with_radial(c, *distortion) for c in pinholes] if distortion else pinholes


def _require_same_lens(
    ideal: IdrCameras, chosen: IdrCameras, distortion: tuple[float, float] | None
) -> None:
    if distortion is None and np.allclose(ideal.K, chosen.K, rtol=0, atol=1e-3):
        return
    raise InputError(
        "refinement changed the lens of the undistorted views, which the photos' own lens model"
        " cannot follow",
        hint="export the undistorted views (--views undistorted), or --state sfm",
    )


def state_of_case(folder: Path, state: State, train: Path | None = None) -> CameraState:
    """Cameras of a case in the PoRF convention that came from elsewhere.

    Args:
        train: the artifact that the refined cameras are from, where they are of a run.

    Raises:
        InputError: no cameras of that state, or images that do not fit them.
    """
    files = (REFINED_FILE,) if state == "refined" else CASE_FILES
    found = [folder / name for name in files if (folder / name).is_file()]
    if not found:
        raise InputError(
            f"no cameras in {folder}: expected {' or '.join(files)}",
            hint="give the output folder of a run, or a case in the PoRF convention",
        )
    images = sorted_images(folder / "image")
    cameras = load_idr_cameras(found[0])
    size_px = common_size(images[:1])
    names = [path.name for path in images]
    distortion = _distortion_left(train) if train and state == "refined" else None
    posed = _distorted(from_idr(cameras, names, size_px, str(found[0])), distortion)
    frame = WorldFrame(source="the case's own cameras")
    return CameraState(state, posed, images, names, cameras.scale_mat, [], frame, distortion)


def in_frame(state: CameraState, frame: FrameName) -> tuple[CameraState, Similarity]:
    """The state in the frame of that name, and the similarity world → that frame."""
    if frame == "world":
        similarity = Similarity.identity()
    elif frame == "sfm":
        similarity = state.frame.from_sfm.inverse()
    else:
        similarity = Similarity.from_matrix(state.scale_mat).inverse()
    return state.moved(similarity), similarity


def write_export(
    out: Path, state: CameraState, formats: Sequence[Format], frame: FrameName, with_images: bool
) -> list[str]:
    """Write the cameras into the folder `out`; returns the names of the files there.

    Besides the formats asked for: camera-to-world rows (`refined_pose.txt` as the original writes
    it, or `poses.txt`), and `frame.json` (unit, and every similarity in both directions).

    Raises:
        InputError: a format that cannot express these cameras.
    """
    out.mkdir(parents=True, exist_ok=True)
    moved, similarity = in_frame(state, frame)
    names = [Path(camera.name).name for camera in moved.cameras]
    if "colmap" in formats:
        folder = out / "sparse" / "0"
        folder.mkdir(parents=True)
        as_reconstruction(moved.cameras, moved.points).write_binary(str(folder))
        as_reconstruction(moved.cameras, moved.points).write_text(str(folder))
    if "nerfstudio" in formats:
        listed = [replace(c, name=f"{IMAGES}/{c.name}") for c in moved.cameras]
        save_transforms(out / TRANSFORMS_FILE, listed, {"unit": _unit(state, frame)})
    if "idr" in formats:
        straight = moved.cameras
        if state.distortion:  # the convention knows none; whoever exports is told
            straight = [without_distortion(camera) for camera in moved.cameras]
        cameras = to_idr(straight, moved.scale_mat)
        save_idr_cameras(out / "cameras.npz", cameras, unit=_unit(state, frame))
        write_json(out / NAMES_FILE, names)
    save_pose_text(out / POSES_FILES[state.state], np.stack([c.c2w for c in moved.cameras]))
    write_json(out / FRAME_FILE, _frame_record(state, frame, similarity, names))
    if with_images:
        (out / IMAGES).mkdir()
        for path, name in zip(state.images, names, strict=True):
            shutil.copyfile(path, out / IMAGES / name)
    return sorted(path.name for path in out.iterdir())


def settle_points(cameras: Sequence[PosedCamera], points: list[ScenePoint]) -> list[ScenePoint]:
    """The points moved to where refined cameras see them best; the cameras stay (robust)."""
    if not points:
        return points
    model = as_reconstruction(cameras, points)
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
        config.set_constant_rig_from_world_pose(model.image(image_id).frame_id)
    for camera_id in model.cameras:
        config.set_constant_cam_intrinsics(camera_id)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    pycolmap.create_default_ceres_bundle_adjuster(options, config, model).solve()
    found = [model.points3D[i].xyz for i in sorted(model.points3D)]
    return [replace(p, xyz=np.array(xyz)) for p, xyz in zip(points, found, strict=True)]


def _unit(state: CameraState, frame: FrameName) -> str:
    return {"world": state.frame.unit, "sfm": "unknown", "unit-sphere": "radius"}[frame]


def _frame_record(
    state: CameraState, frame: FrameName, similarity: Similarity, names: list[str]
) -> dict[str, object]:
    return {
        "cameras": state.state,
        "frame": frame,
        "unit": _unit(state, frame),
        "export_from_world": similarity.matrix.tolist(),
        "world_from_export": similarity.inverse().matrix.tolist(),
        "world": state.frame.as_json(),
        "unit_sphere_to_world": state.scale_mat.tolist(),
        "distortion_of_images": list(state.distortion) if state.distortion else None,
        "opencv_from_opengl_axes": OPENCV_FROM_OPENGL.tolist(),
        "photos": dict(zip(names, state.photo_names, strict=True)),
    }


def _photo_camera(view: RegisteredView, c2w: NDArray[np.float64]) -> PosedCamera:
    camera = view.camera
    return PosedCamera(
        Path(str(view.photo.file)).name,
        camera.model_name,
        tuple(float(p) for p in camera.params),
        (int(camera.width), int(camera.height)),
        np.array(c2w),
    )


def _seen(model: pycolmap.Reconstruction, view: RegisteredView) -> NDArray[np.float64]:
    points = model.image(view.image_id).points2D
    return np.array([point.xy for point in points], dtype=np.float64).reshape(-1, 2)


def _ideal_points(
    model: pycolmap.Reconstruction, views: list[RegisteredView], K: NDArray[np.float64]
) -> list[ScenePoint]:
    ideal = {
        view.image_id: idr_to_colmap_px(
            undistort_points_px(view.camera, K[view.index], _seen(model, view))
        )
        for view in views
    }
    return _points(model, views, ideal)


def _points(
    model: pycolmap.Reconstruction,
    views: list[RegisteredView],
    xy_px: dict[int, NDArray[np.float64]],
) -> list[ScenePoint]:
    index_of = {view.image_id: view.index for view in views}
    points = []
    for point_id in sorted(model.points3D):
        point = model.points3D[point_id]
        seen = sorted(
            (index_of[e.image_id], e.image_id, e.point2D_idx) for e in point.track.elements
        )
        places = np.array([xy_px[image_id][position] for _, image_id, position in seen])
        if np.isfinite(places).all():
            views_of = [index for index, _, _ in seen]
            points.append(ScenePoint(np.array(point.xyz), np.array(point.color), views_of, places))
    return points
