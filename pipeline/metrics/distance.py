"""Distances from points to triangle meshes that need not be closed, and even samples of them.

Candidates are found by a k-d tree over samples of the surface; the distance is then exact to the
triangles they belong to. It is never too small, and too large (by less than the spacing of the
samples) only where more than `CANDIDATES` triangles crowd around the nearest point.
"""

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

CANDIDATES = 8
POINTS_PER_CALL = 1 << 16
MAX_SAMPLES = 4_000_000


class SurfaceDistance:
    """A triangle mesh that distances are measured to."""

    def __init__(self, vertices: NDArray, faces: NDArray, spacing: float) -> None:
        """
        Args:
            vertices: (V, 3) positions.
            faces: (F, 3) indices, F ≥ 1; triangles without area are left out.
            spacing: largest distance between neighbouring samples, in the unit of the vertices.
        """
        corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces, dtype=np.int64)]
        self._unit = spacing  # trimesh's tolerances are absolute: keep the numbers near one
        self._corners = corners[_areas(corners) > 0] / spacing
        samples, self._face = sample_triangles(self._corners, 1.0)
        self._tree = cKDTree(samples)

    def distances(self, points: NDArray) -> NDArray:
        """Distances (P,) of points (P, 3) to the nearest place on the surface."""
        return self.nearest(points)[0]

    def nearest(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Distances (P,) of points (P, 3) to the nearest triangles, and which (P,) these are."""
        scaled = np.asarray(points, dtype=np.float64) / self._unit
        parts = [
            self._nearest(scaled[start : start + POINTS_PER_CALL])
            for start in range(0, len(scaled), POINTS_PER_CALL)
        ]
        if not parts:
            return np.zeros(0), np.zeros(0, dtype=np.int64)
        distances, faces = (np.concatenate(column) for column in zip(*parts, strict=True))
        return distances * self._unit, faces

    def normals(self, face: NDArray) -> NDArray:
        """Unit normals (P, 3), by their winding, of triangles (P,) that `nearest` named."""
        a, b, c = self._corners[face].transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        unit: NDArray = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        return unit

    def _nearest(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Distances (P,) to the nearest triangles, and which these are."""
        k = min(CANDIDATES, self._tree.n)
        _, nearest = self._tree.query(points, k=k, workers=-1)
        faces = self._face[nearest.reshape(len(points), k)]
        triangles = self._corners[faces].reshape(-1, 3, 3)
        repeated = np.repeat(points, k, axis=0)
        closest = trimesh.triangles.closest_point(triangles, repeated)
        distance = np.linalg.norm(closest - repeated, axis=1).reshape(len(points), k)
        best = distance.argmin(axis=1)[:, None]
        return (
            np.take_along_axis(distance, best, axis=1)[:, 0],
            np.take_along_axis(faces, best, axis=1)[:, 0],
        )


def sample_triangles(corners: NDArray, spacing: float) -> tuple[NDArray, NDArray]:
    """Regular samples of triangles (F, 3, 3), at least one each.

    A triangle whose longest edge needs n steps of `spacing` is cut into n² congruent parts, and
    their centroids are the samples; the spacing grows where there would be too many.

    Returns:
        Points (S, 3) and the triangle (S,) that each lies on.
    """
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.maximum(np.ceil(longest / spacing), 1).astype(np.int64)
    too_many = np.sqrt((steps**2).sum() / MAX_SAMPLES)
    if too_many > 1:
        steps = np.maximum(np.ceil(steps / too_many), 1).astype(np.int64)
    points, owners = [], []
    for n in np.unique(steps):
        chosen = np.flatnonzero(steps == n)
        weights = _centroid_weights(int(n))
        points.append(np.einsum("sk,fkd->fsd", weights, corners[chosen]).reshape(-1, 3))
        owners.append(np.repeat(chosen, len(weights)))
    return np.concatenate(points), np.concatenate(owners)


def sample_surface(vertices: NDArray, faces: NDArray, spacing: float) -> NDArray:
    """Points (S, 3) spread evenly over a mesh, about one in each cube of edge `spacing`."""
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces, dtype=np.int64)]
    points, _ = sample_triangles(corners[_areas(corners) > 0], 0.7 * spacing)
    return points[thin(points, spacing)]


def thin(points: NDArray, spacing: float) -> NDArray:
    """Indices (Q,), ascending, of one point in each cube of edge `spacing`, the most central one.

    The mean over points becomes a mean over area, however often a place was seen.
    """
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    cells = np.floor(points / spacing).astype(np.int64)
    off_centre = np.linalg.norm(points / spacing - cells - 0.5, axis=1)
    low = cells.min(axis=0)
    _, cube = np.unique(
        np.ravel_multi_index((cells - low).T, cells.max(axis=0) - low + 1), return_inverse=True
    )
    order = np.lexsort((off_centre, cube))
    first = np.ones(len(points), dtype=bool)
    first[1:] = cube[order[1:]] != cube[order[:-1]]
    return np.sort(order[first])


def _centroid_weights(n: int) -> NDArray:
    """Barycentric weights (n², 3) of the centroids of a triangle's n² congruent parts."""
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    upright, inverted = i + j < n, i + j < n - 1
    u = np.concatenate([i[upright] + 1 / 3, i[inverted] + 2 / 3]) / n
    v = np.concatenate([j[upright] + 1 / 3, j[inverted] + 2 / 3]) / n
    return np.stack([1 - u - v, u, v], axis=1)


def _areas(corners: NDArray) -> NDArray:
    a, b, c = corners.transpose(1, 0, 2)
    areas: NDArray = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return areas
