"""Pictures of a mesh without a graphics card or display: rays and a little light."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.geometry.cameras import look_at
from pipeline.geometry.raycast import RayScene
from pipeline.surface.decimate import DisplayMesh

SUPERSAMPLING = 2
FOV_DEG = 28.0
ELEVATION_DEG = 22.0
SIZE_PX = (400, 320)
FILLED = 0.92
"""How much of a picture the mesh may fill."""
CLAY = np.array([206, 200, 192])


@dataclass(frozen=True)
class Shot:
    """One picture of a mesh.

    Attributes:
        colour: RGBA, vertex colours under soft light.
        clay: RGBA, one colour under the same light, so that only the shape speaks.
        label: from where.
        recoloured: RGBA, other vertex colours under soft light, where they were given.
    """

    colour: Image.Image
    clay: Image.Image
    label: str
    recoloured: Image.Image | None = None


class Studio:
    """Takes pictures of one mesh from around it."""

    def __init__(self, mesh: DisplayMesh, up: NDArray) -> None:
        """
        Args:
            mesh: any frame.
            up: (3,) direction in that frame.
        """
        self.mesh = mesh
        self.scene = RayScene(mesh.vertices, mesh.faces)
        self.up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
        low, high = np.percentile(mesh.vertices, [0.5, 99.5], axis=0)
        self.target = (low + high) / 2
        distances = np.linalg.norm(mesh.vertices - self.target, axis=1)
        self.radius = float(np.percentile(distances, 99.5))
        helper = np.eye(3)[np.abs(self.up).argmin()]
        self.side = np.cross(helper, self.up)
        self.side /= np.linalg.norm(self.side)

    def direction(self, azimuth_deg: float, elevation_deg: float) -> NDArray:
        """Unit direction (3,) from the mesh to a viewer."""
        azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
        level = np.cos(azimuth) * self.side + np.sin(azimuth) * np.cross(self.up, self.side)
        direction: NDArray = np.cos(elevation) * level + np.sin(elevation) * self.up
        return direction

    def azimuth_of(self, direction: NDArray) -> float:
        """Azimuth in degrees of a direction (3,) from the mesh."""
        across = np.cross(self.up, self.side)
        return float(np.degrees(np.arctan2(direction @ across, direction @ self.side)))

    def fitting_zoom(self, azimuths_deg: Sequence[float]) -> float:
        """The zoom at which pictures of the usual size from all these sides hold the whole mesh."""
        offset = self.mesh.vertices[:: max(1, len(self.mesh.vertices) // 20_000)] - self.target
        distance = self._distance(1.0)
        frame = np.array(SIZE_PX) / min(SIZE_PX) * np.tan(np.radians(FOV_DEG / 2))
        widest = 0.0
        for azimuth_deg in azimuths_deg:
            back = self.direction(azimuth_deg, ELEVATION_DEG)
            right = np.cross(self.up, back)
            right /= np.linalg.norm(right)
            axes = np.stack([right, np.cross(back, right)], axis=1)
            across = np.abs(offset @ axes) / (distance - offset @ back)[:, None]
            widest = max(widest, float((across / frame).max()))
        return FILLED / widest

    def _distance(self, zoom: float) -> float:
        """From where the middle of the mesh is seen, at a zoom."""
        return self.radius / np.sin(np.radians(FOV_DEG / 2)) / zoom

    def shoot(
        self,
        azimuth_deg: float,
        elevation_deg: float = ELEVATION_DEG,
        size: tuple[int, int] = SIZE_PX,
        zoom: float = 1.0,
        other_rgb: NDArray | None = None,
    ) -> Shot:
        """One picture of `size` (width, height) pixels, the whole mesh in it at zoom 1.

        Args:
            other_rgb: (V, 3) vertex colours for a second picture from the same place.
        """
        direction = self.direction(azimuth_deg, elevation_deg)
        distance = self._distance(zoom)
        c2w = look_at(self.target + distance * direction, self.target, self.up)
        width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        focal_px = min(width, height) / 2 / np.tan(np.radians(FOV_DEG / 2))
        rays = _rays(width, height, focal_px, c2w[:3, :3])
        hits = self.scene.cast(c2w[:3, 3], rays)
        hit = hits.hit
        face, uv = hits.face[hit], hits.uv[hit]
        points = c2w[:3, 3] + hits.distance[hit, None] * rays[hit]
        light = self._light(points, face, uv, rays[hit], c2w)[:, None]
        shape = (height, width)

        def coloured(rgb: NDArray) -> Image.Image:
            return _picture(self._interpolate(rgb, face, uv) * (0.62 + 0.45 * light), hit, shape)

        return Shot(
            coloured(self.mesh.rgb),
            _picture(CLAY * (0.16 + 0.94 * light), hit, shape),
            f"{azimuth_deg % 360:.0f}°",
            None if other_rgb is None else coloured(other_rgb),
        )

    def _interpolate(self, values: NDArray, face: NDArray, uv: NDArray) -> NDArray:
        a, b, c = (values[self.mesh.faces[face, corner]] for corner in range(3))
        u, v = uv[:, :1], uv[:, 1:]
        mixed: NDArray = (1 - u - v) * a + u * b + v * c
        return mixed

    def _light(
        self, points: NDArray, face: NDArray, uv: NDArray, rays: NDArray, c2w: NDArray
    ) -> NDArray:
        """Brightness (R,) in [0, 1] under a lamp over the viewer's left shoulder and a sky."""
        normal = self._interpolate(self.mesh.normals, face, uv)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        # backs of open surfaces are lit like fronts
        normal *= np.where(np.einsum("ij,ij->i", normal, rays) > 0, -1.0, 1.0)[:, None]
        right, down, forward = c2w[:3, 0], c2w[:3, 1], c2w[:3, 2]
        lamp = -0.5 * right - 0.65 * down - 0.9 * forward
        lamp /= np.linalg.norm(lamp)
        lift = 2e-3 * self.radius
        to_lamp = np.broadcast_to(lamp, points.shape)
        in_shadow = self.scene.cast(points + lift * (normal + lamp), to_lamp).hit
        lit = np.clip(normal @ lamp, 0, 1) * np.where(in_shadow, 0.35, 1.0)
        sky = 0.5 + 0.5 * normal @ self.up
        brightness: NDArray = 0.66 * lit + 0.24 * sky + 0.1
        return np.clip(brightness, 0, 1)


