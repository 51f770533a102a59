"""Cutting a mesh along a level set of a value at its vertices."""

import numpy as np
import trimesh
from numpy.typing import NDArray


def clip_below(mesh: trimesh.Trimesh, value: NDArray, level: float) -> trimesh.Trimesh:
    """The part of the mesh where `value` (V,) ≤ `level`, cut through the faces that straddle it.

    New vertices lie where the value, linear along an edge, reaches the level; winding is kept.
    """
    inside = value <= level
    faces = np.asarray(mesh.faces)
    count = inside[faces].sum(axis=1)
    one, two = faces[count == 1], faces[count == 2]
    # turned so that the odd vertex comes first
    one = _turned(one, inside[one].argmax(axis=1))
    two = _turned(two, (~inside[two]).argmax(axis=1))
    crossed = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [0, 1]], two[:, [0, 2]]])
    new_vertices, new_index = _crossings(np.asarray(mesh.vertices), value, level, crossed)
    a, b, c, d = np.split(new_index + len(mesh.vertices), np.cumsum([len(one), len(one), len(two)]))
    kept = [
        faces[count == 3],
        np.stack([one[:, 0], a, b], axis=1),
        np.stack([c, two[:, 1], two[:, 2]], axis=1),
        np.stack([c, two[:, 2], d], axis=1),
    ]
    vertices = np.concatenate([mesh.vertices, new_vertices])
    used, renumbered = np.unique(np.concatenate(kept), return_inverse=True)
    return trimesh.Trimesh(vertices[used], renumbered.reshape(-1, 3), process=False)


def _turned(faces: NDArray, first: NDArray) -> NDArray:
    columns = (first[:, None] + np.arange(3)) % 3
    turned: NDArray = np.take_along_axis(faces, columns, axis=1)
    return turned


def _crossings(
    vertices: NDArray, value: NDArray, level: float, edges: NDArray
) -> tuple[NDArray, NDArray]:
    """One vertex for each distinct edge (E, 2) that crosses the level, and its number (E,)."""
    if len(edges) == 0:
        return np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    low, high = edges.min(axis=1), edges.max(axis=1)
    _, first, number = np.unique(low * len(vertices) + high, return_index=True, return_inverse=True)
    a, b = low[first], high[first]
    share = ((level - value[a]) / (value[b] - value[a]))[:, None]
    return vertices[a] + share * (vertices[b] - vertices[a]), number
