"""Photos of a textured box on a textured table, through a lens with distortion: exact cameras."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.cameras import look_at

BOX = np.array([[-0.5, -0.35, 0.0], [0.5, 0.35, 0.6]])
"""Opposite corners; the box stands on the table z = 0."""
TABLE_HALF = 1.6
FOCAL, PRINCIPAL_OFFSET, K1 = 1.15, np.array([0.025, -0.02]), -0.08
"""Focal length and principal point offset as shares of the width; first radial coefficient."""


@dataclass(frozen=True)
class BoxTruth:
    """Exact cameras of the photos.

    Attributes:
        names: photo names.
        c2w: (N, 4, 4).
        offset_px: (2,) principal point from the image centre.
    """

    names: list[str]
    c2w: NDArray[np.float64]
    offset_px: NDArray[np.float64]

    @property
    def corners(self) -> NDArray[np.float64]:
        """The box's corners (8, 3)."""
        axes = np.meshgrid(*BOX.T, indexing="ij")
        return np.stack(axes, axis=-1).reshape(-1, 3)


@dataclass(frozen=True)
class _Face:
    origin: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    texture: NDArray[np.float32]


def write_box_photos(
    folder: Path, views: int = 14, width: int = 400, height: int = 300, seed: int = 0
) -> BoxTruth:
    """Render `views` JPEGs around three quarters of the box into `folder`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    faces = _faces(rng)
    rays = _ideal_rays(width, height)
    poses, names = [], []
    for i, angle in enumerate(np.linspace(0, 1.5 * np.pi, views)):
        lift = 1.0 + 0.35 * np.sin(2.1 * angle)
        centre = np.array([2.1 * np.cos(angle), 2.1 * np.sin(angle), lift])
        target = np.array([0.03 * np.sin(3 * angle), 0.02, 0.22])
        c2w = look_at(centre, target, np.array([0.0, 0.0, 1.0]))
        image = _render(faces, c2w, rays)
        noisy = image + rng.normal(0, 1.5, image.shape)
        name = f"box_{i:02d}.jpg"
        stored = cv2.cvtColor(np.clip(noisy, 0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / name), stored, [cv2.IMWRITE_JPEG_QUALITY, 95])
        poses.append(c2w)
        names.append(name)
    return BoxTruth(names, np.stack(poses), PRINCIPAL_OFFSET * width)


def _faces(rng: np.random.Generator) -> list[_Face]:
    (x0, y0, z0), (x1, y1, z1) = BOX
    dx, dy, dz = np.diag([x1 - x0, y1 - y0, z1 - z0])
    half = TABLE_HALF
    table = (np.array([-half, -half, 0]), np.array([2 * half, 0, 0]), np.array([0, 2 * half, 0]))
    sides = [
        table,
        (np.array([x0, y0, z1]), dx, dy),
        (np.array([x0, y0, z0]), dx, dz),
        (np.array([x0, y1, z0]), dx, dz),
        (np.array([x0, y0, z0]), dy, dz),
        (np.array([x1, y0, z0]), dy, dz),
    ]
    return [
        _Face(o, u, v, _texture(rng, 1024 if i == 0 else 512)) for i, (o, u, v) in enumerate(sides)
    ]


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    total = np.zeros((side, side, 3), dtype=np.float32)
    for cells in (8, 24, 64, 160):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(127 + 42 * total, 0, 255).astype(np.float32)


def _ideal_rays(width: int, height: int) -> NDArray[np.float32]:
    """Rays (2h, 2w, 3) in the camera frame, two by two a pixel."""
    x, y = np.meshgrid((np.arange(2 * width) + 0.5) / 2, (np.arange(2 * height) + 0.5) / 2)
    centre = np.array([width, height]) / 2 + PRINCIPAL_OFFSET * width
    ideal = _undistort((np.stack([x, y], axis=-1) - centre) / (FOCAL * width))
    return np.concatenate([ideal, np.ones((*x.shape, 1))], axis=-1).astype(np.float32)


def _render(
    faces: list[_Face], c2w: NDArray[np.float64], camera_rays: NDArray[np.float32]
) -> NDArray[np.float32]:
    height, width = camera_rays.shape[:2]
    nearest = np.full((height, width), np.inf, dtype=np.float32)
    image = np.full((height, width, 3), 30, dtype=np.float32)
    for face in faces:
        to_face = face.origin - c2w[:3, 3]
        normal = np.cross(face.u, face.v)
        # along the ray, the face's normal and its two unit directions, in one product
        frame = np.stack([normal, face.u / (face.u @ face.u), face.v / (face.v @ face.v)])
        along = camera_rays @ (frame @ c2w[:3, :3]).T.astype(np.float32)
        n, u, v = (frame @ to_face).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = n / along[..., 0]
            a, b = depth * along[..., 1] - u, depth * along[..., 2] - v
        hit = (depth > 0) & (depth < nearest) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        side = face.texture.shape[0] - 1
        colours = cv2.remap(face.texture, a * side, b * side, cv2.INTER_LINEAR)
        image[hit] = colours[hit]
        nearest[hit] = depth[hit]
    return cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def _undistort(distorted: NDArray[np.float64]) -> NDArray[np.float64]:
    ideal = distorted.copy()
    for _ in range(20):
        ideal = distorted / (1 + K1 * (ideal**2).sum(axis=-1, keepdims=True))
    return ideal