def _rays(width: int, height: int, focal_px: float, rotation: NDArray) -> NDArray:
    """Unit directions (width · height, 3), float32, of the pixels of a centred camera."""
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / focal_px
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / focal_px
    right, down, forward = rotation.T.astype(np.float32)
    rays = x[None, :, None] * right + y[:, None, None] * down + forward
    rays /= np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)[..., None]
    return rays.reshape(-1, 3)


def _picture(rgb: NDArray, hit: NDArray, shape: tuple[int, int]) -> Image.Image:
    """RGBA, averaged over the supersamples; colours (H, 3) of the H hit rays, coverage as alpha."""
    samples = np.zeros((*shape, 4), dtype=np.float32)
    samples[hit.reshape(shape), :3] = np.clip(rgb, 0, 255)
    samples[..., 3] = hit.reshape(shape)
    mean = _shrunk(samples)
    coverage = mean[..., 3:]
    rgba = np.concatenate([mean[..., :3] / np.maximum(coverage, 1e-9), 255 * coverage], axis=2)
    return Image.fromarray(np.round(rgba).astype(np.uint8), mode="RGBA")


def _shrunk(samples: NDArray) -> NDArray:
    """Means over the supersamples; a sum of slices is several times as fast as `mean`."""
    steps = range(SUPERSAMPLING)
    total = sum(samples[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps)
    return np.asarray(total / np.float32(SUPERSAMPLING**2))
