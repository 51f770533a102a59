"""Coarser copies of a mesh for display."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DisplayMesh:
    """A mesh with attributes per vertex.

    Attributes:
        vertices: (V, 3).
        normals: (V, 3) unit.
        faces: (F, 3).
        rgb: (V, 3) uint8.
    """

    vertices: NDArray
    normals: NDArray
    faces: NDArray
    rgb: NDArray


def decimate(mesh: DisplayMesh, max_faces: int) -> DisplayMesh:
    """The mesh itself if it is small enough, else its finest clustering with at most `max_faces`.

    Vertices that share a cell of a cubic grid become one, at their mean; the cell's size is found
    by bisection. Simple, fast, and it never invents surface far from the old one.
    Source: Rossignac and Borrel, "Multi-resolution 3D approximations for rendering", 1993.
    """
    if len(mesh.faces) <= max_faces:
        return mesh
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    coarse, fine = extent / 4, extent / 4096
    best = _cluster(mesh, coarse)
    for _ in range(9):
        middle = float(np.sqrt(coarse * fine))
        candidate = _cluster(mesh, middle)
        if len(candidate.faces) <= max_faces:
            best, coarse = candidate, middle
        else:
            fine = middle
    return best


def _cluster(mesh: DisplayMesh, cell: float) -> DisplayMesh:
    grid = np.floor((mesh.vertices - mesh.vertices.min(axis=0)) / cell).astype(np.int64)
    side = grid.max() + 1
    key = (grid[:, 0] * side + grid[:, 1]) * side + grid[:, 2]
    _, cluster, count = np.unique(key, return_inverse=True, return_counts=True)
    faces = cluster[mesh.faces]
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    faces = np.unique(_rotated_to_smallest_first(faces[distinct]), axis=0)
    normals = _means(mesh.normals, cluster, count)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    rgb = np.round(_means(mesh.rgb, cluster, count)).astype(np.uint8)
    return DisplayMesh(_means(mesh.vertices, cluster, count), normals, faces, rgb)


def _rotated_to_smallest_first(faces: NDArray) -> NDArray:
    """The same triangles with the smallest index first, winding kept, so that copies are equal."""
    start = faces.argmin(axis=1)
    columns = (start[:, None] + np.arange(3)) % 3
    rotated: NDArray = np.take_along_axis(faces, columns, axis=1)
    return rotated


def _means(values: NDArray, cluster: NDArray, count: NDArray) -> NDArray:
    columns = [np.bincount(cluster, weights=values[:, axis]) / count for axis in range(3)]
    return np.stack(columns, axis=1)
