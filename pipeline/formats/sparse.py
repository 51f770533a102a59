"""`sparse.npz` of a scene: the triangulated points of structure from motion."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "sparse.npz"


@dataclass(frozen=True)
class SparseCloud:
    """Triangulated points (P, 3), world frame, with colours (P, 3) uint8."""

    points: NDArray
    rgb: NDArray

    def __len__(self) -> int:
        return len(self.points)


def load_sparse(scene_dir: Path) -> SparseCloud:
    """The points of a scene folder; none in a case from elsewhere, which has no such file."""
    path = scene_dir / FILE
    if not path.is_file():
        return SparseCloud(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.uint8))
    with np.load(path) as stored:
        return SparseCloud(stored["points"], stored["colors"])
