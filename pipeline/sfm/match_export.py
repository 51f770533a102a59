"""Verified matches in the ideal views' pixels, by view index, from both sides."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.matches import ViewMatches
from pipeline.sfm.config import MatchesConfig
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair, read_two_views
from pipeline.sfm.undistortion import undistort_points_px
from pipeline.sfm.views import RegisteredView


@dataclass(frozen=True)
class PairMatches:
    """Matches of views i < j.

    Attributes:
        xyxy_px: (M, 4) float32 x_i, y_i, x_j, y_j, IDR's pixels of the ideal views.
        heldout: (M,) bool.
    """

    i: int
    j: int
    xyxy_px: NDArray[np.float32]
    heldout: NDArray[np.bool_]


def collect_matches(
    database_path: Path,
    model: pycolmap.Reconstruction,
    views: list[RegisteredView],
    K: NDArray[np.float64],
    size_px: tuple[int, int],
    config: MatchesConfig,
    seed: int,
) -> list[PairMatches]:
    """Verified matches between registered views.

    Left out: matches outside the ideal views, exact repetitions (a feature with two orientations),
    pairs with too few. Held out are whole scene points: all matches of a triangulated point share
    its fate, so that a held-out match is not known from a third view.

    Args:
        K: (N, 3, 3) of the ideal views, IDR's convention.
        size_px: width, height of the ideal views.

    Raises:
        InputError: no pair is left.
    """
    table = read_two_views(database_path)
    view_of = {view.image_id: view for view in views}
    ideal_px = {
        view.image_id: undistort_points_px(
            view.camera, K[view.index], table.keypoints_px[view.image_id]
        )
        for view in views
    }
    rng = np.random.default_rng(seed)
    fate = _fate_of_points(model, views, table, config.heldout_fraction, rng)
    collected = []
    for pair in table.pairs:
        if pair.image1 not in view_of or pair.image2 not in view_of:
            continue
        found = _one_pair(pair, view_of, ideal_px, fate, size_px, config, rng)
        if found is not None:
            collected.append(found)
    if not collected:
        raise InputError(
            f"no pair of views shares {config.min_matches} verified matches",
            hint="lower matches.min_matches, or take photos with more overlap",
        )
    return sorted(collected, key=lambda pair: (pair.i, pair.j))


def _fate_of_points(
    model: pycolmap.Reconstruction,
    views: list[RegisteredView],
    table: TwoViewTable,
    fraction: float,
    rng: np.random.Generator,
) -> dict[int, NDArray[np.int8]]:
    """Image id → (F,) a feature: 1 held out, 0 not, -1 not triangulated."""
    point_ids = np.array(sorted(model.points3D), dtype=np.int64)
    heldout = set(point_ids[rng.random(len(point_ids)) < fraction].tolist())
    fates = {}
    for view in views:
        fate = np.full(len(table.keypoints_px[view.image_id]), -1, dtype=np.int8)
        image = model.image(view.image_id)
        for index in image.get_observation_point2D_idxs():
            fate[index] = image.point2D(index).point3D_id in heldout
        fates[view.image_id] = fate
    return fates


def _one_pair(
    pair: VerifiedPair,
    view_of: dict[int, RegisteredView],
    ideal_px: dict[int, NDArray[np.float64]],
    fate: dict[int, NDArray[np.int8]],
    size_px: tuple[int, int],
    config: MatchesConfig,
    rng: np.random.Generator,
) -> PairMatches | None:
    first, second = pair.image1, pair.image2
    columns = (pair.features[:, 0], pair.features[:, 1])
    if view_of[first].index > view_of[second].index:
        first, second, columns = second, first, columns[::-1]
    xyxy = np.concatenate([ideal_px[first][columns[0]], ideal_px[second][columns[1]]], axis=1)
    fate1, fate2 = fate[first][columns[0]], fate[second][columns[1]]
    drawn = rng.random(len(xyxy)) < config.heldout_fraction
    known = np.maximum(fate1, fate2)
    heldout = np.where(known >= 0, known == 1, drawn)
    limit = np.array([*size_px, *size_px]) - 0.5
    with np.errstate(invalid="ignore"):
        inside = ((xyxy >= -0.5) & (xyxy < limit)).all(axis=1)
    xyxy, heldout = xyxy[inside].astype(np.float32), heldout[inside]
    kept = np.sort(np.unique(xyxy, axis=0, return_index=True)[1])
    if len(kept) < config.min_matches:
        return None
    return PairMatches(view_of[first].index, view_of[second].index, xyxy[kept], heldout[kept])


def both_directions(pairs: list[PairMatches], view_count: int) -> list[ViewMatches]:
    """One entry a view: its matches with every partner, the view itself first."""
    partners: dict[int, list[tuple[int, NDArray, NDArray]]] = defaultdict(list)
    for pair in pairs:
        partners[pair.i].append((pair.j, pair.xyxy_px, pair.heldout))
        partners[pair.j].append((pair.i, pair.xyxy_px[:, [2, 3, 0, 1]], pair.heldout))
    views = []
    for index in range(view_count):
        own = sorted(partners[index], key=lambda entry: entry[0])
        views.append(
            ViewMatches([j for j, _, _ in own], [m for _, m, _ in own], [h for _, _, h in own])
        )
    return views
