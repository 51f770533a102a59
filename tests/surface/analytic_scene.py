"""A small analytic scene, photographed exactly: what the surface tests look at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.geometry.cameras import look_at, pixel_rays
from pipeline.surface.views import Views, open_views

WIDTH, HEIGHT = 160, 120
K = np.array([[170.0, 0, 84.0], [0, 170.0, 57.0], [0, 0, 1]])

CENTRES = torch.tensor([[0.0, 0.0, 0.0], [0.55, 0.0, 0.2]])
RADII = torch.tensor([0.4, 0.12])


def balls(x: torch.Tensor) -> torch.Tensor:
    """Signed distance (N,) to a large ball and a small one beside it."""
    return ((x[:, None] - CENTRES).norm(dim=2) - RADII).min(dim=1).values


def paint(points: np.ndarray) -> np.ndarray:
    """Smooth colours (N, 3) in [0, 255] of the large ball; the small one is red."""
    colour = 127 + 90 * np.sin(3 * points + np.array([0.0, 1.0, 2.0]))
    small = np.linalg.norm(points - CENTRES[1].numpy(), axis=1) < float(RADII[1]) + 0.02
    colour[small] = [250, 10, 10]
    return colour


def ring(count: int = 12, height: float = 1.0, radius: float = 2.0) -> np.ndarray:
    """c2w (N, 4, 4) of cameras on a circle above the scene, z up, looking at its middle."""
    angles = np.arange(count) * 2 * np.pi / count
    centres = np.stack(
        [radius * np.cos(angles), radius * np.sin(angles), np.full(count, height)], axis=1
    )
    return np.stack([look_at(c, np.zeros(3), np.array([0.0, 0, 1])) for c in centres])


def trace(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distances (R,) to the first ball along rays; inf where none is hit."""
    best = np.full(len(origins), np.inf)
    for centre, radius in zip(CENTRES.numpy(), RADII.numpy(), strict=True):
        offset = origins - centre
        half_b = (offset * directions).sum(axis=1)
        discriminant = half_b**2 - (offset**2).sum(axis=1) + radius**2
        hit = -half_b - np.sqrt(np.maximum(discriminant, 0))
        best = np.where(discriminant > 0, np.minimum(best, hit), best)
    return best


def photograph(c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photo (H, W, 3) uint8 and mask (H, W) bool of one camera."""
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).reshape(-1, 2)
    origins, directions = pixel_rays(K, c2w, grid)
    distance = trace(origins, directions)
    hit = np.isfinite(distance)
    rgb = np.full((len(grid), 3), 30.0)
    rgb[hit] = paint(origins[hit] + distance[hit, None] * directions[hit])
    shape = (HEIGHT, WIDTH)
    return np.round(rgb).astype(np.uint8).reshape(*shape, 3), hit.reshape(shape)


def write_scene(folder: Path, poses: np.ndarray, with_masks: bool = False) -> None:
    """Write `image/` and perhaps `mask/` of a scene folder."""
    (folder / "image").mkdir(parents=True)
    if with_masks:
        (folder / "mask").mkdir()
    for index, c2w in enumerate(poses):
        photo, mask = photograph(c2w)
        Image.fromarray(photo).save(folder / "image" / f"{index:03d}.png")
        if with_masks:
            Image.fromarray((mask * 255).astype(np.uint8)).save(
                folder / "mask" / f"{index:03d}.png"
            )


def make_views(folder: Path, with_masks: bool = False, poses: np.ndarray | None = None) -> Views:
    """Photographs on disk, opened."""
    poses = ring() if poses is None else poses
    write_scene(folder, poses, with_masks)
    return open_views(folder, np.repeat(K[None], len(poses), axis=0), poses)
