"""Which pairs of photos to match."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.sfm.retrieval import similar_photos

TILE = 10
"""Pairs are matched tile by tile, so that the features of 2 × 10 photos stay in memory."""

Pair = tuple[int, int]


def exhaustive_pairs(count: int) -> list[Pair]:
    """All pairs (i, j), i < j, ordered by tiles of photos."""
    return _tiled(set(combinations(range(count), 2)))


def sequential_pairs(count: int, neighbours: int) -> set[Pair]:
    """Each photo with the next `neighbours` by name, and with those 2, 4, 8, … steps further."""
    pairs: set[Pair] = set()
    for i in range(count):
        steps = set(range(1, neighbours + 1))
        steps.update(neighbours * 2**power for power in range(1, 8))
        pairs.update((i, i + step) for step in steps if i + step < count)
    return pairs


def spatial_pairs(positions_m: NDArray[np.float64], neighbours: int) -> set[Pair]:
    """Each photo with its `neighbours` nearest ones.

    Args:
        positions_m: (N, 3) or (N, 2) metres; NaN where unknown. Of photos equally near, as many are
            where receivers round, the nearest by name come first.
    """
    known = np.flatnonzero(np.isfinite(positions_m).all(axis=1))
    pairs: set[Pair] = set()
    for i in known:
        others = known[known != i]
        distance_m = np.linalg.norm(positions_m[others] - positions_m[i], axis=1)
        nearest = others[np.lexsort((np.abs(others - i), distance_m))[:neighbours]]
        pairs.update((int(min(i, j)), int(max(i, j))) for j in nearest)
    return pairs


def sparse_pairs(
    database_path: Path,
    image_ids: list[int],
    neighbours: int,
    seed: int,
    positions_m: NDArray[np.float64] | None = None,
) -> list[Pair]:
    """Pairs for a large set: half by the order of names, half by similar content.

    Args:
        image_ids: of all photos, in the order of their names.
        positions_m: where the photos were taken, if they tell: as many pairs more, by nearness.
    """
    pairs = sequential_pairs(len(image_ids), max(1, neighbours // 2))
    if positions_m is not None:
        pairs |= spatial_pairs(positions_m, max(1, neighbours // 2))
    with pycolmap.Database.open(str(database_path)) as database:
        descriptors = [_descriptors(database, image_id) for image_id in image_ids]
    for i, similar in enumerate(similar_photos(descriptors, max(1, neighbours // 2), seed)):
        pairs.update((min(i, j), max(i, j)) for j in similar)
    return _tiled(pairs)


def _descriptors(database: pycolmap.Database, image_id: int) -> NDArray:
    if not database.exists_descriptors(image_id):
        return np.zeros((0, 128), dtype=np.uint8)
    stored = database.read_descriptors(image_id)
    if stored.type != pycolmap.FeatureExtractorType.SIFT:
        return np.ascontiguousarray(stored.data).view(np.float32)
    return np.asarray(stored.data)


def _tiled(pairs: set[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (pair[0] // TILE, pair[1] // TILE, pair))


def tile_of(pair: Pair) -> Pair:
    """The tile that a pair belongs to."""
    return pair[0] // TILE, pair[1] // TILE
