"""Verified two-view matches, read from the database."""

import sqlite3
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
    """Read keypoints and verified matches of a database that nobody writes to.

    Not through COLMAP: opening a database there changes the file, and artifacts are read only.
    Matches with watermarks or without a geometry are left out.
    """
    connection = sqlite3.connect(f"{database_path.resolve().as_uri()}?immutable=1", uri=True)
    try:
        stored_points = connection.execute("SELECT image_id, rows, cols, data FROM keypoints")
        keypoints = {
            image_id: _table(data, rows, columns, np.float32)[:, :2].astype(np.float64)
            for image_id, rows, columns, data in stored_points
        }
        stored_pairs = connection.execute(
            "SELECT pair_id, rows, cols, data, config FROM two_view_geometries"
        )
        pairs = []
        for pair_id, rows, columns, data, config in stored_pairs:
            if config in _USABLE and rows > 0:
                image1, image2 = pycolmap.pair_id_to_image_pair(pair_id)
                features = _table(data, rows, columns, np.uint32).astype(np.int64)
                pairs.append(VerifiedPair(image1, image2, features))
    finally:
        connection.close()
    pairs.sort(key=lambda pair: (pair.image1, pair.image2))
    return TwoViewTable(keypoints, pairs)


def _table(data: bytes | None, rows: int, columns: int, dtype: type) -> NDArray:
    if not rows:
        return np.zeros((0, 2), dtype=dtype)
    return np.frombuffer(data or b"", dtype=dtype).reshape(rows, columns)
