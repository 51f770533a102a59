"""Procedural colours of the demo scene: glaze of the object, terrazzo of the table, blurred room.

Everything is drawn from a seeded generator, rich in detail at many scales, and never repeats:
feature matching has one right answer. Colours are linear RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.demo.shape import EYE_RADIUS, EYES

Array = NDArray[np.floating]

_LATTICE = 48
_TEAL, _CELADON, _ORANGE, _CREAM, _INK, _RUST, _BLACK = np.array(
    [
        [0.07, 0.25, 0.33], [0.52, 0.60, 0.47], [0.74, 0.34, 0.13], [0.90, 0.82, 0.62],
        [0.03, 0.06, 0.11], [0.22, 0.10, 0.05], [0.015, 0.012, 0.012],
    ],
    dtype=np.float32,
)[:, None, :]  # fmt: skip
_TERRAZZO_PALETTE = np.array(
    [
        [0.62, 0.20, 0.12], [0.10, 0.28, 0.36], [0.75, 0.55, 0.16], [0.16, 0.14, 0.13],
        [0.28, 0.38, 0.20], [0.80, 0.76, 0.70], [0.45, 0.30, 0.22], [0.20, 0.22, 0.42],
    ]
)  # fmt: skip


@dataclass(frozen=True)
class SolidNoise:
    """Value noise in 3-D: one random lattice, turned and shifted anew for each octave."""

    lattice: NDArray[np.float32]
    frames: NDArray[np.float32]  # (octaves, 3, 3) rotations
    shifts: NDArray[np.float32]  # (octaves, 3)

    @staticmethod
    def create(rng: np.random.Generator, octaves: int = 10) -> SolidNoise:
        lattice = rng.uniform(-1.0, 1.0, (_LATTICE,) * 3).astype(np.float32)
        frames = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(octaves)])
        shifts = rng.uniform(0, _LATTICE, (octaves, 3))
        return SolidNoise(lattice, frames.astype(np.float32), shifts.astype(np.float32))

    def octave(self, points: Array, k: int, wavelength: float) -> Array:
        """Noise in [-1, 1] at (N, 3) points; features are ``wavelength`` units across."""
        frame = self.frames[k] / np.float32(wavelength)
        coordinates = frame @ points.astype(np.float32).T + self.shifts[k][:, None]
        return map_coordinates(
            self.lattice, coordinates, order=1, mode="grid-wrap", prefilter=False
        )

    def fractal(self, points: Array, wavelengths: list[float], first: int = 0) -> Array:
        """Sum of octaves, amplitude falling with the square root of the wavelength, unit scale."""
        total = np.zeros(len(points), dtype=np.float32)
        weight = 0.0
        for k, wavelength in enumerate(wavelengths):
            amplitude = float(np.sqrt(wavelength / wavelengths[0]))
            total += amplitude * self.octave(points, first + k, wavelength)
            weight += amplitude**2
        return total / np.float32(np.sqrt(weight))


def _smoothstep(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _mix(a: Array, b: Array, t: Array) -> Array:
    return a + (b - a) * t[:, None]


def object_colour(noise: SolidNoise, points: Array) -> Array:
    """Glaze of the object at (N, 3) surface points in model units: marbled, veined and freckled."""
    points = points.astype(np.float32)
    warp = noise.octave(points, 0, 0.35)[:, None] * np.array([[0.12, -0.09, 0.10]], np.float32)
    broad = noise.fractal(points + warp, [0.32, 0.15, 0.07], first=1)
    fine = noise.fractal(points, [0.055, 0.027, 0.014], first=4)
    veins = 1.0 - np.abs(np.sin(5.0 * broad + 1.2 * fine))
    colour = _mix(_TEAL, _CELADON, _smoothstep(-0.5, 0.7, broad))
    colour = _mix(colour, _ORANGE, 0.85 * _smoothstep(0.35, 0.75, -broad + 0.35 * fine))
    colour = _mix(colour, _CREAM, _smoothstep(0.72, 0.92, veins))
    colour = _mix(colour, _INK, 0.9 * _smoothstep(0.52, 0.62, noise.octave(points, 7, 0.075)))
    colour = _mix(colour, _RUST, 0.8 * _smoothstep(0.50, 0.62, noise.octave(points, 8, 0.036)))
    colour = _mix(colour, _CREAM, 0.7 * _smoothstep(0.55, 0.65, noise.octave(points, 9, 0.024)))
    colour = colour * np.exp(0.5 * fine)[:, None]
    for eye in EYES.astype(np.float32):
        distance = np.linalg.norm(points - eye, axis=1)
        inside = _smoothstep(-1.25 * EYE_RADIUS, -1.05 * EYE_RADIUS, -distance)
        colour = _mix(colour, _BLACK, inside)
    return np.clip(colour, 0.01, 0.95)


def _chips(rng: np.random.Generator, sizes: Array, corners: int = 7) -> Array:
    """Outlines (M, corners, 2) of irregular, often convex stone chips about the origin."""
    count = len(sizes)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (count, corners)), axis=1)
    radii = sizes[:, None] * rng.uniform(0.6, 1.1, (count, corners))
    x = radii * np.cos(angles)
    y = radii * np.sin(angles) * rng.uniform(0.45, 1.0, (count, 1))
    turn = rng.uniform(0, np.pi, (count, 1))
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)


def ground_texture(rng: np.random.Generator, pixels: int) -> NDArray[np.float32]:
    """Terrazzo of the table as one (pixels, pixels, 3) linear image: chips of many sizes."""
    image = np.empty((pixels, pixels, 3), dtype=np.float32)
    image[:] = np.array([0.52, 0.47, 0.41], dtype=np.float32)
    for cells, strength in ((9, 0.10), (40, 0.06), (pixels // 6, 0.09), (pixels // 2, 0.06)):
        grain = rng.uniform(-1, 1, (cells, cells, 1)).astype(np.float32)
        image *= (
            1
            + strength
            * cv2.resize(grain, (pixels, pixels), interpolation=cv2.INTER_CUBIC)[..., None]
        )
    for count, size in ((130, 0.022), (900, 0.010), (4500, 0.0048), (16000, 0.0022)):
        centres = rng.uniform(0, pixels, (count, 2))
        sizes = size * pixels * rng.uniform(0.6, 1.3, count)
        stones = _TERRAZZO_PALETTE[rng.integers(len(_TERRAZZO_PALETTE), size=count)]
        stones = np.clip(stones * rng.uniform(0.7, 1.25, (count, 1)), 0.02, 0.9)
        outlines = np.round((centres[:, None] + _chips(rng, sizes)) * 16).astype(np.int32)
        for outline, stone in zip(outlines, stones.tolist(), strict=True):
            cv2.fillPoly(image, [outline], stone, lineType=cv2.LINE_8, shift=4)
    speckle = rng.normal(0, 1, (pixels, pixels, 1)).astype(np.float32)
    image *= 1 + 0.10 * cv2.GaussianBlur(speckle, (0, 0), 0.8)[..., None]
    return np.clip(image, 0.01, 0.95)


def room_panorama(rng: np.random.Generator, height: int = 256) -> NDArray[np.float32]:
    """Blurred room as a (height, 2 height, 3) equirectangular linear image, row 0 straight up."""
    width = 2 * height
    rows = np.linspace(0, 1, height)[:, None, None]
    wall, floor, ceiling = (
        np.array(c) for c in ([0.36, 0.33, 0.30], [0.16, 0.12, 0.09], [0.60, 0.60, 0.58])
    )
    image = np.where(rows < 0.5, ceiling + (wall - ceiling) * rows * 2, floor) * np.ones(
        (1, width, 1)
    )
    for _ in range(
        46
    ):  # furniture, pictures and windows: soft patches, different all the way round
        x, y = rng.uniform(0, width), rng.uniform(0.22, 0.68) * height
        w, h = rng.uniform(0.02, 0.07) * width, rng.uniform(0.05, 0.22) * height
        columns = (np.arange(int(x - w), int(x + w)) % width).astype(int)
        top, bottom = int(max(y - h, 0)), int(min(y + h, height))
        image[top:bottom, columns] = rng.uniform(0.05, 0.62) * rng.uniform(
            [0.85, 0.75, 0.62], [1.0, 0.95, 0.92]
        )
    return gaussian_filter(image, (3.0, 3.0, 0), mode=("nearest", "wrap", "nearest")).astype(
        np.float32
    )
