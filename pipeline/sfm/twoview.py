"""Verified two-view matches, read from the database."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

_USABLE = {
    int(getattr(pycolmap.TwoViewGeometryConfiguration, name))
    for name in ("CALIBRATED", "UNCALIBRATED", "PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC")
}


@dataclass(frozen=True)
class VerifiedPair:
    """Geometrically verified matches of two photos.

    Attributes:
        image1, image2: COLMAP's image ids.
        features: (M, 2) indices into the keypoints of the two photos.
    """

    image1: int
    image2: int
    features: NDArray[np.int64]


@dataclass(frozen=True)
class TwoViewTable:
    """All verified pairs of a database.

    Attributes:
        keypoints_px: image id → (F, 2) float64 x, y in COLMAP's pixel convention.
        pairs: sorted by image ids.
    """

    keypoints_px: dict[int, NDArray[np.float64]]
    pairs: list[VerifiedPair]


def read_two_views(database_path: Path) -> TwoViewTable:
    """Read keypoints and verified matches.

    Matches with watermarks or without a geometry are left out.
    """
    with pycolmap.Database.open(str(database_path)) as database:
        keypoints = {}
        for image in database.read_all_images():
            table = np.asarray(database.read_keypoints(image.image_id), dtype=np.float64)
            keypoints[image.image_id] = table.reshape(len(table), -1)[:, :2]
        pair_ids, geometries = database.read_two_view_geometries()
    pairs = []
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        if int(geometry.config) not in _USABLE or len(geometry.inlier_matches) == 0:
            continue
        image1, image2 = pycolmap.pair_id_to_image_pair(pair_id)
        features = np.asarray(geometry.inlier_matches, dtype=np.int64)
        pairs.append(VerifiedPair(image1, image2, features))
    pairs.sort(key=lambda pair: (pair.image1, pair.image2))
    return TwoViewTable(keypoints, pairs)
