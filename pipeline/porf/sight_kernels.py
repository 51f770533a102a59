"""CPU kernels of sight: where rays meet a surface, and what depth maps say of points.

In torch each is dozens of passes over arrays that no cache holds, view by view; compiled by numba
it is one pass that stops early. `closer_look` and `depth_maps` have the torch versions, which serve
every other device; tests hold the two against each other.
"""

import numpy as np
from numba import prange

from pipeline.porf.compiled import inlined, parallel
from pipeline.porf.grid_kernels import cell

_CLOSE_ENOUGH = np.float32(1e-5)
_LEAST_Z = np.float32(1e-6)
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@inlined
def _distance(grid, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear, of a grid (N, N, N) over [-1, 1]³ that is indexed x, y, z."""
    i, u = cell(x, grid.shape[0])
    j, v = cell(y, grid.shape[1])
    k, w = cell(z, grid.shape[2])
    near = (
        (grid[i, j, k] * (_ONE - w) + grid[i, j, k + 1] * w) * (_ONE - v)
        + (grid[i, j + 1, k] * (_ONE - w) + grid[i, j + 1, k + 1] * w) * v
    )  # fmt: skip
    far = (
        (grid[i + 1, j, k] * (_ONE - w) + grid[i + 1, j, k + 1] * w) * (_ONE - v)
        + (grid[i + 1, j + 1, k] * (_ONE - w) + grid[i + 1, j + 1, k + 1] * w) * v
    )  # fmt: skip
    return near * (_ONE - u) + far * u


@parallel
def trace(grid, centre, rays, far, steps, share, depth, left):  # type: ignore[no-untyped-def]
    """Sphere tracing: move depth (P,) along rays (P, 3) to the first surface, at most to `far`.

    Args:
        grid: (N, N, N) distances, see `_distance`. centre: (3,) where the rays begin.
        steps: how many, at most. share: of the distance that a step goes.
        left: (P,) filled with the distances there.
    """
    for n in prange(len(rays)):
        t, d = depth[n], _ZERO
        for _ in range(steps):
            d = _distance(
                grid,
                centre[0] + t * rays[n, 0],
                centre[1] + t * rays[n, 1],
                centre[2] + t * rays[n, 2],
            )
            t = min(t + share * d, far[n])
            if abs(d) < _CLOSE_ENOUGH or t == far[n]:
                break
        depth[n] = t
        left[n] = _distance(
            grid,
            centre[0] + t * rays[n, 0],
            centre[1] + t * rays[n, 1],
            centre[2] + t * rays[n, 2],
        )


@inlined
def _pixel(point, w2c, K, height, width):  # type: ignore[no-untyped-def]
    """Where a view sees a point: row, column (-1 where it does not), and how far away."""
    x = w2c[0, 0] * point[0] + w2c[0, 1] * point[1] + w2c[0, 2] * point[2] + w2c[0, 3]
    y = w2c[1, 0] * point[0] + w2c[1, 1] * point[1] + w2c[1, 2] * point[2] + w2c[1, 3]
    z = w2c[2, 0] * point[0] + w2c[2, 1] * point[1] + w2c[2, 2] * point[2] + w2c[2, 3]
    distance = np.sqrt(x * x + y * y + z * z)
    depth = K[2, 0] * x + K[2, 1] * y + K[2, 2] * z
    row = column = -1
    if depth > _LEAST_Z:
        u = (K[0, 0] * x + K[0, 1] * y + K[0, 2] * z) / depth
        v = (K[1, 0] * x + K[1, 1] * y + K[1, 2] * z) / depth
        if -_HALF <= u <= width - _HALF and -_HALF <= v <= height - _HALF:
            column, row = min(int(u + _HALF), width - 1), min(int(v + _HALF), height - 1)
    return row, column, distance


@parallel
def count_agreeing(points, w2c, K, depth, left_out, tolerance, enough, count):  # type: ignore[no-untyped-def]
    """Fill count (P,): depth maps that have points (P, 3) too, counted until there are enough.

    Args:
        w2c: (M, 4, 4), K: (M, 3, 3), depth: (M, H, W) of the maps.
        left_out: index of a map that is not asked.
        tolerance: share of the distance.
    """
    height, width = depth.shape[1:]
    for n in prange(len(points)):
        agreeing = 0
        for m in range(len(depth)):
            if m != left_out and agreeing < enough:
                row, column, distance = _pixel(points[n], w2c[m], K[m], height, width)
                if row >= 0 and abs(depth[m, row, column] - distance) < tolerance * distance:
                    agreeing += 1
        count[n] = agreeing


@parallel
def find_refuted(points, own, ends, w2c, K, depth, trusted, tolerance, refuted):  # type: ignore[no-untyped-def]
    """Fill refuted (P,) bool: the point's own map measured its pixel, or another looks through it.

    Args:
        own: (P,) map of the view whose pixel the point is, -1 where there is none.
        ends: (P,) bool, whether there is a surface at the point.
        w2c, K, depth, tolerance: see `count_agreeing`.
        trusted: (M, H, W) bool, where the maps are.
    """
    height, width = depth.shape[1:]
    for n in prange(len(points)):
        refuted[n] = False
        for m in range(len(depth)):
            if not refuted[n] and (ends[n] or m == own[n]):
                row, column, distance = _pixel(points[n], w2c[m], K[m], height, width)
                if row >= 0 and trusted[m, row, column]:
                    beyond = depth[m, row, column] - distance > tolerance * distance
                    refuted[n] = m == own[n] or beyond
