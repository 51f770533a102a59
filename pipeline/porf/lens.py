"""A change of calibration that all views share: focal length, principal point, distortion."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.geometry.tracks import Tracks
from pipeline.porf.epipolar import MatchTable, invert_intrinsics

_ITERATIONS = 20
_GIVEN_STD = (0.05, 0.02, 0.02, 0.2, 0.2)
"""Standard deviations of a given calibration's zoom, shift and distortion: wide, for it may be
COLMAP's default; they matter where matches say little."""


@dataclass(frozen=True)
class Lens:
    """What was wrong with given intrinsics.

    Attributes:
        zoom: factor on the focal lengths.
        shift: of the principal point, in given focal lengths.
        distortion: k1, k2 of x · (1 + k1 r² + k2 r⁴) in normalised coordinates of the new
            intrinsics (OpenCV's and COLMAP's RADIAL).
    """

    zoom: float
    shift: tuple[float, float]
    distortion: tuple[float, float]

    @staticmethod
    def none() -> "Lens":
        """No change."""
        return Lens(1.0, (0.0, 0.0), (0.0, 0.0))

    @property
    def distorts(self) -> bool:
        """Whether pixels have to be moved before the intrinsics explain them."""
        return self.distortion != (0.0, 0.0)

    def regularised(self, covariance: NDArray) -> "Lens":
        """Between the given calibration (no change) and this one, as they are known (maximum a
        posteriori).

        Args:
            covariance: (3, 3) of this one's zoom and shift, or (5, 5) with distortion.
        """
        count = len(covariance)
        given = np.array([1.0, 0.0, 0.0, 0.0, 0.0])[:count]
        own = np.array([self.zoom, *self.shift, *self.distortion])[:count]
        spread = np.diag(np.square(_GIVEN_STD[:count]))
        gain = np.linalg.solve(spread + covariance, spread).T
        zoom, x, y, *distortion = (given + gain @ (own - given)).tolist()
        k1, k2 = distortion or (0.0, 0.0)
        return Lens(zoom, (x, y), (k1, k2))

    def applied(self, K: Tensor) -> Tensor:
        """New intrinsics (V, 3, 3) of views with the given ones."""
        change = torch.eye(3, dtype=K.dtype, device=K.device)
        change[0, 0] = change[1, 1] = self.zoom
        change[:2, 2] = torch.tensor(self.shift, dtype=K.dtype)
        return K @ change

    def undistorted(self, table: MatchTable, K: Tensor) -> MatchTable:
        """The matches without the distortion; K (V, 3, 3) are the new intrinsics."""
        if not self.distorts:
            return table
        K = K.to(table.points_px)
        ref, src = (v[table.pair_of_match] for v in (table.pair_ref, table.pair_src))
        ends = [(table.points_px[:, :2], ref), (table.points_px[:, 2:], src)]
        moved = [self._undistorted(xy, K[view]) for xy, view in ends]
        return replace(table, points_px=torch.cat(moved, dim=1))

    def undistorted_px(self, tracks: Tracks, K: Tensor) -> NDArray:
        """Pixels (O, 2) of tracks without the distortion; K (V, 3, 3) are the new intrinsics."""
        if not self.distorts:
            return tracks.xy_px
        K = K.double().cpu()[torch.from_numpy(tracks.view)]
        return self._undistorted(torch.from_numpy(tracks.xy_px).double(), K).numpy()

    def _undistorted(self, xy_px: Tensor, K: Tensor) -> Tensor:
        """By fixed-point iteration, which converges fast for the little that a lens has left."""
        k1, k2 = self.distortion
        homogeneous = torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)
        seen = (invert_intrinsics(K) @ homogeneous[..., None])[:, :2, 0]
        straight = seen
        for _ in range(_ITERATIONS):
            r2 = (straight**2).sum(1, keepdim=True)
            straight = seen / (1 + k1 * r2 + k2 * r2**2)
        return (K[:, :2, :2] @ straight[..., None])[..., 0] + K[:, :2, 2]

    def displacement_px(self, K: NDArray, width: int, height: int) -> float:
        """Largest way in pixels that the distortion moves a pixel of an image with K (3, 3)."""
        x, y = np.meshgrid(np.linspace(0, width - 1, 33), np.linspace(0, height - 1, 33))
        xy_px = torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))
        K_each = torch.from_numpy(np.asarray(K, dtype=np.float64)).expand(len(xy_px), 3, 3)
        moved = self._undistorted(xy_px, K_each)
        return float((moved - xy_px).norm(dim=1).max())
