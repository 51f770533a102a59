"""The demo camera: a lens with radial distortion and an off-centre principal point, and its path.

Pixel convention: IDR's, pixel centres at integer coordinates. Poses are c2w with OpenCV axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.cameras import look_at

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lens:
    """COLMAP's RADIAL model: one focal length, principal point, two radial coefficients.

    Attributes:
        width, height: image size, pixels.
        focal_px: focal length, pixels.
        cx_px, cy_px: principal point, pixel centres at integers.
        k1, k2: distorted = undistorted * (1 + k1 r^2 + k2 r^4), in normalised image coordinates.
    """

    width: int
    height: int
    focal_px: float
    cx_px: float
    cy_px: float
    k1: float
    k2: float

    @property
    def K(self) -> Array:
        """Intrinsics (3, 3) of the same camera without distortion."""
        return np.array(
            [[self.focal_px, 0, self.cx_px], [0, self.focal_px, self.cy_px], [0, 0, 1.0]]
        )

    def distort(self, xy: Array) -> Array:
        """Normalised image coordinates (..., 2) of an ideal camera → where this lens puts them."""
        r2 = np.sum(xy**2, axis=-1, keepdims=True)
        return xy * (1 + self.k1 * r2 + self.k2 * r2**2)

    def undistort(self, xy: Array) -> Array:
        """Inverse of :meth:`distort` by Newton's method on the radius (converged to rounding)."""
        radius = np.linalg.norm(xy, axis=-1)
        ideal = radius.copy()
        for _ in range(12):
            value = ideal * (1 + self.k1 * ideal**2 + self.k2 * ideal**4) - radius
            ideal -= value / (1 + 3 * self.k1 * ideal**2 + 5 * self.k2 * ideal**4)
        return xy * (ideal / np.maximum(radius, 1e-12))[..., None]

    def directions(self, pixels: Array) -> Array:
        """Unit ray directions (..., 3) in the camera frame through (..., 2) distorted pixels."""
        xy = (pixels - np.array([self.cx_px, self.cy_px])) / self.focal_px
        ideal = self.undistort(xy)
        rays = np.concatenate([ideal, np.ones_like(ideal[..., :1])], axis=-1)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def project(self, points_camera: Array) -> Array:
        """(..., 3) points in the camera frame → distorted pixels (..., 2)."""
        ideal = points_camera[..., :2] / points_camera[..., 2:]
        return self.distort(ideal) * self.focal_px + np.array([self.cx_px, self.cy_px])


def demo_lens(width: int, height: int) -> Lens:
    """A believable compact camera: principal point off by 2-3 per cent, mild barrel distortion."""
    return Lens(
        width=width,
        height=height,
        focal_px=1.16 * width,
        cx_px=(width - 1) / 2 + 0.022 * width,
        cy_px=(height - 1) / 2 - 0.026 * height,
        k1=-0.085,
        k2=0.03,
    )


def roll(c2w: Array, angle_deg: float) -> Array:
    """The same camera (4, 4) turned about its optical axis."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    return c2w @ turn


def walk_around(rng: np.random.Generator, views: int, target: Array, distance: float) -> Array:
    """c2w (views, 4, 4) as a person takes them: a low walk round the object, then a high one.

    Neighbours on a walk are at most 24° apart where the number of views allows; few views cover
    only an arc (one walk), so that they still overlap.
    """
    rings = 2 if views >= 20 else 1
    poses = []
    for ring in range(rings):
        count = views // rings + (1 if ring < views % rings else 0)
        elevation = (21.0, 46.0)[ring] if rings == 2 else 32.0
        arc = 360.0 if rings == 2 else min(360.0, 20.0 * count)
        for k in range(count):
            azimuth = np.deg2rad(arc * (k + 0.5 * ring) / count - 150.0 + rng.uniform(-2.5, 2.5))
            tilt = np.deg2rad(elevation + rng.uniform(-3.0, 3.0))
            away = distance * (1.0 + 0.05 * ring) * rng.uniform(0.96, 1.05)
            offset = [np.cos(azimuth) * np.cos(tilt), np.sin(azimuth) * np.cos(tilt), np.sin(tilt)]
            aim = target + rng.uniform(-0.07, 0.07, 3)
            c2w = look_at(target + away * np.array(offset), aim, np.array([0.0, 0.0, 1.0]))
            poses.append(roll(c2w, rng.uniform(-2.0, 2.0)))
    return np.stack(poses)
