"""How far the rotations can be off: from the normal equations of the last adjustment.

The covariance of all poses and lenses is the inverse of the adjustment's normal equations with the
points eliminated (Triggs et al., "Bundle adjustment: a modern synthesis", 2000, section 6.1). Seven
directions are free by nature, the frame's place, turn and size. They are fixed by what an alignment
on camera centres fixes (inner constraints, section 9.2.1 there): the figure is the error that a
comparison with true cameras would find. Principal points carry their prior.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.linalg import inv
from scipy.sparse import block_diag, csr_matrix, hstack

from pipeline.sfm.adjustment import cameras_in_use, robust_sigma_px, squared_residuals_px
from pipeline.sfm.calibration import sample_tracks
from pipeline.sfm.colmap import c2w_of, registered_ids
from pipeline.sfm.principal_point import OVERDISPERSION, PRIOR_SIGMA

MAX_VIEWS = 600
"""The covariance is a dense matrix of six rows a view."""
STEP = 1e-6
DAMPING = 1e-9
"""Of the mean information on a point: points on a view ray's own line stay invertible."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class RotationUncertainty:
    """Expected rotation errors in degrees, one standard deviation (root mean square angle).

    Attributes:
        by_image: image id → after an alignment on camera centres.
        median_deg: over the views.
        common_deg: the part that turns all cameras alike in their own frames, as a wrong principal
            point does.
        scatter_median_deg: the rest, over the views.
    """

    by_image: dict[int, float]
    median_deg: float
    common_deg: float
    scatter_median_deg: float

    def as_json(self, names: dict[int, str]) -> dict[str, Any]:
        """For `sfm.json`; views by photo name."""
        return {
            "median_deg": self.median_deg,
            "common_deg": self.common_deg,
            "scatter_median_deg": self.scatter_median_deg,
            "views_deg": {names[i]: sigma for i, sigma in self.by_image.items()},
        }


@dataclass(frozen=True)
class _Linear:
    """Derivatives of all observations, stacked: (2O, D) by poses and lenses, (2O, 3P) by points."""

    by_cameras: csr_matrix
    by_points: csr_matrix


def rotation_uncertainty(model: pycolmap.Reconstruction) -> RotationUncertainty | None:
    """Expected errors of an adjusted model; None where the observations do not determine it.

    Observations are taken to err independently with their robust deviation, times the
    overdispersion that calibration reckons with.
    """
    ids = registered_ids(model)
    if not 3 <= len(ids) <= MAX_VIEWS:
        return None
    squared_px = squared_residuals_px(model)
    sample = sample_tracks(model)
    sampled = sum(point.track.length() for point in sample.points3D.values())
    variance = OVERDISPERSION * robust_sigma_px(squared_px) ** 2 * sampled / len(squared_px)
    try:
        information = _reduced(_derivatives(sample, ids)) / max(variance, 1e-12)
        _add_prior(information, model, ids)
        covariance = _inverse_in_gauge(information, _centre_constraints(model, ids))
    except np.linalg.LinAlgError:
        return None
    turns = covariance[: 6 * len(ids), : 6 * len(ids)].reshape(len(ids), 6, len(ids), 6)
    return _summed_up(turns[:, :3, :, :3], ids)


def _summed_up(turns: Matrix, ids: list[int]) -> RotationUncertainty | None:
    """From the covariance (N, 3, N, 3) of the rotations in the camera frames, radians²."""
    count = len(ids)
    own = np.einsum("iaia->i", turns)
    common = np.einsum("iaja->", turns) / count**2
    # of the differences to the mean over all views
    scatter = own - 2 * np.einsum("iaja->i", turns) / count + common
    if not np.isfinite(turns).all() or min(own.min(), scatter.min(), common) < 0:
        return None
    degrees = np.degrees(np.sqrt(own))
    return RotationUncertainty(
        by_image={i: float(d) for i, d in zip(ids, degrees, strict=True)},
        median_deg=float(np.median(degrees)),
        common_deg=float(np.degrees(np.sqrt(common))),
        scatter_median_deg=float(np.median(np.degrees(np.sqrt(scatter)))),
    )


def _derivatives(model: pycolmap.Reconstruction, ids: list[int]) -> _Linear:
    """A pose is a turn in the camera frame (radians) and a shift of the centre in the world."""
    lenses = {camera_id: n for n, camera_id in enumerate(cameras_in_use(model))}
    point_at = {point_id: n for n, point_id in enumerate(sorted(model.point3D_ids()))}
    poses, by_lens, by_point, columns, lens_rows = [], [], [], [], []
    for image_id in ids:
        image = model.image(image_id)
        seen = [p.point3D_id for p in image.get_observation_points2D()]
        columns += [point_at[p] for p in seen]
        world = np.array([model.point3D(p).xyz for p in seen]).reshape(-1, 3)
        w2c = image.cam_from_world().matrix()
        in_camera = world @ w2c[:, :3].T + w2c[:, 3]
        by_camera_point = _by_point(image.camera, in_camera)
        turn = by_camera_point @ -_cross(in_camera)
        shift = by_camera_point @ -w2c[:, :3]
        poses.append(np.concatenate([turn, shift], axis=2).reshape(-1, 6))
        by_lens.append(_by_lens(image.camera, in_camera))
        lens_rows.append(lenses[image.camera_id])
        by_point.append(by_camera_point @ w2c[:, :3])
    return _Linear(
        hstack([block_diag(poses), _lens_columns(model, by_lens, lens_rows)], format="csr"),
        _point_columns(np.concatenate(by_point), np.array(columns), len(point_at)),
    )


