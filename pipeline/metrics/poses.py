"""Errors of camera poses against true ones.

Estimated and true cameras live in different frames: a similarity is fitted on the camera centres
(Umeyama, with scale), positions go p → s R p + t and rotations R_i → R R_i. Because centres alone
hardly feel small rotations, errors are also given with the rotations aligned on themselves, and
the rotation error is split into what all cameras share in their own frames (a wrong principal
point looks like that) and what scatters from camera to camera.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.rotations import mean_rotation, rotation_angles_deg
from pipeline.geometry.similarity import Similarity, umeyama

MIN_VIEWS = 3
"""A similarity has seven degrees of freedom: three camera centres fix it."""


@dataclass(frozen=True)
class Summary:
    """Statistics of one error over all cameras, in the unit of the error."""

    mean: float
    median: float
    rmse: float
    max: float

    @classmethod
    def of(cls, values: NDArray) -> "Summary":
        """Statistics of errors (N,), N ≥ 1."""
        return cls(
            mean=float(np.mean(values)),
            median=float(np.median(values)),
            rmse=float(np.sqrt(np.mean(np.square(values)))),
            max=float(np.max(values)),
        )


@dataclass(frozen=True)
class PoseErrors:
    """Errors of N cameras; lengths in units of the truth.

    Attributes:
        alignment: estimated world → true world.
        rotation_deg: (N,) angles between aligned and true rotations.
        translation: (N,) distances between aligned and true centres.
        camera_span: largest distance between two true centres, the yardstick for `translation`.
        common_deg: angle of the mean residual rotation in the camera frames.
        scatter_deg: (N,) what remains of each camera's residual without that mean.
        rotation_self_aligned_deg: (N,) angles after aligning the rotations on themselves.
        relative_rotation_deg: (N-1,) errors of the motion between successive cameras.
        relative_translation: (N-1,) the same for their displacement.
    """

    alignment: Similarity
    rotation_deg: NDArray
    translation: NDArray
    camera_span: float
    common_deg: float
    scatter_deg: NDArray
    rotation_self_aligned_deg: NDArray
    relative_rotation_deg: NDArray
    relative_translation: NDArray


def compare_poses(
    estimate_c2w: NDArray,
    true_c2w: NDArray,
    with_scale: bool = True,
    method: Literal["centres", "poses"] = "centres",
) -> PoseErrors:
    """Align estimated cameras (N, 4, 4) with true ones, both c2w, and measure what is left.

    Args:
        with_scale: whether the scale is fitted, too; by `poses` it always is.
        method: see `alignment`.

    Source: Umeyama 1991 for the alignment; absolute and relative errors as in Sturm et al.,
    "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012, relative over one step.

    Raises:
        InputError: fewer than three cameras, different counts, or centres that coincide.
    """
    estimate, truth = np.asarray(estimate_c2w, float), np.asarray(true_c2w, float)
    if len(estimate) < MIN_VIEWS or estimate.shape != truth.shape:
        raise InputError(
            f"pose errors need at least {MIN_VIEWS} cameras with known truth, "
            f"got {len(estimate)} and {len(truth)}",
            hint="check that the ground truth covers the registered photos",
        )
    span = camera_span(truth[:, :3, 3])
    if span <= 0:
        raise InputError(
            "all true camera centres coincide: nothing to measure distances by",
            hint="check the ground-truth cameras",
        )
    alignment = align(estimate, truth, method, with_scale)
    aligned = alignment.apply_c2w(estimate)
    common_deg, scatter_deg = split_rotation_error(aligned[:, :3, :3], truth[:, :3, :3])
    relative = _step_errors(aligned, truth)
    return PoseErrors(
        alignment=alignment,
        rotation_deg=rotation_angles_deg(aligned[:, :3, :3], truth[:, :3, :3]),
        translation=np.linalg.norm(aligned[:, :3, 3] - truth[:, :3, 3], axis=1),
        camera_span=span,
        common_deg=common_deg,
        scatter_deg=scatter_deg,
        rotation_self_aligned_deg=_self_aligned_deg(estimate[:, :3, :3], truth[:, :3, :3]),
        relative_rotation_deg=rotation_angles_deg(relative[:, :3, :3], np.eye(3)),
        relative_translation=np.linalg.norm(relative[:, :3, 3], axis=1),
    )


def align(
    estimate: NDArray, truth: NDArray, method: Literal["centres", "poses"], with_scale: bool = True
) -> Similarity:
    """Similarity that lays cameras (N, 4, 4) onto true ones.

    `centres`: least squares of the centres. `poses`: the rotation is the chordal mean over the
    cameras' own rotations; scale and shift are least squares of the centres.

    Raises:
        InputError: fewer than three cameras, coinciding centres, or rotations and centres that
            contradict each other.
    """
    if method == "centres":
        return umeyama(estimate[:, :3, 3], truth[:, :3, 3], with_scale)
    rotation = mean_rotation(truth[:, :3, :3] @ np.swapaxes(estimate[:, :3, :3], -1, -2))
    source, target = estimate[:, :3, 3] @ rotation.T, truth[:, :3, 3]
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    spread = float(((source - source_mean) ** 2).sum())
    product = float(((source - source_mean) * (target - target_mean)).sum())
    if spread <= 0 or product <= 0:
        raise InputError(
            "the cameras' rotations and centres contradict each other: no similarity fits both",
            hint="check that both files use the same axes (camera-to-world, OpenCV)",
        )
    scale = product / spread
    return Similarity(scale, rotation, target_mean - scale * source_mean)


def camera_span(centres: NDArray) -> float:
    """Largest distance between two of the camera centres (N, 3), in their unit."""
    return float(np.linalg.norm(centres[:, None] - centres[None], axis=2).max())


def split_rotation_error(aligned: NDArray, truth: NDArray) -> tuple[float, NDArray]:
    """Split residual rotations (N, 3, 3) into their mean and the rest.

    The residual of camera i is taken in its own frame, D_i = R_true,iᵀ R_i: cameras whose principal
    point is wrong all look astray by the same D.

    Returns:
        Angle of the mean residual in degrees, and angles (N,) of each residual against the mean.
    """
    residual = np.swapaxes(truth, -1, -2) @ aligned
    mean = mean_rotation(residual)
    return (
        float(rotation_angles_deg(mean[None], np.eye(3)[None])[0]),
        rotation_angles_deg(residual, np.broadcast_to(mean, residual.shape)),
    )


def _self_aligned_deg(estimate: NDArray, truth: NDArray) -> NDArray:
    """Angles (N,) in degrees after the one world rotation that best maps estimate onto truth."""
    world = mean_rotation(truth @ np.swapaxes(estimate, -1, -2))
    return rotation_angles_deg(world @ estimate, truth)


def _step_errors(aligned: NDArray, truth: NDArray) -> NDArray:
    """(N-1, 4, 4): true motion from each camera to the next, undone by the estimated one."""
    true_step = invert_pose(truth[:-1]) @ truth[1:]
    step = invert_pose(aligned[:-1]) @ aligned[1:]
    return invert_pose(true_step) @ step
