"""Camera poses of any tool, and which of two sets belong together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.idr import IdrCameras
from pipeline.formats.views import load_views, registered_names
from pipeline.geometry.pixels import colmap_to_idr_K
from pipeline.metrics.poses import MIN_VIEWS

VIEWS_FILE = "views.json"
_MATRIX_COLUMNS = {16: (4, 4), 12: (3, 4)}
_TUM_COLUMNS = 8


@dataclass(frozen=True)
class Trajectory:
    """Cameras of one file.

    Attributes:
        c2w: (N, 4, 4) camera-to-world, OpenCV axes.
        names: N photo names; None where the file tells none.
        cameras: the same with intrinsics (pixel centres at integers); None where unknown.
        unit: of lengths, where the format tells.
        source: for messages.
    """

    c2w: NDArray
    names: list[str] | None
    cameras: IdrCameras | None
    unit: str | None
    source: str

    def __len__(self) -> int:
        return len(self.c2w)


def load_trajectory(path: Path) -> Trajectory:
    """Read cameras: IDR, COLMAP, nerfstudio, ARKit, rows of 16 or 12 numbers, TUM, or an array.

    Text rows of 16 or 12 numbers are camera-to-world matrices row by row (KITTI, `refined_pose.txt`
    of PoRF), rows of 8 are TUM's time, position and quaternion (x, y, z, w).

    Raises:
        InputError: not readable as any of these, or poses that are no rigid transforms.
    """
    if path.suffix == ".txt" and path.is_file():
        return Trajectory(_rigid(_read_rows(path), path), None, None, None, str(path))
    if path.suffix == ".npy":
        return Trajectory(_rigid(_read_array(path), path), None, None, None, str(path))
    posed = load_cameras(path)
    c2w = _rigid(np.stack([camera.c2w for camera in posed.cameras]), path)
    K = np.stack([colmap_to_idr_K(camera.K) for camera in posed.cameras])
    scale_mat = posed.scale_mat if posed.scale_mat is not None else np.eye(4)
    names = [camera.name for camera in posed.cameras] if posed.named else _view_names(path)
    if names is not None and len(names) != len(c2w):
        raise InputError(f"{path} has {len(c2w)} cameras, but {len(names)} photo names go with it")
    return Trajectory(c2w, names, IdrCameras(K, c2w, scale_mat), posed.unit, str(path))


def _view_names(path: Path) -> list[str] | None:
    """Names from the `views.json` that a run leaves beside its cameras."""
    beside = path.with_name(VIEWS_FILE)
    return registered_names(load_views(beside)) if beside.is_file() else None


def _read_rows(path: Path) -> NDArray:
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable table of numbers ({error})") from error
    columns = rows.shape[1]
    if columns == _TUM_COLUMNS:
        if not np.isfinite(rows).all() or (np.linalg.norm(rows[:, 4:], axis=1) == 0).any():
            raise InputError(f"{path}: a quaternion has no length, or a number is not finite")
        c2w = np.tile(np.eye(4), (len(rows), 1, 1))
        c2w[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
        c2w[:, :3, 3] = rows[:, 1:4]
        return c2w
    if columns not in _MATRIX_COLUMNS:
        raise InputError(
            f"{path} has rows of {columns} numbers",
            hint="expected 16 or 12 (camera-to-world matrices) or 8 (TUM: t x y z qx qy qz qw)",
        )
    return rows.reshape(-1, *_MATRIX_COLUMNS[columns])


def _read_array(path: Path) -> NDArray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable array ({error})") from error


def _rigid(poses: NDArray, path: Path) -> NDArray:
    """Poses (N, 4, 4) from (N, 3, 4) or (N, 4, 4), refused where they are not rigid."""
    if poses.ndim != 3 or poses.shape[1:] not in _MATRIX_COLUMNS.values():
        raise InputError(f"{path}: expected poses (N, 4, 4), got an array of {poses.shape}")
    c2w = np.tile(np.eye(4), (len(poses), 1, 1))
    c2w[:, :3] = poses[:, :3]
    rotation = c2w[:, :3, :3]
    gram = np.swapaxes(rotation, -1, -2) @ rotation
    rigid = np.isfinite(c2w).all() and np.abs(gram - np.eye(3)).max() < 1e-2
    if not rigid or (np.linalg.det(rotation) < 0).any():
        raise InputError(
            f"{path}: some poses are no rigid transforms (scaled, mirrored, or not finite)",
            hint="expected camera-to-world matrices with a pure rotation",
        )
    return c2w


def pair_cameras(estimate: Trajectory, truth: Trajectory) -> tuple[NDArray, NDArray]:
    """Indices (J,) into both, of cameras of one photo: by name, or by position without names.

    Raises:
        InputError: fewer than three pairs, or counts that differ where names are missing.
    """
    if estimate.names is None or truth.names is None:
        if len(estimate) != len(truth):
            raise InputError(
                f"{estimate.source} has {len(estimate)} cameras, {truth.source} has {len(truth)}, "
                "and not both name their photos",
                hint="put `image_names.json` (a list of names in the cameras' order) beside each",
            )
        here = there = np.arange(len(estimate))
    else:
        place = {Path(name).stem.lower(): i for i, name in enumerate(truth.names)}
        stems = [Path(name).stem.lower() for name in estimate.names]
        here = np.array([i for i, stem in enumerate(stems) if stem in place], dtype=np.int64)
        there = np.array([place[stems[i]] for i in here], dtype=np.int64)
    if len(here) < MIN_VIEWS:
        raise InputError(
            f"{estimate.source} and {truth.source} share only {len(here)} photos; at least "
            f"{MIN_VIEWS} are needed",
            hint="check that both are of the same photos, and how these are named",
        )
    return here, there
