"""Visual hull of the masks on a coarse grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.cameras import project

GRID = 48
MIN_FRAMES = 0.3
MIN_MASKS = 0.9
MIN_VIEWS = 3


@dataclass(frozen=True)
class MaskView:
    """A mask with its camera.

    Attributes:
        mask: (H, W) uint8, 255 = object.
        K: (3, 3) of the same pixels; IDR's convention.
        c2w: (4, 4).
    """

    mask: NDArray[np.uint8]
    K: NDArray[np.float64]
    c2w: NDArray[np.float64]


def hull_points(
    masks: list[MaskView], centre: NDArray[np.float64], half_side: float
) -> NDArray[np.float64]:
    """Grid points (P, 3) of a cube that the masks agree to be object.

    A point counts that at least 30% of the masked views have in their frame, and at least 90% of
    those in their mask. Empty with fewer than three masks.

    Args:
        centre, half_side: of the cube.
    """
    if len(masks) < MIN_VIEWS:
        return np.zeros((0, 3))
    steps = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points = centre + half_side * grid
    framed = np.zeros(len(points), dtype=np.int64)
    masked = np.zeros(len(points), dtype=np.int64)
    for view in masks:
        xy_px, _ = project(view.K, view.c2w, points)
        height, width = view.mask.shape
        with np.errstate(invalid="ignore"):
            nearest = np.rint(xy_px)
            inside = ((nearest >= 0) & (nearest < [width, height])).all(axis=1)
        columns, rows = nearest[inside].astype(int).T
        framed += inside
        masked[inside] += view.mask[rows, columns] > 127
    agreed = (framed >= MIN_FRAMES * len(masks)) & (masked >= MIN_MASKS * framed)
    return points[agreed]
