"""Held-out matches: how well cameras explain correspondences that nothing was fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.matches import ViewMatches
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px

INLIER_PX = 20.0
"""PoRF's own limit: matches farther off are taken for wrong ones."""


@dataclass(frozen=True)
class EpipolarSummary:
    """Symmetric epipolar distances of held-out matches, pixels of the undistorted views.

    Attributes:
        matches: how many were measured.
        median_px: of all of them.
        inlier_mean_px: mean of those below `INLIER_PX`; NaN if there is none.
        inlier_share: their share.
    """

    matches: int
    median_px: float
    inlier_mean_px: float
    inlier_share: float


def heldout_epipolar(
    matches: Sequence[ViewMatches], K: NDArray, c2w: NDArray
) -> EpipolarSummary | None:
    """Judge cameras K (V, 3, 3), c2w (V, 4, 4) by the matches that are marked as held out.

    A pair that is stored from both sides counts once. None where no match is marked.
    """
    distances = []
    stored = {(ref, src) for ref, view in enumerate(matches) for src in view.sources}
    for ref, view in enumerate(matches):
        for src, rows_px, heldout in zip(view.sources, view.matches_px, view.heldout, strict=True):
            mirrored = ref > src and (src, ref) in stored
            if mirrored or not heldout.any():
                continue
            F = fundamental_matrix(K[ref], c2w[ref], K[src], c2w[src])
            distances.append(symmetric_epipolar_distance_px(F, rows_px[heldout]))
    if not distances:
        return None
    all_px = np.concatenate(distances)
    inliers = all_px[all_px < INLIER_PX]
    return EpipolarSummary(
        matches=len(all_px),
        median_px=float(np.median(all_px)),
        inlier_mean_px=float(inliers.mean()) if len(inliers) else float("nan"),
        inlier_share=len(inliers) / len(all_px),
    )
