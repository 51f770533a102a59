"""Which pairs are matched, and which photos look alike."""

from itertools import pairwise

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray

from pipeline.sfm.gps import positions_m
from pipeline.sfm.pairs import exhaustive_pairs, sequential_pairs, spatial_pairs, tile_of
from pipeline.sfm.retrieval import similar_photos, vlad


def test_exhaustive_is_every_pair_once() -> None:
    pairs = exhaustive_pairs(25)
    assert len(pairs) == len(set(pairs)) == 25 * 24 // 2
    assert all(i < j for i, j in pairs)


def test_tiles_come_in_one_piece() -> None:
    tiles = [tile_of(pair) for pair in exhaustive_pairs(35)]
    changes = sum(a != b for a, b in pairwise(tiles))
    assert changes == len(set(tiles)) - 1


def test_sequential_pairs_reach_near_and_far() -> None:
    pairs = sequential_pairs(200, 5)
    assert {(0, step) for step in (1, 5, 10, 160)} <= pairs
    assert (0, 7) not in pairs
    assert all(0 <= i < j < 200 for i, j in pairs)
    assert len(pairs) < 200 * 12


def _flight(columns: int, rows: int, step_m: float) -> NDArray[np.float64]:
    """East, north, up of a flight in parallel lines, there and back."""
    east, north = np.meshgrid(np.arange(columns), np.arange(rows))
    east[1::2] = east[1::2, ::-1]
    flat = [east.ravel() * step_m, north.ravel() * step_m, np.full(east.size, 40.0)]
    return np.stack(flat, axis=1)


def test_spatial_pairs_join_the_lines_of_a_flight() -> None:
    metres = _flight(10, 6, 12.0)
    pairs = spatial_pairs(metres, 4)
    assert (0, 19) in pairs  # the same end of two lines, nineteen photos apart
    assert all(np.linalg.norm(metres[i] - metres[j]) < 30 for i, j in pairs)
    assert all(i < j for i, j in pairs)


def test_spatial_pairs_take_the_order_where_gps_cannot_tell() -> None:
    metres = np.zeros((9, 3))
    metres[8] = np.nan
    pairs = spatial_pairs(metres, 2)
    assert (3, 4) in pairs
    assert max(j - i for i, j in pairs) == 2
    assert all(8 not in pair for pair in pairs)


def test_positions_come_in_metres_and_only_where_half_the_photos_have_them() -> None:
    metres = _flight(4, 2, 12.0)
    origin = (46.84, -91.99, 198.0)
    degrees = pycolmap.GPSTransform().enu_to_ellipsoid(metres, *origin)
    given = [(float(p[0]), float(p[1]), float(p[2])) for p in degrees]
    found = positions_m([*given, None])
    assert found is not None
    assert np.isnan(found[-1]).all()
    step = np.linalg.norm(found[1] - found[0])
    assert step == pytest.approx(12.0, abs=0.01)
    level = positions_m([(*given[0][:2], None), *given[1:]])
    assert level is not None
    assert level.shape == (8, 2)
    assert positions_m([given[0], None, None]) is None


def _photos_of_places(places: int, each: int, seed: int) -> list[NDArray[np.uint8]]:
    """Descriptors of photos, `each` of every place in turn, that share what the place shows."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 160, (places, 200, 128))
    photos = []
    for _ in range(each):
        for place in range(places):
            seen = shown[place][rng.permutation(200)[:120]]
            noisy = seen + rng.normal(0, 8, seen.shape)
            other = rng.integers(0, 160, (60, 128))
            photos.append(np.clip(np.concatenate([noisy, other]), 0, 255).astype(np.uint8))
    return photos


def test_photos_of_one_place_find_each_other() -> None:
    photos = _photos_of_places(places=10, each=4, seed=0)
    found = similar_photos(photos, 3, seed=0)
    right = sum(j % 10 == i % 10 for i, row in enumerate(found) for j in row)
    assert right / sum(len(row) for row in found) > 0.9
    assert all(i not in row and len(row) <= 3 for i, row in enumerate(found))


def test_similarity_is_seeded() -> None:
    photos = _photos_of_places(places=5, each=3, seed=1)
    assert similar_photos(photos, 4, seed=3) == similar_photos(photos, 4, seed=3)


def test_photos_without_features_are_alone() -> None:
    photos = [np.zeros((0, 128), np.uint8), *_photos_of_places(places=2, each=2, seed=2)]
    found = similar_photos(photos, 3, seed=0)
    assert found[0] == []
    assert all(0 not in row for row in found)
    assert similar_photos([np.zeros((0, 128), np.uint8)] * 2, 1, seed=0) == [[], []]


def test_vlad_vectors_have_unit_length() -> None:
    photo = _photos_of_places(1, 1, seed=4)[0]
    words = np.random.default_rng(0).random((8, 128), dtype=np.float32)
    assert np.isclose(np.linalg.norm(vlad(photo, words)), 1.0, atol=1e-5)
    assert not vlad(photo[:0], words).any()
