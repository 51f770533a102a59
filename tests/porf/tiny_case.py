"""A case that trains in seconds: a coloured ball before a coloured wall, rendered exactly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.formats.case import Case, load_case
from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras
from pipeline.formats.matches import ViewMatches, save_matches
from pipeline.geometry.cameras import look_at, pixel_rays, project

WIDTH, HEIGHT, VIEWS = 48, 36, 8
RADIUS = 0.6
SCALE_MAT = make_scale_mat(np.array([10.0, -5.0, 3.0]), 2.0)
K = np.array([[52.0, 0.0, 25.0], [0.0, 52.0, 16.5], [0.0, 0.0, 1.0]])

TINY_OPTIONS = {
    "steps": 40,
    "rays": 128,
    "checkpoint_every": 10,
    "log_every": 10,
    "heldout_blocks": 0.1,
    "epipolar": {"steps": 80, "pairs_per_step": 8},
    "grid": {
        "resolutions": [8, 16],
        "log2_entries": 11,
        "hidden_width": 32,
        "samples": 12,
        "uniform_samples": 4,
        "color_samples": 6,
        "proposals": 16,
        "cache_resolution": 16,
        "cache_steps": 4,
        "inv_s_start": 60,
        "warmup_steps": 5,
        "background_resolutions": [8],
        "background_log2_entries": 9,
        "background_samples": 3,
        "foreground_samples": 1,
        "anchor_steps": 20,
    },
    "neus": {
        "hidden_width": 48,
        "hidden_layers": 4,
        "skip_layer": 2,
        "color_width": 16,
        "color_layers": 2,
        "feature_width": 8,
        "coarse_samples": 8,
        "importance_samples": 8,
        "upsample_steps": 2,
        "outside_samples": 4,
    },
}


@dataclass(frozen=True)
class TinyCase:
    """The case with disturbed cameras, its folder, and the true cameras."""

    folder: Path
    case: Case
    true_c2w_world: NDArray


def write_tiny_case(
    folder: Path,
    disturbed_deg: float = 0.6,
    noise_px: float = 0.05,
    masks: bool = False,
    views: int = VIEWS,
    neighbours: int | None = None,
) -> TinyCase:
    """Write a case in the PoRF data convention with cameras turned by about `disturbed_deg`.

    Args:
        neighbours: views are matched with so many before and after them; None = with all.
    """
    rng = np.random.default_rng(4)
    c2w = _cameras(views)
    (folder / "image").mkdir(parents=True)
    if masks:
        (folder / "mask").mkdir()
    for i, pose in enumerate(c2w):
        rgb, hit = _render(pose)
        Image.fromarray(rgb).save(folder / "image" / f"{i:03d}.png")
        if masks:
            mask = Image.fromarray(np.where(hit, 255, 0).astype(np.uint8))
            mask.save(folder / "mask" / f"{i:03d}.png")
    true = IdrCameras(np.repeat(K[None], views, axis=0), c2w, np.eye(4))
    true = IdrCameras(true.K, true.c2w, SCALE_MAT).with_normalised_poses(c2w)
    turned = c2w.copy()
    axes = rng.normal(size=(views, 3))
    axes *= np.deg2rad(disturbed_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
    turned[:, :3, :3] = Rotation.from_rotvec(axes).as_matrix() @ c2w[:, :3, :3]
    save_idr_cameras(folder / "cameras_colmap.npz", true.with_normalised_poses(turned))
    save_matches(folder / "colmap_matches", _matches(c2w, rng, noise_px, neighbours or views))
    return TinyCase(folder, load_case(folder, folder), true.c2w)


def _cameras(views: int) -> NDArray:
    poses = []
    for i in range(views):
        azimuth, height = 2 * np.pi * i / views, 0.4 + 0.5 * (i % 2)
        centre = 2.4 * np.array([np.cos(azimuth), np.sin(azimuth), height])
        poses.append(look_at(centre, np.zeros(3), np.array([0.0, 0.0, 1.0])))
    return np.stack(poses)


def _ball_hits(origins: NDArray, directions: NDArray) -> NDArray:
    """Distances (P,) to the ball along rays, NaN where they miss."""
    along = (origins * directions).sum(axis=1)
    discriminant = along**2 - (origins**2).sum(axis=1) + RADIUS**2
    with np.errstate(invalid="ignore"):
        return -along - np.sqrt(discriminant)


def _render(pose: NDArray) -> tuple[NDArray, NDArray]:
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    origins, directions = pixel_rays(K, pose, np.stack([x, y], axis=-1).reshape(-1, 2))
    depth = _ball_hits(origins, directions)
    hit = np.isfinite(depth)
    points = origins + directions * np.where(hit, depth, 0)[:, None]
    on_ball = 0.5 + 0.4 * np.sin(points * [7.0, 8.0, 9.0] + [0.3, 1.0, 2.0])
    wall = 0.3 + 0.1 * np.sin(3 * directions)
    rgb = np.where(hit[:, None], on_ball, wall)
    return (
        np.round(255 * rgb).astype(np.uint8).reshape(HEIGHT, WIDTH, 3),
        hit.reshape(HEIGHT, WIDTH),
    )


def _matches(
    c2w: NDArray, rng: np.random.Generator, noise_px: float, neighbours: int
) -> list[ViewMatches]:
    points = rng.normal(size=(1500, 3))
    points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    seen, pixels = [], []
    for pose in c2w:
        xy, _ = project(K, pose, points)
        facing = ((pose[:3, 3] - points) * points).sum(axis=1) > 0.1
        seen.append(facing & (xy > 0).all(axis=1) & (xy < [WIDTH - 1, HEIGHT - 1]).all(axis=1))
        pixels.append(xy + rng.normal(size=xy.shape) * noise_px)
    views = []
    for i in range(len(c2w)):
        sources, rows, heldout = [], [], []
        for j in range(len(c2w)):
            apart = min((i - j) % len(c2w), (j - i) % len(c2w))
            both = seen[i] & seen[j]
            if 0 < apart <= neighbours and both.sum() > 30:
                sources.append(j)
                rows.append(np.concatenate([pixels[i][both], pixels[j][both]], axis=1))
                heldout.append(np.flatnonzero(both) % 8 == 0)
        views.append(ViewMatches(sources, rows, heldout))
    return views
