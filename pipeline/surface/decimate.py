"""Coarser copies of a mesh for display."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class DisplayMesh:
    """A mesh with attributes per vertex.

    Attributes:
        vertices: (V, 3).
        normals: (V, 3) unit.
        faces: (F, 3).
        rgb: (V, 3) uint8.
        uv: (V, 2) places in a texture, with vertices doubled at its seams; None without one.
    """

    vertices: NDArray
    normals: NDArray
    faces: NDArray
    rgb: NDArray
    uv: NDArray | None = None


def decimate(mesh: DisplayMesh, max_faces: int) -> DisplayMesh:
    """The mesh itself if it is small enough, else its finest clustering with at most `max_faces`.

    Vertices that share a cell of a cubic grid become one, at their mean; the cell's size is found
    by bisection. Simple, fast, and it never invents surface far from the old one. Places in a
    texture become one within a chart only, so that seams stay closed and pictures unmixed.
    Source: Rossignac and Borrel, "Multi-resolution 3D approximations for rendering", 1993.
    """
    if len(mesh.faces) <= max_faces:
        return mesh
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    coarse, fine = extent / 4, extent / 4096
    charts = _charts(mesh)
    best = _cluster(mesh, coarse, charts)
    for _ in range(9):
        middle = float(np.sqrt(coarse * fine))
        candidate = _cluster(mesh, middle, charts)
        if len(candidate.faces) <= max_faces:
            best, coarse = candidate, middle
        else:
            fine = middle
    return best


def _charts(mesh: DisplayMesh) -> NDArray:
    """Number (V,) of the piece of texture that each vertex lies in; 0 where there is none."""
    if mesh.uv is None:
        return np.zeros(len(mesh.vertices), dtype=np.int64)
    first, second = mesh.faces[:, [0, 1]].reshape(-1), mesh.faces[:, [1, 2]].reshape(-1)
    count = len(mesh.vertices)
    joined = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    charts: NDArray = connected_components(joined, directed=False)[1].astype(np.int64)
    return charts


def _cluster(mesh: DisplayMesh, cell: float, charts: NDArray) -> DisplayMesh:
    grid = np.floor((mesh.vertices - mesh.vertices.min(axis=0)) / cell).astype(np.int64)
    side = grid.max() + 1
    key = (grid[:, 0] * side + grid[:, 1]) * side + grid[:, 2]
    _, cluster, count = np.unique(key, return_inverse=True, return_counts=True)
    _, first, corner, shared = np.unique(
        cluster * (charts.max() + 1) + charts,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    own = cluster[first]
    ends = cluster[mesh.faces]
    distinct = (ends[:, 0] != ends[:, 1]) & (ends[:, 1] != ends[:, 2]) & (ends[:, 2] != ends[:, 0])
    faces = np.unique(_rotated_to_smallest_first(corner[mesh.faces][distinct]), axis=0)
    normals = _means(mesh.normals, cluster, count)[own]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return DisplayMesh(
        _means(mesh.vertices, cluster, count)[own],
        normals,
        faces,
        np.round(_means(mesh.rgb, corner, shared)).astype(np.uint8),
        None if mesh.uv is None else _means(mesh.uv, corner, shared),
    )


def _rotated_to_smallest_first(faces: NDArray) -> NDArray:
    """The same triangles with the smallest index first, winding kept, so that copies are equal."""
    start = faces.argmin(axis=1)
    columns = (start[:, None] + np.arange(3)) % 3
    rotated: NDArray = np.take_along_axis(faces, columns, axis=1)
    return rotated


def _means(values: NDArray, cluster: NDArray, count: NDArray) -> NDArray:
    axes = range(values.shape[1])
    columns = [np.bincount(cluster, weights=values[:, axis]) / count for axis in axes]
    return np.stack(columns, axis=1)
