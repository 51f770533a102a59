"""Self-calibration by evidence.

Mapping leaves the principal point at the image centre. A wrong principal point turns all cameras
together by offset / focal length (half a degree and more on real lenses), and no later refinement
of poses can undo that. Here lens models with and without a free principal point are adjusted to the
same observations and compared by the Bayesian information criterion; the winner's principal point
is then drawn toward the centre as far as its covariance is large.

PINHOLE (two focal lengths) and tangential distortion are left out on purpose: on rings of cameras
they trade against the principal point and make rotations worse.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sfm.adjustment import (
    Adjusted,
    adjust,
    cameras_in_use,
    robust_sigma_px,
    squared_residuals_px,
)
from pipeline.sfm.colmap import MODEL_PARAMS, convert_camera
from pipeline.sfm.config import SfmConfig

OVERDISPERSION = 4.0
"""Observations share their errors (a feature is matched many times, detectors have biases), so
likelihood ratios are divided, and variances multiplied, by this. With rendered photos, whose
principal point is known to be at the centre, formal deviations of up to 5 σ were seen."""
PRIOR_SIGMA = 0.02
"""Principal points of real cameras lie within about 2% of the longer side from the centre."""
MAX_OFFSET = 0.12
"""Share of the longer side; an adjustment that goes beyond has gone astray."""
MAX_OBSERVATIONS = 15_000
"""Candidates are compared on an even sample of the tracks with about this many observations; their
likelihoods are extrapolated to all."""
NEGLIGIBLE_PX = 0.02
LOSS_SCALE_SIGMAS = 2.0
MIN_LOSS_SCALE_PX = 0.1


@dataclass(frozen=True)
class Candidate:
    """One way to calibrate, and how well it explains the observations.

    Attributes:
        model: COLMAP's name of the lens model.
        principal_point: whether it is refined.
        median_px: median reprojection error.
        bic: the criterion, smaller is better; differences above 10 are decisive.
    """

    model: str
    principal_point: bool
    median_px: float
    bic: float


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


@dataclass(frozen=True)
class Calibration:
    """The choice and its grounds."""

    chosen: Candidate
    candidates: list[Candidate]
    principal_points: list[PrincipalPoint]
    loss_scale_px: float
    before_median_px: float
    after_median_px: float
    rationale: str

    def as_json(self) -> dict[str, Any]:
        """For `sfm.json`."""
        return asdict(self)


def calibrate(
    model: pycolmap.Reconstruction, config: SfmConfig, progress: Progress
) -> tuple[pycolmap.Reconstruction, Calibration]:
    """Last adjustment of `model` under the lens model that the observations call for.

    Returns:
        An adjusted copy of the model, and the report.
    """
    before = squared_residuals_px(model)
    scale_px = max(LOSS_SCALE_SIGMAS * robust_sigma_px(before), MIN_LOSS_SCALE_PX)
    ways = _ways(config)
    sample = _sample_tracks(model)
    candidates = []
    trial = copy.deepcopy(sample)
    for done, (name, free_point) in enumerate(ways):  # each starts where the last one ended
        progress.advance("calibration", done, len(ways) + 1)
        _convert_all(trial, name)
        adjusted = adjust(trial, scale_px, free_point, config.threads)
        bic = _bic(adjusted, scale_px, len(before)) if _plausible(trial) else float("inf")
        median = float(np.sqrt(np.median(adjusted.squared_px)))
        candidates.append(Candidate(name, free_point, median, bic))
    chosen = min(candidates, key=lambda candidate: candidate.bic)
    progress.advance("calibration", len(ways), len(ways) + 1)
    final, points = _final(model, sample, chosen, scale_px, config.threads)
    progress.advance("calibration", len(ways) + 1, len(ways) + 1)
    after = squared_residuals_px(final)
    return final, Calibration(
        chosen=chosen,
        candidates=candidates,
        principal_points=points,
        loss_scale_px=scale_px,
        before_median_px=float(np.sqrt(np.median(before))),
        after_median_px=float(np.sqrt(np.median(after))),
        rationale=_rationale(chosen, candidates, points),
    )


def _ways(config: SfmConfig) -> list[tuple[str, bool]]:
    names = list(MODEL_PARAMS) if config.camera_model == "auto" else [config.camera_model]
    points = [False, True] if config.self_calibrate == "auto" else [config.self_calibrate]
    return [(name, bool(point)) for point in points for name in names]


def _sample_tracks(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """A copy with every n-th point by track length, so that short and long tracks stay in step."""
    lengths = {i: p.track.length() for i, p in model.points3D.items()}
    subset = copy.deepcopy(model)
    step = sum(lengths.values()) / MAX_OBSERVATIONS
    if step <= 1:
        return subset
    kept = -1
    for position, point_id in enumerate(sorted(lengths, key=lambda i: (-lengths[i], i))):
        if int(position / step) == kept:
            subset.delete_point3D(point_id)
        kept = int(position / step)
    return subset


def _convert_all(model: pycolmap.Reconstruction, name: str) -> None:
    for camera in model.cameras.values():
        convert_camera(camera, name)


def _bic(adjusted: Adjusted, scale_px: float, observations: int) -> float:
    """Bayesian information criterion (Schwarz 1978) under a bivariate Cauchy distribution.

    Poses and points are the same in all candidates and count through `parameters` only by a
    constant. Infinite errors (points behind a camera) make the criterion infinite.

    Args:
        observations: of the whole model, of which `adjusted` has seen a sample.
    """
    log_likelihood = -1.5 * np.log1p(adjusted.squared_px / scale_px**2).sum()
    extrapolated = log_likelihood * observations / max(len(adjusted.squared_px), 1)
    penalty = adjusted.parameters * np.log(max(2 * observations, 2))
    return float(-2.0 * extrapolated / OVERDISPERSION + penalty)


def _plausible(model: pycolmap.Reconstruction) -> bool:
    return all(_plausible_camera(model.cameras[c]) for c in cameras_in_use(model))


def _plausible_camera(camera: pycolmap.Camera) -> bool:
    offset = np.abs(_offset_px(camera))
    side = max(camera.width, camera.height)
    if camera.mean_focal_length() <= 0 or offset.max() > MAX_OFFSET * side:
        return False
    # distortion must stay monotonic out to the corner, or undistortion has no unique answer
    corner = np.hypot(camera.width, camera.height) / 2 / camera.mean_focal_length()
    radius = np.linspace(0, 1.1 * corner, 50)
    k1, k2 = [*camera.params[3:], 0.0, 0.0][:2]
    return bool((1 + 3 * k1 * radius**2 + 5 * k2 * radius**4 > 0).all())


def _offset_px(camera: pycolmap.Camera) -> NDArray[np.float64]:
    point = np.array([camera.principal_point_x, camera.principal_point_y])
    return point - np.array([camera.width, camera.height]) / 2


def _final(
    model: pycolmap.Reconstruction,
    sample: pycolmap.Reconstruction,
    chosen: Candidate,
    scale_px: float,
    threads: int,
) -> tuple[pycolmap.Reconstruction, list[PrincipalPoint]]:
    """Adjust everything; where the principal point is free, draw it toward the centre and repeat.

    The second adjustment, with the drawn point held fixed, is the maximum a posteriori estimate
    under a Gaussian prior, as far as the problem is linear over the distance drawn. Where it is
    kept at the centre, an adjustment of the sample with a free point still tells how well the
    observations would determine it.
    """
    final = copy.deepcopy(model)
    _convert_all(final, chosen.model)
    free = chosen.principal_point
    adjusted = adjust(final, scale_px, free, threads, with_covariance=free)
    if free:
        spread = adjusted.covariance
    else:
        trial = copy.deepcopy(sample)
        _convert_all(trial, chosen.model)
        spread = adjust(trial, scale_px, True, threads, with_covariance=True).covariance
    points = [
        _principal_point(final.cameras[c], spread.get(c), free) for c in cameras_in_use(final)
    ]
    moved_px = [_move_to(final.cameras[point.camera], point) for point in points]
    if max(moved_px, default=0.0) > NEGLIGIBLE_PX:
        adjust(final, scale_px, False, threads)
    return final, points


def _principal_point(
    camera: pycolmap.Camera, covariance: NDArray[np.float64] | None, free: bool
) -> PrincipalPoint:
    found = _offset_px(camera)
    prior = np.eye(2) * (PRIOR_SIGMA * max(camera.width, camera.height)) ** 2
    # without a covariance nothing supports the offset found: only the prior is left
    gain = np.zeros((2, 2))
    if covariance is not None:
        gain = prior @ np.linalg.inv(prior + covariance[1:3, 1:3] * OVERDISPERSION)
    kept = gain @ found if free else found
    sigma = np.sqrt(np.diag(prior - gain @ prior))
    return PrincipalPoint(
        camera=camera.camera_id,
        offset_px=(float(kept[0]), float(kept[1])),
        free_offset_px=(float(found[0]), float(found[1])) if free else None,
        sigma_px=(float(sigma[0]), float(sigma[1])),
        rotation_sigma_deg=float(np.degrees(np.linalg.norm(sigma) / camera.mean_focal_length())),
    )


def _move_to(camera: pycolmap.Camera, point: PrincipalPoint) -> float:
    """Put the principal point where it is kept; returns how far it moved, in pixels."""
    offset = np.array(point.offset_px)
    moved = float(np.abs(offset - _offset_px(camera)).max())
    camera.principal_point_x = camera.width / 2 + float(offset[0])
    camera.principal_point_y = camera.height / 2 + float(offset[1])
    return moved


def _rationale(chosen: Candidate, candidates: list[Candidate], points: list[PrincipalPoint]) -> str:
    where = "refined" if chosen.principal_point else "kept at the image centre"
    text = f"{chosen.model}, principal point {where}"
    if len(candidates) == 1:
        return text + ": as the options demand"
    others = [c for c in candidates if c.principal_point != chosen.principal_point]
    if others:
        best = min(others, key=lambda c: c.bic)
        against = "kept at the centre" if chosen.principal_point else "refined"
        text += (
            f": better by {best.bic - chosen.bic:.0f} in BIC than {best.model} with it {against}"
        )
    if chosen.principal_point and points:
        x, y = points[0].offset_px
        text += f"; offset of the first camera ({x:.1f}, {y:.1f}) px"
    return text
