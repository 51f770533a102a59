"""Rotations: angles between them and their means (scipy does the work)."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def rotation_angles_deg(a: NDArray, b: NDArray) -> NDArray:
    """Angles (N,) in degrees between rotations a and b (N, 3, 3)."""
    relative = np.swapaxes(np.asarray(a), -1, -2) @ np.asarray(b)
    return np.degrees(Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude())


def mean_rotation(rotations: NDArray) -> NDArray:
    """Chordal mean (3, 3) of rotations (N, 3, 3)."""
    return Rotation.from_matrix(np.asarray(rotations)).mean().as_matrix()
