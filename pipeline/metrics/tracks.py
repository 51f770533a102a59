"""Reprojection error of tracks through several views, for any set of cameras.

Matches of one keypoint share its pixel exactly, so pairwise matches join into tracks; each track is
triangulated with the cameras in question and measured in its views.
Source of the triangulation: Hartley and Zisserman, "Multiple View Geometry", section 12.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.formats.matches import ViewMatches
from pipeline.geometry.cameras import projection_matrix

MIN_LENGTH = 3
"""Two views would only say what the epipolar error says."""
MAX_TRACKS = 20_000
_SUBPIXEL = 64
_MARGIN_PX = 1024  # undistorted keypoints may lie a little outside their view
_BITS = 24


@dataclass(frozen=True)
class Tracks:
    """Observations (O,) of T points: which point, in which view, where (pixels, IDR)."""

    point: NDArray
    view: NDArray
    xy_px: NDArray

    def __len__(self) -> int:
        return int(self.point.max()) + 1 if len(self.point) else 0


def join_tracks(matches: Sequence[ViewMatches]) -> Tracks:
    """Tracks of at least `MIN_LENGTH` views, at most `MAX_TRACKS` evenly picked ones.

    Those that meet one view in two places are contradictory and left out.
    """
    ends = [
        (ref, src, rows)
        for ref, view in enumerate(matches)
        for src, rows in zip(view.sources, view.matches_px, strict=True)
        if len(rows)
    ]
    if not ends:
        return Tracks(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    first = np.concatenate([_keys(ref, rows[:, :2]) for ref, _, rows in ends])
    second = np.concatenate([_keys(src, rows[:, 2:]) for _, src, rows in ends])
    keys, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = np.split(index, 2)
    view_of = keys >> (2 * _BITS)
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(keys), len(keys)))
    track = connected_components(links, directed=False)[1]
    length = np.bincount(track)
    views = int(view_of.max()) + 1
    met = np.unique(track.astype(np.int64) * views + view_of) // views
    consistent = np.bincount(met, minlength=len(length)) == length
    good = np.flatnonzero(consistent & (length >= MIN_LENGTH))
    if len(good) > MAX_TRACKS:
        good = good[np.linspace(0, len(good) - 1, MAX_TRACKS).astype(np.int64)]
    kept = np.isin(track, good)
    return Tracks(
        np.unique(track[kept], return_inverse=True)[1],
        view_of[kept],
        _places_px(keys[kept]),
    )


def _keys(view: int, xy_px: NDArray) -> NDArray:
    """Numbers (M,) that identify keypoints: view, x and y in one."""
    place = np.round((np.asarray(xy_px, dtype=np.float64) + _MARGIN_PX) * _SUBPIXEL)
    x, y = np.clip(place, 0, 2**_BITS - 1).astype(np.int64).T
    keys: NDArray = (view << (2 * _BITS)) | (x << _BITS) | y
    return keys


def _places_px(keys: NDArray) -> NDArray:
    """Pixels (M, 2) of keypoints by their numbers (M,)."""
    below = 2**_BITS - 1
    place = np.stack([keys >> _BITS & below, keys & below], axis=1)
    return place / _SUBPIXEL - _MARGIN_PX


def reprojection_errors_px(tracks: Tracks, K: NDArray, c2w: NDArray) -> NDArray:
    """Distances (O,) in pixels between observations and their triangulated points.

    Args:
        K, c2w: (V, 3, 3) and (V, 4, 4), all views of the matches.

    Points that come out behind one of their cameras have an infinite error.
    """
    # centred and scaled, so that the linear equations are of one size
    centre = c2w[:, :3, 3].mean(axis=0)
    scale = max(float(np.abs(c2w[:, :3, 3] - centre).max()), 1e-12)
    moved = np.array(c2w, dtype=np.float64)
    moved[:, :3, 3] = (moved[:, :3, 3] - centre) / scale
    P = projection_matrix(K, moved)[:, :3]
    of_view = P[tracks.view]
    rows = tracks.xy_px[:, :, None] * of_view[:, 2:3] - of_view[:, :2]
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    normal = np.zeros((len(tracks), 4, 4))
    np.add.at(normal, tracks.point, np.einsum("oki,okj->oij", rows, rows))
    point = np.linalg.eigh(normal)[1][:, :, 0]
    seen = np.einsum("oij,oj->oi", of_view, point[tracks.point])
    # the sign of a homogeneous point is free
    depth = seen[:, 2] * np.sign(point[tracks.point, 3])
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(seen[:, :2] / seen[:, 2:] - tracks.xy_px, axis=1)
    errors: NDArray = np.where((depth > 0) & np.isfinite(error), error, np.inf)
    return errors
