"""Soft light of the demo scene, computed once per surface point: a bright sky and a wide key lamp.

Diffuse only: what a point reflects is its colour times the irradiance kept here, from every side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.raycast import RayScene

Array = NDArray[np.floating]

_KEY_DIRECTION = np.array([0.45, -0.55, 0.70]) / np.linalg.norm([0.45, -0.55, 0.70])
_KEY_CONE_DEG = 24.0
_KEY_IRRADIANCE = 0.62
_SKY_IRRADIANCE = 0.62
_BOUNCE_IRRADIANCE = 0.08
_DIRECTIONS_EACH = 56


def _fibonacci(count: int, cos_min: float) -> Array:
    """Unit vectors (count, 3), evenly spread over the cap z ≥ cos_min."""
    k = np.arange(count) + 0.5
    z = 1 - (1 - cos_min) * k / count
    azimuth = np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def _turn_to(directions: Array, axis: Array) -> Array:
    """Rotate directions spread about z so that they are spread about ``axis``."""
    side = np.cross([0.0, 1.0, 0.0], axis)
    side /= np.linalg.norm(side)
    return directions @ np.stack([side, np.cross(axis, side), axis])


def irradiance(scene: RayScene, points: Array, normals: Array) -> Array:
    """Light (N,) that arrives at surface points (N, 3) with outward normals (N, 3), model units.

    Visibility is traced towards the sky and towards a wide lamp; a little light comes from below
    everywhere, so that no hollow is black.
    """
    sky = _fibonacci(_DIRECTIONS_EACH, 0.0)
    lamp = _turn_to(_fibonacci(_DIRECTIONS_EACH, np.cos(np.deg2rad(_KEY_CONE_DEG))), _KEY_DIRECTION)
    # A free horizontal surface receives _SKY_IRRADIANCE: the mean cosine over a hemisphere is 1/2.
    lights = [(d, 2 * _SKY_IRRADIANCE / _DIRECTIONS_EACH) for d in sky]
    lights += [(d, _KEY_IRRADIANCE / _DIRECTIONS_EACH) for d in lamp]
    origins = (points + 4e-3 * normals).astype(np.float32)
    total = np.full(len(points), _BOUNCE_IRRADIANCE)
    for direction, strength in lights:
        cosine = normals @ direction
        facing = np.flatnonzero(cosine > 0)
        blocked = scene.cast(origins[facing], np.tile(direction, (len(facing), 1))).hit
        total[facing] += np.where(blocked, 0.0, strength * cosine[facing])
    return total
