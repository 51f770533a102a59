"""`refined_pose.txt`: one camera-to-world matrix a row, 16 numbers, row by row."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def save_pose_text(path: Path, c2w: NDArray) -> None:
    """Write poses (N, 4, 4)."""
    np.savetxt(path, np.asarray(c2w, dtype=np.float64).reshape(len(c2w), 16), fmt="%.10g")


def load_pose_text(path: Path) -> NDArray:
    """Read poses (N, 4, 4)."""
    return np.loadtxt(path, ndmin=2).reshape(-1, 4, 4)
