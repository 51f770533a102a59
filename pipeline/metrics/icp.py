"""Registration of point clouds by iterated closest points.

Source: Besl and McKay, "A method for registration of 3-D shapes", PAMI 1992, with a limit on the
distance of correspondences; stopping rule and figures as in Open3D, which the public protocols use.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.geometry.similarity import Similarity, umeyama

MIN_PAIRS = 3


@dataclass(frozen=True)
class Registration:
    """How a source cloud was laid onto a target.

    Attributes:
        similarity: source → target.
        fitness: share of the source points with a target point within the distance.
        inlier_rmse: root mean square distance of these; 0 where there is none.
        iterations: updates made.
    """

    similarity: Similarity
    fitness: float
    inlier_rmse: float
    iterations: int


def icp(
    source: NDArray,
    target: NDArray,
    max_distance: float,
    *,
    start: Similarity | None = None,
    iterations: int = 30,
    with_scale: bool = False,
    tolerance: float = 1e-6,
    rmse_tolerance: float = 1e-6,
) -> Registration:
    """Lay points (S, 3) onto points (T, 3), point to point.

    Args:
        max_distance: correspondences farther apart do not count (unit of the target).
        start: first guess, source → target; identity if None.
        iterations: at most this many updates.
        with_scale: whether the scale is fitted, too.
        tolerance, rmse_tolerance: stop when the fitness changes by less than the one and the RMSE
            by less than the other.

    Where fewer than three points correspond, nothing can be fitted and the guess stays.
    """
    tree = cKDTree(target)
    found = start or Similarity.identity()
    moved = found.apply_points(source)
    index, pairs, fitness, rmse = _correspond(tree, moved, max_distance)
    done = 0
    while done < iterations and len(pairs) >= MIN_PAIRS:
        update = umeyama(moved[pairs], np.asarray(target)[index], with_scale)
        found = Similarity.from_matrix(update.matrix @ found.matrix)
        moved = update.apply_points(moved)
        done += 1
        before = fitness, rmse
        index, pairs, fitness, rmse = _correspond(tree, moved, max_distance)
        if abs(fitness - before[0]) < tolerance and abs(rmse - before[1]) < rmse_tolerance:
            break
    return Registration(found, fitness, rmse, done)


def _correspond(
    tree: cKDTree, moved: NDArray, max_distance: float
) -> tuple[NDArray, NDArray, float, float]:
    """Nearest target points, which source points have one, their share, their RMSE."""
    distance, index = tree.query(moved, distance_upper_bound=max_distance, workers=-1)
    pairs = np.flatnonzero(np.isfinite(distance))
    rmse = float(np.sqrt(np.mean(distance[pairs] ** 2))) if len(pairs) else 0.0
    return index[pairs], pairs, len(pairs) / len(moved), rmse
