"""How a reconstruction is laid onto the truth, and how well: always part of the result.

none      as it lies
centres   similarity of the camera centres (Umeyama, with scale)
poses     the rotation from the cameras' rotations alone, then scale and shift from the centres:
          centres hardly feel small rotations, which are nearly all that pose refinement changes
icp       surface onto surface, point to point, started from one of the others
given     a matrix from a file
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.icp import icp
from pipeline.metrics.poses import align

Method = Literal["none", "centres", "poses", "icp", "given"]

ICP_REACH = 0.1
"""Correspondences count up to this share of the truth's radius."""

_RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Alignment:
    """A similarity from the reconstruction's frame to the truth's.

    Attributes:
        method: how it was found.
        similarity: the transform.
        residual_rmse: root mean square distance that is left between the aligned camera centres,
            or surface points for `icp`, in the unit of the truth; None where nothing was fitted.
        residual_deg: mean angle between the aligned and true camera rotations; None without.
        pairs: cameras or points it rests on.
    """

    method: Method
    similarity: Similarity
    residual_rmse: float | None = None
    residual_deg: float | None = None
    pairs: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain data for `metrics.json`."""
        return {
            "method": self.method,
            "from": "world",
            "to": "truth",
            "matrix": self.similarity.matrix.tolist(),
            "scale": self.similarity.scale,
            "rotation": self.similarity.rotation.tolist(),
            "translation": self.similarity.translation.tolist(),
            "residual_rmse": self.residual_rmse,
            "residual_deg": self.residual_deg,
            "pairs": self.pairs,
        }


NOT_ALIGNED = Alignment("none", Similarity.identity())


def align_cameras(
    estimate_c2w: NDArray, true_c2w: NDArray, method: Literal["centres", "poses"]
) -> Alignment:
    """Lay cameras (N, 4, 4) onto the true ones.

    Raises:
        InputError: fewer than three cameras, or centres that coincide.
    """
    similarity = align(np.asarray(estimate_c2w), np.asarray(true_c2w), method)
    aligned = similarity.apply_c2w(estimate_c2w)
    left = np.linalg.norm(aligned[:, :3, 3] - true_c2w[:, :3, 3], axis=1)
    turned = rotation_angles_deg(aligned[:, :3, :3], np.asarray(true_c2w)[:, :3, :3])
    rmse = float(np.sqrt(np.mean(left**2)))
    return Alignment(method, similarity, rmse, float(turned.mean()), len(left))


def align_surfaces(
    points: NDArray, true_points: NDArray, radius: float, start: Similarity, with_scale: bool
) -> Alignment:
    """Lay surface samples (S, 3) onto those of the truth (T, 3) by ICP.

    Args:
        radius: of the true object.
        start: first guess, reconstruction → truth.
        with_scale: whether the scale is fitted, too.

    Raises:
        InputError: the start leaves them too far apart for any correspondence.
    """
    found = icp(
        points, true_points, ICP_REACH * radius, start=start, iterations=50, with_scale=with_scale
    )
    pairs = round(found.fitness * len(points))
    if pairs < len(points) / 10:
        raise InputError(
            f"only {found.fitness:.0%} of the surface lies within {ICP_REACH:.0%} of the object's "
            "radius of the truth: too far apart for ICP to start",
            hint="let cameras align them first: --cameras and --true-cameras",
        )
    return Alignment("icp", found.similarity, found.inlier_rmse, None, pairs)


def load_transform(path: Path) -> Alignment:
    """Read a 4×4 similarity (text, or .npy) from the reconstruction's frame to the truth's.

    Raises:
        InputError: not readable, or no similarity.
    """
    try:
        matrix = np.load(path) if path.suffix == ".npy" else np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable matrix ({error})") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: expected a matrix of 4×4 finite numbers, got {matrix.shape}")
    gram = matrix[:3, :3].T @ matrix[:3, :3]
    scale2 = np.trace(gram) / 3
    rigid = np.abs(gram - scale2 * np.eye(3)).max() <= _RIGID_TOLERANCE * scale2
    if not rigid or np.linalg.det(matrix[:3, :3]) <= 0:
        raise InputError(f"{path} is not a similarity: it shears or mirrors")
    return Alignment("given", Similarity.from_matrix(matrix))
