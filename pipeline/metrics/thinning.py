"""Thinning of point clouds in a given order, as the DTU evaluation does it."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

_LARGEST_KEY = 2.0**62

_compiled: Any = numba.njit(nogil=True, cache=True)


def thin_in_order(points: NDArray, radius: float) -> NDArray:
    """Indices (Q,), ascending, of the points that stay.

    The points (P, 3) are gone through in their order: each one that is still there removes all
    others at most `radius` away (unit of the points).

    Raises:
        InputError: the points extend over more radii than can be counted.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    # one cell of margin all around, so that no neighbour's key wraps
    cells = np.floor((points - points.min(axis=0)) / radius) + 1
    sides = cells.max(axis=0) + 2
    if float(np.prod(sides)) > _LARGEST_KEY:
        raise InputError(
            f"the points extend over {sides.max():.2g} times the thinning distance of {radius:g}",
            hint="check the unit of the mesh",
        )
    ijk, (_, ny, nz) = cells.astype(np.int64), sides.astype(np.int64)
    keys = (ijk[:, 0] * ny + ijk[:, 1]) * nz + ijk[:, 2]
    order = np.argsort(keys, kind="stable")
    alive = _survivors(points, radius * radius, keys, keys[order], order, int(ny), int(nz))
    return np.flatnonzero(alive)


@_compiled
def _survivors(points, radius2, keys, sorted_keys, order, ny, nz):  # type: ignore[no-untyped-def]
    """(P,) bool; cells along z are neighbours in the sorted keys, so nine runs hold all 27."""
    count = len(points)
    alive = np.ones(count, dtype=np.bool_)
    for i in range(count):
        if not alive[i]:
            continue
        for step in range(9):
            low = keys[i] + (step // 3 - 1) * ny * nz + (step % 3 - 1) * nz - 1
            at = np.searchsorted(sorted_keys, low)
            while at < count and sorted_keys[at] <= low + 2:
                j = order[at]
                at += 1
                if j == i or not alive[j]:
                    continue
                dx = points[i, 0] - points[j, 0]
                dy = points[i, 1] - points[j, 1]
                dz = points[i, 2] - points[j, 2]
                if dx * dx + dy * dy + dz * dz <= radius2:
                    alive[j] = False
    return alive
