"""Two-view geometry."""

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.cameras import invert_pose


def skew(v: NDArray) -> NDArray:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = np.moveaxis(np.asarray(v, dtype=np.float64), -1, 0)
    o = np.zeros_like(x)
    return np.stack([o, -z, y, z, o, -x, -y, x, o], axis=-1).reshape(*x.shape, 3, 3)


def fundamental_matrix(K1: NDArray, c2w1: NDArray, K2: NDArray, c2w2: NDArray) -> NDArray:
    """F (3, 3) with x2ᵀ F x1 = 0 for homogeneous pixels (Hartley and Zisserman, chapter 9)."""
    relative = invert_pose(c2w2) @ np.asarray(c2w1, dtype=np.float64)
    essential = skew(relative[:3, 3]) @ relative[:3, :3]
    return np.linalg.inv(K2).T @ essential @ np.linalg.inv(K1)


def symmetric_epipolar_distance_px(F: NDArray, matches_px: NDArray) -> NDArray:
    """Symmetric epipolar distances (M,) in pixels of matches (M, 4) x1, y1, x2, y2.

    The root of the summed squared distances to both epipolar lines, as PoRF uses it (not squared).
    """
    matches_px = np.asarray(matches_px, dtype=np.float64)
    ones = np.ones((len(matches_px), 1))
    x1 = np.concatenate([matches_px[:, :2], ones], axis=1)
    x2 = np.concatenate([matches_px[:, 2:], ones], axis=1)
    line2, line1 = x1 @ F.T, x2 @ F
    residual = (x2 * line2).sum(axis=1)
    weight = 1 / (line1[:, :2] ** 2).sum(axis=1) + 1 / (line2[:, :2] ** 2).sum(axis=1)
    return np.sqrt(residual**2 * weight)
