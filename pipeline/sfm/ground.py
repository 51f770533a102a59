"""The plane that an object stands on, if there is one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRIALS = 500
TOLERANCE = 0.008
"""Thickness of the plane as a share of the cameras' distance."""
MIN_POINTS = 40
MIN_SHARE = 0.15
MAX_BELOW = 0.08
"""A support has nearly nothing beneath it; a wall or a table top seen from the side does."""
BELOW_OF_HELD = 0.15
"""... at most this share of the points that it holds, where that is more: a shining table shows the
object's mirror image beneath it."""
MAX_TILT_DEG = 50.0


@dataclass(frozen=True)
class Ground:
    """A supporting plane: heights are `points @ normal - offset`, positive on the cameras' side."""

    normal: NDArray[np.float64]
    offset: float
    share: float

    def heights(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distances (P,) above the plane."""
        return points @ self.normal - self.offset


def find_ground(
    points: NDArray[np.float64],
    camera_centres: NDArray[np.float64],
    up: NDArray[np.float64],
    distance: float,
    rng: np.random.Generator,
) -> Ground | None:
    """The dominant plane of `points` (P, 3), if it can be what the object stands on.

    RANSAC, then least squares on the inliers. It must hold a fair share of the points, have the
    cameras above it and hardly any points beneath, and lie roughly across the cameras' up.

    Args:
        distance: of the cameras from the scene; sets the tolerance.
    """
    if len(points) < MIN_POINTS:
        return None
    tolerance = TOLERANCE * distance
    best = _ransac(points, tolerance, rng)
    if best is None:
        return None
    normal, offset = _refit(points, *best, tolerance)
    above = np.mean(camera_centres @ normal - offset > 0)
    if above < 0.5:
        normal, offset, above = -normal, -offset, 1 - above
    heights = points @ normal - offset
    share = float(np.mean(np.abs(heights) < tolerance))
    below = float(np.mean(heights < -2 * tolerance))
    tilt_deg = float(np.degrees(np.arccos(np.clip(normal @ up, -1, 1))))
    count = share * len(points)
    most_below = max(MAX_BELOW, BELOW_OF_HELD * share)
    if share < MIN_SHARE or count < MIN_POINTS or below > most_below:
        return None
    if above < 0.95 or tilt_deg > MAX_TILT_DEG:
        return None
    return Ground(normal, float(offset), share)


def _ransac(
    points: NDArray[np.float64], tolerance: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float] | None:
    best, best_count = None, 0
    for _ in range(TRIALS):
        a, b, c = points[rng.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = float(np.linalg.norm(normal))
        if length < 1e-12:
            continue
        normal /= length
        count = int((np.abs((points - a) @ normal) < tolerance).sum())
        if count > best_count:
            best, best_count = (normal, float(a @ normal)), count
    return best


def _refit(
    points: NDArray[np.float64], normal: NDArray[np.float64], offset: float, tolerance: float
) -> tuple[NDArray[np.float64], float]:
    for _ in range(5):
        inliers = points[np.abs(points @ normal - offset) < tolerance]
        mean = inliers.mean(axis=0)
        fitted = np.linalg.svd(inliers - mean, full_matrices=False)[2][2]
        normal = fitted if fitted @ normal > 0 else -fitted
        offset = float(mean @ normal)
    return normal, offset
