"""How well a model explains matches that it was not adjusted to.

A tenth of the tracks that verified matches join into is set aside, the same for every model. A
model is adjusted once more without the points of these tracks; then they are triangulated by its
cameras. A track in a photo that the model lacks, or at a place that it calls impossible, counts
against it, so that one figure speaks of photos, contradictions and accuracy.
"""

import copy
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.geometry.tracks import Tracks, join_tracks, triangulate
from pipeline.sfm.adjustment import adjust
from pipeline.sfm.colmap import c2w_of
from pipeline.sfm.twoview import TwoViewTable

SHARE = 0.1
EXPLAINED_PX = 4.0
"""The reprojection error up to which COLMAP's mapping believes an observation."""
LOSS_PX = 1.0
_SUBPIXEL = 64


@dataclass(frozen=True)
class HeldOut:
    """Tracks set aside; their views are positions in `image_ids`, their pixels COLMAP's."""

    image_ids: list[int]
    tracks: Tracks


@dataclass(frozen=True)
class Explained:
    """What a model makes of them.

    Attributes:
        share: observations that it reprojects to within `EXPLAINED_PX`, of all that were set aside.
        median_px: median reprojection error of these.
    """

    share: float
    median_px: float


def hold_out(table: TwoViewTable, seed: int) -> HeldOut:
    """A tenth of the tracks, drawn from the seed."""
    image_ids = sorted(table.keypoints_px)
    index = {image_id: n for n, image_id in enumerate(image_ids)}
    ref = [np.full(len(p.features), index[p.image1]) for p in table.pairs]
    src = [np.full(len(p.features), index[p.image2]) for p in table.pairs]
    matches = [
        np.concatenate(
            [
                table.keypoints_px[p.image1][p.features[:, 0]],
                table.keypoints_px[p.image2][p.features[:, 1]],
            ],
            axis=1,
        )
        for p in table.pairs
    ]
    tracks = join_tracks(np.concatenate(ref), np.concatenate(src), np.concatenate(matches), 2)
    drawn = np.random.default_rng(seed).random(len(tracks)) < SHARE
    return HeldOut(image_ids, tracks.of_points(drawn))


def explain(model: pycolmap.Reconstruction, held_out: HeldOut) -> Explained:
    """Judge a model, which stays as it is."""
    adjusted = without_points_of(model, held_out)
    adjust(adjusted, LOSS_PX, False)
    registered = set(adjusted.reg_image_ids())
    known = np.array([i in registered for i in held_out.image_ids])
    tracks = held_out.tracks.of_observations(known[held_out.tracks.view])
    if not len(tracks):
        return Explained(0.0, float("inf"))
    K, c2w = _pinholes(adjusted, held_out.image_ids)
    straight = Tracks(tracks.point, tracks.view, _straightened_px(adjusted, held_out, tracks))
    error_px = triangulate(straight, K, c2w).error_px
    # one view alone puts a point anywhere on its ray
    error_px[np.bincount(tracks.point)[tracks.point] < 2] = np.inf
    good = error_px[error_px < EXPLAINED_PX]
    median_px = float(np.median(good)) if len(good) else float("inf")
    return Explained(len(good) / len(held_out.tracks.view), median_px)


def without_points_of(model: pycolmap.Reconstruction, held_out: HeldOut) -> pycolmap.Reconstruction:
    """A copy of the model without any point that a track set aside has part in."""
    left = copy.deepcopy(model)
    for view, image_id in enumerate(held_out.image_ids):
        if not left.exists_image(image_id) or not left.image(image_id).has_pose:
            continue
        mine = held_out.tracks.xy_px[held_out.tracks.view == view]
        aside = set(map(tuple, _places(mine).tolist()))
        seen = left.image(image_id).get_observation_points2D()
        places = _places(np.array([p.xy for p in seen]).reshape(-1, 2)).tolist()
        gone = {p.point3D_id for p, at in zip(seen, places, strict=True) if tuple(at) in aside}
        for point_id in gone:
            left.delete_point3D(point_id)
    return left


def _places(xy_px: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.round(xy_px * _SUBPIXEL).astype(np.int64)


def _pinholes(
    model: pycolmap.Reconstruction, image_ids: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """K (V, 3, 3) centred at (0, 0), and poses (V, 4, 4); identities where there is none."""
    K, c2w = np.tile(np.eye(3), (len(image_ids), 1, 1)), np.tile(np.eye(4), (len(image_ids), 1, 1))
    for view, image_id in enumerate(image_ids):
        if model.exists_image(image_id) and model.image(image_id).has_pose:
            K[view, [0, 1], [0, 1]] = model.image(image_id).camera.mean_focal_length()
            c2w[view] = c2w_of(model.image(image_id))
    return K, c2w


def _straightened_px(
    model: pycolmap.Reconstruction, held_out: HeldOut, tracks: Tracks
) -> NDArray[np.float64]:
    """(O, 2) pixels of the pinholes, distortion undone."""
    xy_px = np.zeros_like(tracks.xy_px)
    for view in np.unique(tracks.view):
        camera = model.image(held_out.image_ids[view]).camera
        mine = tracks.view == view
        xy_px[mine] = camera.cam_from_img(tracks.xy_px[mine]) * camera.mean_focal_length()
    return xy_px
