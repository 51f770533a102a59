"""Self-calibration by evidence.

Mapping leaves the principal point at the image centre. A wrong principal point turns all cameras
together by offset / focal length (half a degree and more on real lenses), and no later refinement
of poses can undo that. Here lens models with and without a free principal point are adjusted to the
same observations and compared by their evidence: the likelihood, less the Bayesian information
criterion's price for distortion coefficients, less Laplace's price for a principal point under its
prior. The winner's principal point is then drawn toward the centre as far as its covariance is
large.

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
    MIN_SCALE_PX,
    Adjusted,
    adjust,
    cameras_in_use,
    robust_sigma_px,
    squared_residuals_px,
    tail_scale_px,
)
from pipeline.sfm.colmap import MODEL_PARAMS, convert_camera
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.principal_point import (
    OVERDISPERSION,
    PrincipalPoint,
    centre_offset_px,
    estimate,
    evidence_penalty,
    move_to,
)

MAX_OFFSET = 0.12
"""Share of the longer side; an adjustment that goes beyond has gone astray."""
MAX_OBSERVATIONS = 15_000
"""Candidates are compared on an even sample of the tracks with about this many observations; their
likelihoods and covariances are extrapolated to all."""
NEGLIGIBLE_PX = 0.02
MAX_ERROR_PX = 100.0
"""What an observation of a point behind its camera counts as."""
LOSS_SCALE_SIGMAS = 2.0

Spread = dict[int, NDArray[np.float64]]
"""Camera id → formal covariance of f, cx, cy, k1, k2."""


@dataclass(frozen=True)
class Candidate:
    """One way to calibrate, and how well it explains the observations.

    Attributes:
        model: COLMAP's name of the lens model.
        principal_point: whether it is refined.
        median_px: median reprojection error.
        score: -2 log evidence up to a constant, smaller is better; differences above 10 are
            decisive (Kass and Raftery, "Bayes factors", JASA 1995).
    """

    model: str
    principal_point: bool
    median_px: float
    score: float


@dataclass(frozen=True)
class Calibration:
    """The choice and its grounds.

    `loss_scale_px` is that of the comparison, `last_loss_scale_px` that of the last adjustment,
    fitted to the errors that the first one left.
    """

    chosen: Candidate
    candidates: list[Candidate]
    principal_points: list[PrincipalPoint]
    loss_scale_px: float
    last_loss_scale_px: float
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
    scale_px = max(LOSS_SCALE_SIGMAS * robust_sigma_px(before), MIN_SCALE_PX)
    ways = _ways(config)
    candidates, spreads = [], {}
    trial = sample_tracks(model)
    for done, (name, free) in enumerate(ways):  # each starts where the last one ended
        progress.advance("calibration", done, len(ways) + 1)
        _convert_all(trial, name)
        adjusted = adjust(trial, scale_px, free, with_covariance=free)
        share = len(adjusted.squared_px) / max(len(before), 1)
        spreads[name] = {camera: c * share for camera, c in adjusted.covariance.items()}
        score = _score(trial, adjusted, spreads[name] if free else None, scale_px, len(before))
        median = float(np.sqrt(np.median(adjusted.squared_px)))
        candidates.append(Candidate(name, free, median, score))
    chosen = min(candidates, key=lambda candidate: candidate.score)
    progress.advance("calibration", len(ways), len(ways) + 1)
    final, points, last_scale_px = _final(model, chosen, spreads[chosen.model], scale_px)
    progress.advance("calibration", len(ways) + 1, len(ways) + 1)
    after = squared_residuals_px(final)
    return final, Calibration(
        chosen=chosen,
        candidates=candidates,
        principal_points=points,
        loss_scale_px=scale_px,
        last_loss_scale_px=last_scale_px,
        before_median_px=float(np.sqrt(np.median(before))),
        after_median_px=float(np.sqrt(np.median(after))),
        rationale=_rationale(chosen, candidates, points),
    )


def calibration_as_given(model: pycolmap.Reconstruction, rationale: str) -> Calibration:
    """The report of cameras whose calibration was not ours to choose."""
    errors = np.sqrt(squared_residuals_px(model))
    names = sorted({model.cameras[c].model_name for c in cameras_in_use(model)})
    median = float(np.median(errors))
    chosen = Candidate(", ".join(names), False, median, 0.0)
    return Calibration(chosen, [chosen], [], 0.0, 0.0, median, median, rationale)


def _ways(config: SfmConfig) -> list[tuple[str, bool]]:
    names = list(MODEL_PARAMS) if config.camera_model == "auto" else [config.camera_model]
    points = [False, True] if config.self_calibrate == "auto" else [config.self_calibrate]
    return [(name, bool(point)) for point in points for name in names]


def sample_tracks(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
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


def _score(
    model: pycolmap.Reconstruction,
    adjusted: Adjusted,
    spread: Spread | None,
    scale_px: float,
    observations: int,
) -> float:
    """-2 log evidence under a bivariate Cauchy distribution of the errors, up to a constant.

    Infinite for a camera that no lens is like.

    Args:
        model: the sample, as adjusted.
        spread: covariances where the principal point is free, None where it is fixed.
        observations: of the whole model, of which `adjusted` has seen a sample.
    """
    cameras = [model.cameras[c] for c in cameras_in_use(model)]
    if not all(_plausible(camera) for camera in cameras):
        return float("inf")
    squared_px = np.minimum(adjusted.squared_px, MAX_ERROR_PX**2)
    log_likelihood = -1.5 * np.log1p(squared_px / scale_px**2).sum()
    extrapolated = log_likelihood * observations / max(len(adjusted.squared_px), 1)
    # Schwarz 1978: a coefficient costs the logarithm of the number of observations
    coefficient_price = float(np.log(max(2 * observations, 2)))
    score = float(-2.0 * extrapolated / OVERDISPERSION)
    for camera in cameras:
        score += (len(camera.params) - 3) * coefficient_price
        if spread is not None and camera.camera_id in spread:
            score += evidence_penalty(camera, spread[camera.camera_id])
        elif spread is not None:
            score += 2 * coefficient_price
    return score


def _plausible(camera: pycolmap.Camera) -> bool:
    offset = np.abs(centre_offset_px(camera))
    side = max(camera.width, camera.height)
    if camera.mean_focal_length() <= 0 or offset.max() > MAX_OFFSET * side:
        return False
    # distortion must stay monotonic out to the corner, or undistortion has no unique answer
    corner = np.hypot(camera.width, camera.height) / 2 / camera.mean_focal_length()
    radius = np.linspace(0, 1.1 * corner, 50)
    k1, k2 = [*camera.params[3:], 0.0, 0.0][:2]
    return bool((1 + 3 * k1 * radius**2 + 5 * k2 * radius**4 > 0).all())


def _final(
    model: pycolmap.Reconstruction,
    chosen: Candidate,
    sample_spread: Spread,
    scale_px: float,
) -> tuple[pycolmap.Reconstruction, list[PrincipalPoint], float]:
    """Adjust everything, and again with a loss that fits the errors that are left.

    Where the principal point is free, it is drawn toward the centre then and the rest adjusted to
    that. This, with the drawn point held fixed, is the maximum a posteriori estimate under the
    Gaussian prior, as far as the problem is linear over the distance drawn.

    Args:
        sample_spread: from the comparison; where the point is kept at the centre it still tells how
            well the observations would determine it.
    """
    final = copy.deepcopy(model)
    _convert_all(final, chosen.model)
    free = chosen.principal_point
    adjusted = adjust(final, scale_px, free, with_covariance=free)
    last_scale_px = tail_scale_px(adjusted.squared_px)
    adjust(final, last_scale_px, free)
    spread = adjusted.covariance if free else sample_spread
    points = [estimate(final.cameras[c], spread.get(c), free) for c in cameras_in_use(final)]
    moved_px = [move_to(final.cameras[point.camera], point) for point in points]
    if max(moved_px, default=0.0) > NEGLIGIBLE_PX:
        adjust(final, last_scale_px, False)
    return final, points, last_scale_px


def _rationale(chosen: Candidate, candidates: list[Candidate], points: list[PrincipalPoint]) -> str:
    where = "refined" if chosen.principal_point else "kept at the image centre"
    text = f"{chosen.model}, principal point {where}"
    if len(candidates) == 1:
        return text + ": as the options demand"
    others = [c for c in candidates if c.principal_point != chosen.principal_point]
    if others:
        best = min(others, key=lambda c: c.score)
        against = "kept at the centre" if chosen.principal_point else "refined"
        gap = best.score - chosen.score
        text += f": evidence larger by {gap:.0f} than for {best.model} with it {against}"
    if chosen.principal_point and points:
        x, y = points[0].offset_px
        text += f"; offset of the first camera ({x:.1f}, {y:.1f}) px"
    return text
