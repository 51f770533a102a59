"""What is known of a principal point before and after the observations.

Before: it lies near the image centre, Gaussian with `PRIOR_SIGMA` of the longer side. After: the
Gaussian product of that and the adjustment's estimate. All covariances here are `OVERDISPERSION`
times the formal ones.
"""

from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

OVERDISPERSION = 4.0
"""Observations share their errors (a feature is matched many times, detectors have biases), so
likelihood ratios are divided, and variances multiplied, by this. With rendered photos, whose
principal point is known to be at the centre, formal deviations of up to 5 σ were seen."""
PRIOR_SIGMA = 0.02
"""Principal points of real cameras lie within about 2% of the longer side from the centre."""


@dataclass(frozen=True)
class PrincipalPoint:
    """Where one camera's principal point was found.

    Attributes:
        camera: COLMAP's camera id.
        offset_px: x, y from the image centre, as kept.
        free_offset_px: x, y before the prior; None if it was not refined.
        sigma_px: standard deviations x, y after the observations, overdispersion and prior
            included; as wide as the prior where the observations say nothing.
        rotation_sigma_deg: what that uncertainty is worth as a rotation of all cameras.
    """

    camera: int
    offset_px: tuple[float, float]
    free_offset_px: tuple[float, float] | None
    sigma_px: tuple[float, float]
    rotation_sigma_deg: float


def centre_offset_px(camera: pycolmap.Camera) -> NDArray[np.float64]:
    """Principal point (2,) relative to the image centre, pixels."""
    point = np.array([camera.principal_point_x, camera.principal_point_y])
    return point - np.array([camera.width, camera.height]) / 2


def estimate(
    camera: pycolmap.Camera, covariance: NDArray[np.float64] | None, free: bool
) -> PrincipalPoint:
    """The estimate to keep, and how sure it is.

    Args:
        camera: as an adjustment left it.
        covariance: formal, of f, cx, cy, …; None if unknown: then only the prior is left.
        free: whether the adjustment refined the point; otherwise it stays where it is.
    """
    found = centre_offset_px(camera)
    prior = _prior(camera)
    gain = np.zeros((2, 2))
    if covariance is not None:
        gain = prior @ np.linalg.inv(prior + _spread(covariance))
    kept = gain @ found if free else found
    sigma = np.sqrt(np.diag(prior - gain @ prior))
    return PrincipalPoint(
        camera=camera.camera_id,
        offset_px=(float(kept[0]), float(kept[1])),
        free_offset_px=(float(found[0]), float(found[1])) if free else None,
        sigma_px=(float(sigma[0]), float(sigma[1])),
        rotation_sigma_deg=float(np.degrees(np.linalg.norm(sigma) / camera.mean_focal_length())),
    )


def evidence_penalty(camera: pycolmap.Camera, covariance: NDArray[np.float64]) -> float:
    """What a free principal point costs against one at the centre, in units of -2 log likelihood.

    Laplace's approximation of the marginal likelihood under the prior (MacKay, "Information
    Theory, Inference and Learning Algorithms", 2003, chapter 28): the price of the volume that the
    observations rule out, and of an estimate that the prior finds unlikely.

    Args:
        camera: with the refined point.
        covariance: formal, of f, cx, cy, ….
    """
    spread, found = _spread(covariance), centre_offset_px(camera)
    total = _prior(camera) + spread
    volume = np.linalg.slogdet(total)[1] - np.linalg.slogdet(spread)[1]
    return float(volume + found @ np.linalg.solve(total, found))


def move_to(camera: pycolmap.Camera, point: PrincipalPoint) -> float:
    """Put the principal point where it is kept; returns how far it moved, in pixels."""
    offset = np.array(point.offset_px)
    moved = float(np.abs(offset - centre_offset_px(camera)).max())
    camera.principal_point_x = camera.width / 2 + float(offset[0])
    camera.principal_point_y = camera.height / 2 + float(offset[1])
    return moved


def _prior(camera: pycolmap.Camera) -> NDArray[np.float64]:
    return np.eye(2) * (PRIOR_SIGMA * max(camera.width, camera.height)) ** 2


def _spread(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    return covariance[1:3, 1:3] * OVERDISPERSION
