"""Pinhole cameras. OpenCV axes: x right, y down, z forward; `c2w` is camera-to-world."""

import cv2
import numpy as np
from numpy.typing import NDArray


def invert_pose(pose: NDArray) -> NDArray:
    """Inverse of rigid transforms (..., 4, 4): `c2w` to `w2c` and back."""
    pose = np.asarray(pose, dtype=np.float64)
    rotation_t = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse = np.zeros_like(pose)
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation_t, pose[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def make_pose(rotation: NDArray, translation: NDArray) -> NDArray:
    """Rigid transforms (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3)."""
    rotation = np.asarray(rotation, dtype=np.float64)
    pose = np.zeros((*rotation.shape[:-2], 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1.0
    return pose


def projection_matrix(K: NDArray, c2w: NDArray) -> NDArray:
    """P = K [R|t] (..., 4, 4), last row (0, 0, 0, 1), from K (..., 3, 3) and c2w (..., 4, 4)."""
    K = np.asarray(K, dtype=np.float64)
    K4 = np.zeros((*K.shape[:-2], 4, 4))
    K4[..., :3, :3] = K
    K4[..., 3, 3] = 1.0
    return K4 @ invert_pose(c2w)


def decompose_projection(P: NDArray) -> tuple[NDArray, NDArray]:
    """Split a projection (3, 4) into K (3, 3), with K[2, 2] = 1, and c2w (4, 4).

    Source: RQ decomposition as in IDR's `load_K_Rt_from_P`.
    """
    K, R_w2c, centre = cv2.decomposeProjectionMatrix(np.asarray(P, dtype=np.float64)[:3])[:3]
    c2w = make_pose(R_w2c.T, (centre[:3] / centre[3])[:, 0])
    return K / K[2, 2], c2w


def project(K: NDArray, c2w: NDArray, points: NDArray) -> tuple[NDArray, NDArray]:
    """Project world points (P, 3) into one camera.

    Returns:
        Pixels (P, 2) in the convention of K, and depths (P,) along the optical axis; pixels of
        points that are not in front of the camera (depth ≤ 0) are NaN.
    """
    w2c = invert_pose(c2w)
    in_camera = np.asarray(points, dtype=np.float64) @ w2c[:3, :3].T + w2c[:3, 3]
    depth = in_camera[:, 2]
    safe = np.where(depth > 0, depth, np.nan)
    xy_px = (in_camera @ np.asarray(K, dtype=np.float64).T)[:, :2] / safe[:, None]
    return xy_px, depth


def pixel_rays(K: NDArray, c2w: NDArray, xy_px: NDArray) -> tuple[NDArray, NDArray]:
    """World-frame origins (P, 3) and unit directions (P, 3) of the rays through pixels (P, 2)."""
    xy_px = np.asarray(xy_px, dtype=np.float64)
    homogeneous = np.concatenate([xy_px, np.ones((len(xy_px), 1))], axis=1)
    in_camera = homogeneous @ np.linalg.inv(K).T
    directions = in_camera @ np.asarray(c2w)[:3, :3].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.broadcast_to(np.asarray(c2w)[:3, 3], directions.shape).copy()
    return origins, directions


def look_at(centre: NDArray, target: NDArray, up: NDArray) -> NDArray:
    """c2w (4, 4) of a camera at `centre` (3,) looking at `target` (3,), image top toward `up`."""
    forward = np.asarray(target, dtype=np.float64) - np.asarray(centre, dtype=np.float64)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    return make_pose(np.stack([right, down, forward], axis=1), np.asarray(centre))


def spread_views(centres: NDArray, limit: int) -> list[int]:
    """Indices, ascending, of up to `limit` cameras that lie far apart; centres (N, 3).

    Greedy (farthest-point sampling): starts with the first camera and adds the one farthest from
    all chosen.
    """
    chosen = [0] if limit else []
    nearest = np.linalg.norm(centres - centres[0], axis=1)
    while len(chosen) < min(limit, len(centres)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(centres - centres[chosen[-1]], axis=1))
    return sorted(chosen)