def _lens_columns(
    model: pycolmap.Reconstruction, by_lens: list[Matrix], lens_of: list[int]
) -> csr_matrix:
    widths = [len(model.cameras[c].params) for c in cameras_in_use(model)]
    starts = np.concatenate([[0], np.cumsum(widths)])
    stacked = np.zeros((sum(len(block) for block in by_lens), int(starts[-1])))
    row = 0
    for block, lens in zip(by_lens, lens_of, strict=True):
        stacked[row : row + len(block), starts[lens] : starts[lens + 1]] = block
        row += len(block)
    return csr_matrix(stacked)


def _point_columns(by_point: Matrix, columns: NDArray[np.int64], points: int) -> csr_matrix:
    """(O, 2, 3) derivatives, spread over 3P columns."""
    count = len(columns)
    rows = np.broadcast_to(np.arange(2 * count).reshape(count, 2, 1), (count, 2, 3))
    at = np.broadcast_to((3 * columns[:, None] + np.arange(3))[:, None, :], (count, 2, 3))
    return csr_matrix((by_point.ravel(), (rows.ravel(), at.ravel())), shape=(2 * count, 3 * points))


def _by_point(camera: pycolmap.Camera, in_camera: Matrix) -> Matrix:
    """(O, 2, 3) derivatives of pixels by points in the camera frame."""
    steps = STEP * np.maximum(np.abs(in_camera[:, 2:]), 1e-9)
    columns = []
    for axis in np.eye(3):
        ahead = camera.img_from_cam(in_camera + steps * axis)
        columns.append((ahead - camera.img_from_cam(in_camera - steps * axis)) / (2 * steps))
    return _in_front(np.stack(columns, axis=2), in_camera)


def _in_front(derivatives: Matrix, in_camera: Matrix) -> Matrix:
    """Zero for points behind the camera, of which an observation says nothing."""
    valid = (in_camera[:, 2] > 0) & np.isfinite(derivatives).all(axis=(1, 2))
    return np.where(valid[:, None, None], derivatives, 0.0)


def _by_lens(camera: pycolmap.Camera, in_camera: Matrix) -> Matrix:
    """(2O, K) derivatives of pixels by the lens's parameters."""
    params = np.array(camera.params)
    columns = []
    for n in range(len(params)):
        step = STEP * max(1.0, abs(params[n]))
        moved = [_with_params(camera, params + sign * step * np.eye(len(params))[n])
                 for sign in (1.0, -1.0)]  # fmt: skip
        ahead, behind = (lens.img_from_cam(in_camera) for lens in moved)
        columns.append((ahead - behind) / (2 * step))
    stacked = _in_front(np.stack(columns, axis=2), in_camera)
    return stacked.reshape(-1, len(params))


def _with_params(camera: pycolmap.Camera, params: Matrix) -> pycolmap.Camera:
    return pycolmap.Camera(
        model=camera.model_name, width=camera.width, height=camera.height, params=params
    )


def _cross(vectors: Matrix) -> Matrix:
    """(O, 3, 3) matrices of the cross product from the left."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


def _reduced(linear: _Linear) -> Matrix:
    """Normal matrix (D, D) of poses and lenses, points eliminated (Schur complement)."""
    points = linear.by_points
    blocks = (points.T @ points).tobsr((3, 3))
    blocks.sort_indices()
    damping = DAMPING * float(np.einsum("paa->", blocks.data)) / (3 * len(blocks.data))
    inverse = blocks.copy()
    inverse.data = np.linalg.inv(blocks.data + damping * np.eye(3))
    mixed = linear.by_cameras.T @ points
    full = linear.by_cameras.T @ linear.by_cameras
    return np.asarray((full - mixed @ inverse @ mixed.T).todense())


def _add_prior(information: Matrix, model: pycolmap.Reconstruction, ids: list[int]) -> None:
    at = 6 * len(ids)
    for camera_id in cameras_in_use(model):
        camera = model.cameras[camera_id]
        sigma_px = PRIOR_SIGMA * max(camera.width, camera.height)
        for index in camera.principal_point_idxs():
            information[at + index, at + index] += sigma_px**-2
        at += len(camera.params)


def _centre_constraints(model: pycolmap.Reconstruction, ids: list[int]) -> Matrix:
    """(6N, 7) what an alignment on the centres holds fixed: their mean, turn and size."""
    centres = np.stack([c2w_of(model.image(i))[:3, 3] for i in ids])
    centres = centres - centres.mean(axis=0)
    constraints = np.zeros((len(ids), 6, 7))
    constraints[:, 3:, :3] = np.eye(3)
    constraints[:, 3:, 3:6] = -_cross(centres)
    constraints[:, 3:, 6] = centres
    return constraints.reshape(6 * len(ids), 7)


def _inverse_in_gauge(information: Matrix, constraints: Matrix) -> Matrix:
    """Covariance (D, D) under constraintsᵀ x = 0, from the bordered normal equations."""
    size, fixed = len(information), constraints.shape[1]
    if not (np.diag(information) > 0).all() or not np.isfinite(information).all():
        raise np.linalg.LinAlgError("a view or a lens is not determined")
    scale = 1 / np.sqrt(np.diag(information))
    border = np.zeros((size, fixed))
    border[: len(constraints)] = constraints
    border *= scale[:, None]
    border /= np.linalg.norm(border, axis=0)
    bordered = np.zeros((size + fixed, size + fixed))
    bordered[:size, :size] = information * scale[:, None] * scale
    bordered[:size, size:] = border
    bordered[size:, :size] = border.T
    return np.asarray(inv(bordered)[:size, :size] * scale[:, None] * scale)
