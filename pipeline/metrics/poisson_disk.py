"""Evenly spread random samples of a surface, by eliminating the most crowded of too many.

Source: Yuksel, "Sample elimination for generating Poisson disk sample sets", Eurographics 2015,
with that paper's weights (α = 8, β = 0.65 replaced by ½ as in Open3D, γ = 1.5) and distances in
space, not along the surface.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.errors import InputError

ALPHA, BETA, GAMMA = 8, 0.5, 1.5
INITIAL_FACTOR = 5

_compiled: Any = numba.njit(nogil=True, cache=True)


def poisson_disk_samples(
    vertices: NDArray, faces: NDArray, count: int, rng: np.random.Generator
) -> NDArray:
    """`count` points (count, 3) on a mesh with vertices (V, 3), faces (F, 3).

    Raises:
        InputError: the mesh has no area.
    """
    crowd, area = uniform_samples(vertices, faces, INITIAL_FACTOR * count, rng)
    reach = 2 * np.sqrt(area / count / (2 * np.sqrt(3)))
    nearest = reach * BETA * (1 - (1 / INITIAL_FACTOR) ** GAMMA)
    pairs = cKDTree(crowd).query_pairs(reach, output_type="ndarray")
    distance = np.linalg.norm(crowd[pairs[:, 0]] - crowd[pairs[:, 1]], axis=1)
    crowding = (1 - np.maximum(distance, nearest) / reach) ** ALPHA
    ends = np.concatenate([pairs[:, 0], pairs[:, 1]])
    order = np.argsort(ends, kind="stable")
    others = np.concatenate([pairs[:, 1], pairs[:, 0]])[order]
    start = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=len(crowd)))])
    alive = _eliminate(start, others, np.concatenate([crowding, crowding])[order], count)
    return crowd[alive]


def uniform_samples(
    vertices: NDArray, faces: NDArray, count: int, rng: np.random.Generator
) -> tuple[NDArray, float]:
    """`count` random points (count, 3), uniform over the area, and the area.

    Each triangle gets its share of the points, up to rounding; only their places are random.

    Raises:
        InputError: the mesh has no area.
    """
    a, b, c = np.asarray(vertices, dtype=np.float64)[faces].transpose(1, 0, 2)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    total = float(areas.sum())
    if not total > 0:
        raise InputError("a surface without area cannot be sampled")
    shares = np.diff(np.round(np.cumsum(areas) / total * count), prepend=0).astype(np.int64)
    chosen = np.repeat(np.arange(len(areas)), shares)
    root, v = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points: NDArray = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return points, total


@_compiled
def _eliminate(start, others, crowding, count):  # type: ignore[no-untyped-def]
    """(P,) bool. A heap holds the most crowded sample on top.

    Weights only fall, so one that fell since it was put in is put right when it comes up.
    """
    total = len(start) - 1
    weight = np.zeros(total)
    for i in range(total):
        for at in range(start[i], start[i + 1]):
            weight[i] += crowding[at]
    alive = np.ones(total, dtype=np.bool_)
    key, heap = weight.copy(), np.arange(total)
    for i in range(total // 2 - 1, -1, -1):
        _sift_down(heap, key, i, total)
    size, left = total, total
    while left > count:
        top = heap[0]
        if key[top] > weight[top]:
            key[top] = weight[top]
            _sift_down(heap, key, 0, size)
            continue
        alive[top] = False
        left -= 1
        for at in range(start[top], start[top + 1]):
            weight[others[at]] -= crowding[at]
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, key, 0, size)
    return alive


@_compiled
def _sift_down(heap, key, i, size):  # type: ignore[no-untyped-def]
    while True:
        child = 2 * i + 1
        if child >= size:
            return
        if child + 1 < size and key[heap[child + 1]] > key[heap[child]]:
            child += 1
        if key[heap[child]] <= key[heap[i]]:
            return
        heap[i], heap[child] = heap[child], heap[i]
        i = child
