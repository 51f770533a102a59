"""Do the verified two-view matches agree with the model that was built from them?

A model that registers every photo at a small reprojection error can still be wrong: repeated
texture verifies between photos of different places, and mapping keeps what fits the first choice.
Then many strong pairs contradict the model. Right models of ambiguous scenes show it too, so this
is a reason to look, not a proof.
"""

from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from pipeline.sfm.colmap import c2w_of
from pipeline.sfm.twoview import TwoViewTable

STRONG_MATCHES = 30
AGREE_SHARE = 0.5
AGREE_ANGLE = 0.004
"""Normalised distance below which a match agrees: 4 px at a focal length of 1000 px."""


@dataclass(frozen=True)
class Consistency:
    """How far strong pairs of registered photos agree with the model.

    Attributes:
        strong_pairs: pairs of at least `STRONG_MATCHES` verified matches.
        contradicting: image ids of those where most matches disagree with the model.
    """

    strong_pairs: int
    contradicting: list[tuple[int, int]]

    @property
    def share(self) -> float:
        """Share of strong pairs that contradict the model."""
        return len(self.contradicting) / self.strong_pairs if self.strong_pairs else 0.0


def check_consistency(model: pycolmap.Reconstruction, table: TwoViewTable) -> Consistency:
    """Compare every strong verified pair with the epipolar geometry of the model."""
    poses = {i: c2w_of(model.image(i)) for i in model.reg_image_ids()}
    strong, contradicting = 0, []
    for pair in table.pairs:
        if len(pair.features) < STRONG_MATCHES:
            continue
        if pair.image1 not in poses or pair.image2 not in poses:
            continue
        strong += 1
        ideal1 = _ideal(model, pair.image1, table.keypoints_px[pair.image1][pair.features[:, 0]])
        ideal2 = _ideal(model, pair.image2, table.keypoints_px[pair.image2][pair.features[:, 1]])
        identity = np.eye(3)
        essential = fundamental_matrix(identity, poses[pair.image1], identity, poses[pair.image2])
        matches = np.concatenate([ideal1, ideal2], axis=1)
        distance = symmetric_epipolar_distance_px(essential, matches)
        if np.mean(distance < AGREE_ANGLE) < AGREE_SHARE:
            contradicting.append((pair.image1, pair.image2))
    return Consistency(strong, contradicting)


def _ideal(
    model: pycolmap.Reconstruction, image_id: int, xy_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Undistorted normalised image coordinates (M, 2)."""
    return np.asarray(model.image(image_id).camera.cam_from_img(xy_px)).reshape(-1, 2)
