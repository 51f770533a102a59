"""CPU kernels of the feature grid: gather and scatter in one pass each, compiled by numba.

In torch the same work is some forty passes over arrays with four columns, which costs a CPU about
ten times as much. `hash_grid` holds the torch version, which serves every other device; tests hold
the two against each other.

Arguments of both kernels: points x (N, 3); `resolution` (L,) vertices along an axis; `start` (L,)
first table row of a level; `entries` (L,) rows of a level; hashed levels have fewer than
resolution³ entries, a power of two. `channels` is a tuple of C numbers whose length alone matters:
it makes C a constant of the compiled code.
"""

import numpy as np
from numba import prange

from pipeline.porf.compiled import inlined, parallel

PRIME_Y, PRIME_Z = 2654435761, 805459861  # Müller et al., equation 4
_ONE, _HALF = np.float32(1), np.float32(0.5)


@inlined
def _row(ix, iy, iz, resolution, start, entries):  # type: ignore[no-untyped-def]
    """Table row of a vertex: dense levels in C order, larger ones hashed."""
    if resolution * resolution * resolution <= entries:
        return start + (ix * resolution + iy) * resolution + iz
    return start + ((ix ^ (iy * PRIME_Y) ^ (iz * PRIME_Z)) & (entries - 1))


@inlined
def cell(coordinate, resolution):  # type: ignore[no-untyped-def]
    """Cell index and fraction along one axis; coordinates beyond [-1, 1] stick to the border."""
    clamped = min(max(coordinate, -_ONE), _ONE)
    scaled = (clamped + _ONE) * (_HALF * np.float32(resolution - 1))
    # The lower bound catches NaN, whose integer is far below zero: it must not leave the table.
    index = max(min(np.int64(scaled), resolution - 2), 0)
    return index, scaled - np.float32(index)


@parallel
def interpolate(table, x, resolution, start, entries, channels, value, jacobian):  # type: ignore[no-untyped-def]
    """Fill value (N, L·C) and jacobian (3, N, L·C), the derivatives after x."""
    width = len(channels)
    for n in prange(x.shape[0]):
        for level in range(len(resolution)):
            r, s, t = resolution[level], start[level], entries[level]
            ix, fx = cell(x[n, 0], r)
            iy, fy = cell(x[n, 1], r)
            iz, fz = cell(x[n, 2], r)
            gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
            i000, i001 = _row(ix, iy, iz, r, s, t), _row(ix, iy, iz + 1, r, s, t)
            i010, i011 = _row(ix, iy + 1, iz, r, s, t), _row(ix, iy + 1, iz + 1, r, s, t)
            i100, i101 = _row(ix + 1, iy, iz, r, s, t), _row(ix + 1, iy, iz + 1, r, s, t)
            i110, i111 = _row(ix + 1, iy + 1, iz, r, s, t), _row(ix + 1, iy + 1, iz + 1, r, s, t)
            per_unit = _HALF * np.float32(r - 1)
            for c in range(width):
                k = level * width + c
                v000, v001, v010, v011 = (
                    table[i000, c],
                    table[i001, c],
                    table[i010, c],
                    table[i011, c],
                )
                v100, v101, v110, v111 = (
                    table[i100, c],
                    table[i101, c],
                    table[i110, c],
                    table[i111, c],
                )
                v00, v01 = v000 * gz + v001 * fz, v010 * gz + v011 * fz
                v10, v11 = v100 * gz + v101 * fz, v110 * gz + v111 * fz
                v0, v1 = v00 * gy + v01 * fy, v10 * gy + v11 * fy
                dz0 = (v001 - v000) * gy + (v011 - v010) * fy
                dz1 = (v101 - v100) * gy + (v111 - v110) * fy
                value[n, k] = v0 * gx + v1 * fx
                jacobian[0, n, k] = (v1 - v0) * per_unit
                jacobian[1, n, k] = ((v01 - v00) * gx + (v11 - v10) * fx) * per_unit
                jacobian[2, n, k] = (dz0 * gx + dz1 * fx) * per_unit


@parallel
def interpolate_value(table, x, resolution, start, entries, channels, value):  # type: ignore[no-untyped-def]
    """Fill value (N, L·C) only."""
    width = len(channels)
    for n in prange(x.shape[0]):
        for level in range(len(resolution)):
            r, s, t = resolution[level], start[level], entries[level]
            ix, fx = cell(x[n, 0], r)
            iy, fy = cell(x[n, 1], r)
            iz, fz = cell(x[n, 2], r)
            for c in range(width):
                value[n, level * width + c] = np.float32(0)
            for corner in range(8):
                dx, dy, dz = corner >> 2, (corner >> 1) & 1, corner & 1
                weight = (fx if dx else _ONE - fx) * (fy if dy else _ONE - fy)
                weight *= fz if dz else _ONE - fz
                row = _row(ix + dx, iy + dy, iz + dz, r, s, t)
                for c in range(width):
                    value[n, level * width + c] += weight * table[row, c]


@parallel
def scatter(x, resolution, start, entries, channels, grad_value, grad_jacobian, grad_table):  # type: ignore[no-untyped-def]
    """Add the adjoint of `interpolate` to grad_table (rows, C).

    Threads take whole levels, which never share rows: no atomics, and the same sums every time.
    """
    width = len(channels)
    for level in prange(len(resolution)):
        r, s, t = resolution[level], start[level], entries[level]
        per_unit = _HALF * np.float32(r - 1)
        for n in range(x.shape[0]):
            ix, fx = cell(x[n, 0], r)
            iy, fy = cell(x[n, 1], r)
            iz, fz = cell(x[n, 2], r)
            for corner in range(8):
                dx, dy, dz = corner >> 2, (corner >> 1) & 1, corner & 1
                wx, wy, wz = (
                    (fx if dx else _ONE - fx),
                    (fy if dy else _ONE - fy),
                    (fz if dz else _ONE - fz),
                )
                jx = (per_unit if dx else -per_unit) * wy * wz
                jy = (per_unit if dy else -per_unit) * wx * wz
                jz = (per_unit if dz else -per_unit) * wx * wy
                weight = wx * wy * wz
                row = _row(ix + dx, iy + dy, iz + dz, r, s, t)
                for c in range(width):
                    k = level * width + c
                    grad_table[row, c] += (
                        weight * grad_value[n, k]
                        + jx * grad_jacobian[0, n, k]
                        + jy * grad_jacobian[1, n, k]
                        + jz * grad_jacobian[2, n, k]
                    )


@parallel
def scatter_value(x, resolution, start, entries, channels, grad_value, grad_table):  # type: ignore[no-untyped-def]
    """Add the adjoint of `interpolate_value` to grad_table (rows, C)."""
    width = len(channels)
    for level in prange(len(resolution)):
        r, s, t = resolution[level], start[level], entries[level]
        for n in range(x.shape[0]):
            ix, fx = cell(x[n, 0], r)
            iy, fy = cell(x[n, 1], r)
            iz, fz = cell(x[n, 2], r)
            for corner in range(8):
                dx, dy, dz = corner >> 2, (corner >> 1) & 1, corner & 1
                weight = (fx if dx else _ONE - fx) * (fy if dy else _ONE - fy)
                weight *= fz if dz else _ONE - fz
                row = _row(ix + dx, iy + dy, iz + dz, r, s, t)
                for c in range(width):
                    grad_table[row, c] += weight * grad_value[n, level * width + c]
