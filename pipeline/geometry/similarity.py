"""Similarity transforms Sim(3) and their least-squares estimate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError


@dataclass(frozen=True)
class Similarity:
    """x ↦ scale · rotation · x + translation, from one frame to another."""

    scale: float
    rotation: NDArray
    translation: NDArray

    @classmethod
    def identity(cls) -> "Similarity":
        """The transform that changes nothing."""
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: NDArray) -> "Similarity":
        """From (4, 4) with scaled rotation in the upper left."""
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        return cls(scale, matrix[:3, :3] / scale, matrix[:3, 3].copy())

    @property
    def matrix(self) -> NDArray:
        """(4, 4) with scale · rotation in the upper left."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    def apply_points(self, points: NDArray) -> NDArray:
        """Transform points (..., 3)."""
        return self.scale * np.asarray(points) @ self.rotation.T + self.translation

    def apply_c2w(self, c2w: NDArray) -> NDArray:
        """Transform camera-to-world poses (..., 4, 4); they stay rigid."""
        moved = np.array(c2w, dtype=np.float64)
        moved[..., :3, :3] = self.rotation @ moved[..., :3, :3]
        moved[..., :3, 3] = self.apply_points(np.asarray(c2w)[..., :3, 3])
        return moved

    def inverse(self) -> "Similarity":
        """The transform back."""
        rotation_t = self.rotation.T
        return Similarity(
            1.0 / self.scale, rotation_t, -(rotation_t @ self.translation) / self.scale
        )


def umeyama(source: NDArray, target: NDArray, with_scale: bool = True) -> Similarity:
    """Least-squares similarity that maps points `source` (N, 3) onto `target` (N, 3).

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", PAMI 1991, with the determinant correction.

    Raises:
        InputError: fewer than three points, or source points that all coincide.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if len(source) < 3 or source.shape != target.shape:
        raise InputError(
            f"an alignment needs at least 3 pairs of points, got {len(source)} and {len(target)}",
            hint="check that the ground truth covers the registered views",
        )
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_c, target_c = source - source_mean, target - target_mean
    variance = (source_c**2).sum() / len(source)
    if variance <= 0:
        raise InputError("an alignment needs points that differ, got one point many times")
    U, D, Vt = np.linalg.svd(target_c.T @ source_c / len(source))
    sign = np.ones(3)
    if np.linalg.det(U) * np.linalg.det(Vt) < 0:
        sign[2] = -1.0
    rotation = U @ np.diag(sign) @ Vt
    scale = float((D * sign).sum() / variance) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
