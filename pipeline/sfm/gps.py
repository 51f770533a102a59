"""SfM's frame to metres, east-north-up, by the GPS positions in the photos."""

from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.frame import WorldFrame
from pipeline.geometry.similarity import Similarity, umeyama

TRIALS = 500
MIN_SPREAD_SIGMAS = 5.0
"""The cameras must spread over this many standard deviations of the GPS error: below, the error
decides the scale."""
MIN_INLIERS = 0.6
SIGMA_OF_MEDIAN = 0.65
"""Standard deviation a coordinate over the median length of a 3-D Gaussian error."""
INLIER_SIGMAS = 4.0
MIN_SIGMA_M = 0.05
"""No receiver in a camera knows better."""
FAIR_M, FAIR_SHARE = 2.5, 0.1
"""A misfit below both this and this share of the cameras' extent is what receivers do: no reason to
leave a photo out."""
LINE_SHARE = 0.1
"""Cameras whose second extent is below this share of the first stand on a line."""


@dataclass(frozen=True)
class GpsPhoto:
    """A registered photo with a position: latitude and longitude in degrees, altitude in metres."""

    name: str
    centre: NDArray[np.float64]
    position: tuple[float, float, float]


def positions_m(
    given: list[tuple[float, float, float | None] | None],
) -> NDArray[np.float64] | None:
    """East, north and, where all photos with a position have an altitude, up in metres (N, 2 or 3).

    Args:
        given: latitude, longitude in degrees, altitude in metres of each photo.

    Returns:
        NaN for photos without a position; None where fewer than half have one.
    """
    known = [position for position in given if position is not None]
    if 2 * len(known) < len(given) or not known:
        return None
    level = any(position[2] is None for position in known)
    flat = np.array([(p[0], p[1], 0.0 if level else p[2]) for p in known], dtype=np.float64)
    metres = pycolmap.GPSTransform().ellipsoid_to_enu(flat, *np.median(flat, axis=0))
    placed = np.full((len(given), 2 if level else 3), np.nan)
    placed[[p is not None for p in given]] = np.asarray(metres)[:, : placed.shape[1]]
    return placed


def gps_frame(photos: list[GpsPhoto], min_photos: int, seed: int) -> WorldFrame:
    """The frame east (x), north (y), up (z) in metres, from the positions that agree.

    Least median of squares over similarities, then least squares on what agrees.

    Raises:
        InputError: too few photos agree, or positions too coarse for the size of the scene.
    """
    if len(photos) < min_photos:
        raise InputError(
            f"{len(photos)} registered photos carry GPS with altitude: expected {min_photos}"
        )
    given = np.array([photo.position for photo in photos])
    origin = np.median(given, axis=0)
    metres = pycolmap.GPSTransform().ellipsoid_to_enu(given, *origin)
    centres = np.stack([photo.centre for photo in photos])
    _refuse_one_place(metres)
    similarity, inliers, sigma_m = _robust(centres, metres, np.random.default_rng(seed))
    spread = np.linalg.svd(metres[inliers] - metres[inliers].mean(axis=0), compute_uv=False)
    spread_m = spread / np.sqrt(inliers.sum())
    outliers = [photo.name for photo, fits in zip(photos, inliers, strict=True) if not fits]
    if inliers.sum() < max(min_photos, MIN_INLIERS * len(photos)):
        raise InputError(
            f"GPS fits the cameras in only {inliers.sum()} of {len(photos)} photos",
            hint="the positions are wrong, or the cameras are",
        )
    if spread_m[0] < MIN_SPREAD_SIGMAS * sigma_m:
        raise InputError(
            f"GPS errs by about {sigma_m:.1f} m, too much for cameras spread over"
            f" {spread_m[0]:.1f} m"
        )
    figures = {
        "photos": int(inliers.sum()),
        "error_m": round(sigma_m, 3),
        "scale_sigma_percent": round(
            float(100 * sigma_m / (spread_m[0] * np.sqrt(inliers.sum()))), 3
        ),
        "outliers": outliers,
    }
    if spread_m[1] < max(LINE_SHARE * spread_m[0], MIN_SPREAD_SIGMAS * sigma_m / 2):
        # a line of cameras tells the scale, but not how the scene is turned around it
        scale_only = Similarity(similarity.scale, np.eye(3), np.zeros(3))
        return WorldFrame(
            "m", "GPS, scale only: the cameras stand on a line", scale_only, figures=figures
        )
    place = (float(origin[0]), float(origin[1]), float(origin[2]))
    return WorldFrame("m", "GPS: east, north, up", similarity, (0.0, 0.0, 1.0), place, figures)


def _refuse_one_place(metres: NDArray[np.float64]) -> None:
    if np.linalg.norm(metres - metres[0], axis=1).max() < 10 * MIN_SIGMA_M:
        raise InputError("all photos carry the same GPS position")


def _robust(
    centres: NDArray[np.float64], metres: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Similarity, NDArray[np.bool_], float]:
    """Similarity, what agrees with it, and the standard deviation a coordinate in metres."""
    best, best_median = umeyama(centres, metres), np.inf
    for _ in range(TRIALS):
        sample = rng.choice(len(centres), 4, replace=False)
        try:
            candidate = umeyama(centres[sample], metres[sample])
        except InputError:
            continue
        median = float(np.median(_misfit(candidate, centres, metres)))
        if median < best_median:
            best, best_median = candidate, median
    sigma = max(SIGMA_OF_MEDIAN * best_median, MIN_SIGMA_M)
    extent_m = float(np.linalg.norm(metres - np.median(metres, axis=0), axis=1).mean())
    fair_m = min(FAIR_M, FAIR_SHARE * extent_m)
    inliers = _misfit(best, centres, metres) < max(INLIER_SIGMAS * sigma, fair_m)
    for _ in range(3):
        if inliers.sum() < 4:
            break
        best = umeyama(centres[inliers], metres[inliers])
        misfit = _misfit(best, centres, metres)
        redundancy = max(3 * int(inliers.sum()) - 7, 1)
        sigma = max(float(np.sqrt((misfit[inliers] ** 2).sum() / redundancy)), MIN_SIGMA_M)
        inliers = misfit < max(INLIER_SIGMAS * sigma, fair_m)
    return best, inliers, sigma


def _misfit(
    similarity: Similarity, centres: NDArray[np.float64], metres: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.linalg.norm(similarity.apply_points(centres) - metres, axis=1)
