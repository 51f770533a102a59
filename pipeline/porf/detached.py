"""Views that an adjustment left behind, and their return.

A view that starts too far off, alone or with neighbours, can lose all its matches with the rest:
rounds choose the matches that fit, so none brings it back. Its pose is found anew from the points
of the rest by its matches alone, whatever the pose said before (resection).
"""

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.pixels import idr_to_colmap_px

_AGREEING_SHARE = 0.5
_MIN_POINTS = 15
_MIN_INLIER_SHARE = 0.25
_SEED = 0


def attached_views(ref: NDArray, src: NDArray, fits: NDArray, view_count: int) -> NDArray[np.bool_]:
    """Which views (V,) hang together with most others, by pairs of which half the matches fit.

    Args:
        ref, src: (M,) views of each match.
        fits: (M,) bool.
    """
    pair, of_match = np.unique(ref * view_count + src, return_inverse=True)
    agreeing = np.bincount(of_match, weights=fits) >= _AGREEING_SHARE * np.bincount(of_match)
    i, j = np.divmod(pair[agreeing], view_count)
    links = coo_matrix((np.ones(len(i)), (i, j)), shape=(view_count, view_count))
    group = connected_components(links, directed=False)[1]
    attached: NDArray[np.bool_] = group == np.bincount(group).argmax()
    return attached


def detached(attached: NDArray[np.bool_], ref: NDArray, src: NDArray) -> list[int]:
    """Views that have matches, and are not among the attached (V,)."""
    return [view for view in np.unique([ref, src]).tolist() if not attached[view]]


def resected(
    xy_px: NDArray, points: NDArray, camera: pycolmap.Camera, max_error_px: float
) -> NDArray | None:
    """The pose c2w (4, 4) that sees points (M, 3) at pixels (M, 2), IDR's; None if none does."""
    if len(points) < _MIN_POINTS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = max_error_px
    options.ransac.min_inlier_ratio = _MIN_INLIER_SHARE
    options.ransac.random_seed = _SEED
    found = pycolmap.estimate_and_refine_absolute_pose(
        idr_to_colmap_px(xy_px), points, camera, options
    )
    if found is None or found["num_inliers"] < max(_MIN_POINTS, _MIN_INLIER_SHARE * len(points)):
        return None
    w2c = np.eye(4)
    w2c[:3] = found["cam_from_world"].matrix()
    c2w: NDArray = invert_pose(w2c)
    return c2w
