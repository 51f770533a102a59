"""Tracks: matches of one point through several views, and their triangulation.

Matches of one keypoint share its pixel exactly, so pairwise matches join into tracks.
Source of the triangulation: Hartley and Zisserman, "Multiple View Geometry", section 12.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.geometry.cameras import projection_matrix

_SUBPIXEL = 64
_BITS = 24
_MARGIN_PX = 2**_BITS // _SUBPIXEL // 2  # coordinates may be negative


@dataclass(frozen=True)
class Tracks:
    """Observations (O,) of T points: which point, in which view, where (pixels, IDR)."""

    point: NDArray
    view: NDArray
    xy_px: NDArray

    def __len__(self) -> int:
        return int(self.point.max()) + 1 if len(self.point) else 0

    def of_points(self, kept: NDArray) -> "Tracks":
        """The tracks of some points (T,), bool or indices, numbered anew."""
        chosen = np.isin(self.point, np.arange(len(self))[kept])
        return self.of_observations(chosen)

    def of_observations(self, kept: NDArray) -> "Tracks":
        """Some observations (O,), bool, and the points that they see, numbered anew."""
        point = np.unique(self.point[kept], return_inverse=True)[1].reshape(-1)
        return Tracks(point, self.view[kept], self.xy_px[kept])

    def points_at(self, view: NDArray, xy_px: NDArray) -> NDArray:
        """Points (M,) that are observed at places (M, 2) of views (M,); -1 = none is there."""
        keys = _keys(self.view, self.xy_px)
        order = np.argsort(keys)
        wanted = _keys(view, xy_px)
        place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        return np.where(keys[order][place] == wanted, self.point[order][place], -1)


def join_tracks(ref: NDArray, src: NDArray, matches_px: NDArray, min_length: int) -> Tracks:
    """Join matches that share keypoints.

    Tracks that meet one view in two places are contradictory and left out, as are those through
    fewer than `min_length` views.

    Args:
        ref, src: (M,) views of each match.
        matches_px: (M, 4) x_ref, y_ref, x_src, y_src.
    """
    if not len(matches_px):
        return Tracks(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    first, second = _keys(ref, matches_px[:, :2]), _keys(src, matches_px[:, 2:])
    keys, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = np.split(index.reshape(-1), 2)
    view = keys >> (2 * _BITS)
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(keys), len(keys)))
    track = connected_components(links, directed=False)[1].astype(np.int64)
    length = np.bincount(track)
    met = np.unique(track * (int(view.max()) + 1) + view) // (int(view.max()) + 1)
    consistent = np.bincount(met, minlength=len(length)) == length
    joined = Tracks(track, view, _places_px(keys))
    return joined.of_points(consistent & (length >= min_length))


def _keys(view: NDArray, xy_px: NDArray) -> NDArray:
    """Numbers (M,) that identify keypoints: view, x and y in one."""
    place = np.round((np.asarray(xy_px, dtype=np.float64) + _MARGIN_PX) * _SUBPIXEL)
    x, y = np.clip(place, 0, 2**_BITS - 1).astype(np.int64).T
    keys: NDArray = (view.astype(np.int64) << (2 * _BITS)) | (x << _BITS) | y
    return keys


def _places_px(keys: NDArray) -> NDArray:
    """Pixels (M, 2) of keypoints by their numbers (M,)."""
    below = 2**_BITS - 1
    place = np.stack([keys >> _BITS & below, keys & below], axis=1)
    return place / _SUBPIXEL - _MARGIN_PX


@dataclass(frozen=True)
class Triangulated:
    """Points of tracks.

    Attributes:
        xyz: (T, 3) in the cameras' frame; meaningless where the error is infinite.
        error_px: (O,) distances between observations and their projected points, infinite for
            points behind the camera.
    """

    xyz: NDArray
    error_px: NDArray


def triangulate(tracks: Tracks, K: NDArray, c2w: NDArray) -> Triangulated:
    """The points of tracks by linear least squares.

    Args:
        K, c2w: (V, 3, 3) and (V, 4, 4), all views of the matches.
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
        xyz = point[:, :3] / point[:, 3:] * scale + centre
    return Triangulated(xyz, np.where((depth > 0) & np.isfinite(error), error, np.inf))
