"""The demo object: an elephant-shaped planter, modelled as a signed distance function.

It has what makes surface reconstruction interesting: a bowl in its back, a handle for a tail
(a hole), a trunk that stands off the chest, cupped ears and arches between the legs.

Frame: x towards the trunk, y to its left, z up, ground plane z = 0, lengths in model units
(the object is about 2.2 units long).
"""

from __future__ import annotations

import mcubes
import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError

Array = NDArray[np.float64]

BOUNDS_MIN = np.array([-1.15, -0.8, -0.06])
BOUNDS_MAX = np.array([1.2, 0.8, 1.4])

_TRUNK_POINTS = np.array(
    [
        [0.62, 0, 0.80],
        [0.80, 0, 0.66],
        [0.90, 0, 0.46],
        [0.93, 0, 0.26],
        [0.99, 0, 0.14],
        [1.06, 0, 0.13],
    ]
)
_TRUNK_RADII = np.array([0.20, 0.17, 0.14, 0.12, 0.11, 0.10])
_LEGS = np.array([[0.27, 0.24], [0.27, -0.24], [-0.42, 0.24], [-0.42, -0.24]])
EYES = np.array([[0.73, 0.235, 0.90], [0.73, -0.235, 0.90]])
EYE_RADIUS = 0.055
RIM_CENTRE = np.array([-0.16, 0.0, 1.06])
BOWL_CENTRE = np.array([-0.16, 0.0, 1.08])
BOWL_SEMI_AXES = np.array([0.31, 0.31, 0.38])


def _ellipsoid(p: Array, centre: Array, semi_axes: Array) -> Array:
    q = (p - centre) / semi_axes
    k0 = np.linalg.norm(q, axis=-1)
    k1 = np.linalg.norm(q / semi_axes, axis=-1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def _round_cone(p: Array, a: Array, b: Array, radius_a: float, radius_b: float) -> Array:
    """Capsule whose radius changes linearly from ``a`` to ``b`` (distance slightly approximate)."""
    axis = b - a
    t = np.clip((p - a) @ axis / (axis @ axis), 0.0, 1.0)
    return np.linalg.norm(p - a - t[..., None] * axis, axis=-1) - (
        radius_a + t * (radius_b - radius_a)
    )


def _torus(p: Array, centre: Array, axis: int, major: float, minor: float) -> Array:
    q = p - centre
    along = q[..., axis]
    across = np.linalg.norm(np.delete(q, axis, axis=-1), axis=-1)
    return np.hypot(across - major, along) - minor


def _smooth_union(a: Array, b: Array, blend: float) -> Array:
    h = np.clip(0.5 + 0.5 * (b - a) / blend, 0.0, 1.0)
    return b * (1 - h) + a * h - blend * h * (1 - h)


def _smooth_subtract(a: Array, b: Array, blend: float) -> Array:
    """``a`` without ``b``."""
    return -_smooth_union(-a, b, blend)


def _ear(p: Array, side: float) -> Array:
    """A cupped disc that leans outwards; ``side`` is +1 (left) or -1 (right)."""
    q = p - np.array([0.44, side * 0.43, 0.84])
    angle = np.deg2rad(side * 32.0)
    c, s = np.cos(angle), np.sin(angle)
    q = np.stack(
        [c * q[..., 0] + s * q[..., 1], -s * q[..., 0] + c * q[..., 1], q[..., 2]], axis=-1
    )
    disc = _ellipsoid(q, np.zeros(3), np.array([0.12, 0.27, 0.32]))
    cup = _ellipsoid(q, np.array([0.14, side * 0.03, 0.0]), np.array([0.12, 0.19, 0.24]))
    return _smooth_subtract(disc, cup, 0.05)


def signed_distance(points: Array) -> Array:
    """Distance (approximate, exact sign) of (..., 3) points to the object; negative inside."""
    p = np.asarray(points, dtype=np.float64)
    d = _ellipsoid(p, np.array([-0.12, 0.0, 0.64]), np.array([0.64, 0.47, 0.44]))
    for x, y in _LEGS:
        leg = _round_cone(p, np.array([x, y, 0.5]), np.array([x, y, -0.1]), 0.19, 0.205)
        d = _smooth_union(d, leg, 0.08)
    neck = _round_cone(p, np.array([-0.16, 0, 0.6]), np.array([-0.16, 0, 0.78]), 0.40, 0.36)
    d = _smooth_union(d, neck, 0.12)
    d = _smooth_union(d, _torus(p, RIM_CENTRE, 2, 0.36, 0.085), 0.08)
    d = _smooth_union(
        d, _ellipsoid(p, np.array([0.56, 0, 0.88]), np.array([0.30, 0.29, 0.31])), 0.10
    )
    for k in range(len(_TRUNK_RADII) - 1):
        part = _round_cone(
            p, _TRUNK_POINTS[k], _TRUNK_POINTS[k + 1], _TRUNK_RADII[k], _TRUNK_RADII[k + 1]
        )
        d = _smooth_union(d, part, 0.05)
    for side in (1.0, -1.0):
        d = _smooth_union(d, _ear(p, side), 0.05)
    d = _smooth_union(d, _torus(p, np.array([-0.80, 0.0, 0.66]), 1, 0.20, 0.075), 0.05)
    d = _smooth_subtract(d, _ellipsoid(p, BOWL_CENTRE, BOWL_SEMI_AXES), 0.04)
    for eye in EYES:
        d = np.minimum(d, np.linalg.norm(p - eye, axis=-1) - EYE_RADIUS)
    return np.maximum(d, -p[..., 2])


def object_mesh(voxel: float = 0.014) -> trimesh.Trimesh:
    """Watertight triangle mesh of the object by marching cubes at ``voxel`` model units.

    Raises:
        InputError: the voxel is too large to hold the thin parts or not positive.
    """
    if not 0.002 <= voxel <= 0.06:
        raise InputError(
            f"the demo object cannot be meshed with voxels of {voxel:g} units",
            hint="give a voxel between 0.002 and 0.06",
        )
    counts = np.ceil((BOUNDS_MAX - BOUNDS_MIN) / voxel).astype(int) + 1
    axes = [BOUNDS_MIN[k] + voxel * np.arange(counts[k]) for k in range(3)]
    volume = np.empty(counts, dtype=np.float32)
    for i, x in enumerate(axes[0]):  # slice by slice: the temporaries stay small
        grid = np.stack(np.meshgrid([x], axes[1], axes[2], indexing="ij"), axis=-1)
        volume[i] = signed_distance(grid)[0]
    vertices, faces = mcubes.marching_cubes(volume, 0.0)
    vertices = vertices * voxel + BOUNDS_MIN
    return trimesh.Trimesh(vertices, faces, process=False)


def surface_normals(points: Array, step: float = 2e-3) -> Array:
    """Unit outward normals of (N, 3) surface points, by central differences of the distance."""
    gradient = np.stack(
        [
            signed_distance(points + step * e) - signed_distance(points - step * e)
            for e in np.eye(3)
        ],
        axis=-1,
    )
    return gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-12)
