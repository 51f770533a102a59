"""Renders the demo photos: what goes in is exact, what comes out is what a camera would give.

The truth is written beside the photos, for the evaluation only.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.demo.camera import Lens, demo_lens, walk_around
from pipeline.demo.lighting import irradiance
from pipeline.demo.shape import object_mesh, surface_normals
from pipeline.demo.texture import SolidNoise, ground_texture, object_colour, room_panorama
from pipeline.demo.truth import save_photo, save_truth
from pipeline.errors import InputError
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress, Progress

Array = NDArray[np.floating]

TABLE_RADIUS = 2.6
TABLE_THICKNESS = 0.12
_LIGHT_MAP_PIXELS = 256
_TARGET = np.array([0.03, 0.0, 0.50])
_DISTANCE = 3.15
_TABLE_SIDE_COLOUR = np.array([0.20, 0.13, 0.08], dtype=np.float32)
_SHOT_NOISE = 0.011
_READ_NOISE = 0.004


@dataclass(frozen=True)
class DemoScene:
    """Everything a ray can meet, in model units, with light and colour ready to look up."""

    mesh: trimesh.Trimesh
    table: trimesh.Trimesh
    rays: RayScene
    noise: SolidNoise
    vertex_light: NDArray[np.float32]  # (V,) irradiance of the object's vertices
    ground: NDArray[np.float32]  # (G, G, 3) colours of the table top, [-R, R]² in x, y
    ground_light: NDArray[np.float32]  # (L, L) irradiance of the same square
    room: NDArray[np.float32]


def build_scene(seed: int, voxel: float = 0.014, ground_pixels: int = 3072) -> DemoScene:
    """Model, texture and light of the demo; the same for the same seed."""
    rng = np.random.default_rng(seed)
    noise = SolidNoise.create(rng)
    ground = ground_texture(rng, ground_pixels)
    room = room_panorama(rng)
    mesh = object_mesh(voxel)
    table = trimesh.creation.cylinder(TABLE_RADIUS, TABLE_THICKNESS, sections=180)
    table.apply_translation([0, 0, -TABLE_THICKNESS / 2])
    everything = trimesh.util.concatenate([mesh, table])  # the object's faces come first
    rays = RayScene(everything.vertices, everything.faces)
    light = irradiance(rays, mesh.vertices, surface_normals(mesh.vertices))
    return DemoScene(
        mesh, table, rays, noise, light.astype(np.float32), ground, _ground_light(rays), room
    )


def _ground_light(rays: RayScene) -> NDArray[np.float32]:
    at = (np.arange(_LIGHT_MAP_PIXELS) + 0.5) / _LIGHT_MAP_PIXELS * 2 - 1
    x, y = np.meshgrid(at * TABLE_RADIUS, at * TABLE_RADIUS)
    points = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    normals = np.broadcast_to([0.0, 0.0, 1.0], points.shape)
    light = irradiance(rays, points, normals).reshape(x.shape).astype(np.float32)
    return cv2.GaussianBlur(light, (0, 0), 1.0)


def _look_up_square(image: NDArray[np.float32], xy: Array) -> Array:
    """Bilinear samples of an image that covers [-R, R]² of the table at points (N, 2)."""
    at = ((xy / TABLE_RADIUS + 1) / 2 * len(image) - 0.5).astype(np.float32)
    return _remap(image, at[:, 0], at[:, 1], cv2.BORDER_REPLICATE)


def _look_up_room(image: NDArray[np.float32], directions: Array) -> Array:
    height, width = image.shape[:2]
    u = (np.arctan2(directions[:, 1], directions[:, 0]) / (2 * np.pi) + 0.5) * width - 0.5
    v = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi * height - 0.5
    return _remap(image, u.astype(np.float32), v.astype(np.float32), cv2.BORDER_WRAP)


def _remap(image: NDArray[np.float32], u: Array, v: Array, border: int) -> Array:
    columns = 1024  # OpenCV's remap refuses maps longer than 32767 in one dimension
    count = len(u)
    rows = -(-count // columns)
    maps = np.zeros((2, rows * columns), dtype=np.float32)
    maps[0, :count], maps[1, :count] = u, v
    out = cv2.remap(
        image, maps[0].reshape(rows, columns), maps[1].reshape(rows, columns),
        cv2.INTER_LINEAR, borderMode=border,
    )  # fmt: skip
    return out.reshape(rows * columns, *image.shape[2:])[:count]


def trace(scene: DemoScene, origin: Array, directions: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Linear colours (N, 3) seen along unit directions (N, 3) from one origin, and whether each ray
    ends on the object (N,)."""
    hits = scene.rays.cast(origin, directions)
    depth = hits.distance.astype(np.float32)[:, None]
    is_object = hits.hit & (hits.face < len(scene.mesh.faces))
    colours = _look_up_room(scene.room, directions)

    on_object = np.flatnonzero(is_object)
    points = origin + directions[on_object] * depth[on_object]
    corners = scene.mesh.faces[hits.face[on_object]]
    u, v = hits.uv[on_object].T
    weights = np.stack([1 - u - v, u, v], axis=1)
    light = np.sum(scene.vertex_light[corners] * weights, axis=1)
    colours[on_object] = object_colour(scene.noise, points) * light[:, None]

    on_table = np.flatnonzero(hits.hit & ~is_object)
    points = origin + directions[on_table] * depth[on_table]
    light = _look_up_square(scene.ground_light, points[:, :2])
    top = _look_up_square(scene.ground, points[:, :2]) * light[:, None]
    is_top = (points[:, 2] > -1e-3)[:, None]
    colours[on_table] = np.where(is_top, top, _TABLE_SIDE_COLOUR)
    return colours, is_object


def pixel_directions(lens: Lens, supersample: int) -> list[NDArray[np.float32]]:
    """Unit directions (h * w, 3) in the camera frame through the distorted lens.

    One array for each of the ``supersample``² places within a pixel.
    """
    x, y = np.meshgrid(np.arange(lens.width, dtype=float), np.arange(lens.height, dtype=float))
    offsets = (np.arange(supersample) + 0.5) / supersample - 0.5
    places = [
        np.stack([x + dx, y + dy], axis=-1).reshape(-1, 2) for dy in offsets for dx in offsets
    ]
    return [lens.directions(place).astype(np.float32) for place in places]


def render_linear(
    scene: DemoScene, lens: Lens, directions: list[NDArray[np.float32]], c2w: Array
) -> tuple[Array, Array]:
    """Linear image (h, w, 3) from :func:`pixel_directions`, and the share (h, w) of each pixel that
    the object covers."""
    total = np.zeros((lens.height * lens.width, 3), dtype=np.float32)
    cover = np.zeros(lens.height * lens.width, dtype=np.float32)
    rotation, centre = c2w[:3, :3].astype(np.float32), c2w[:3, 3].astype(np.float32)
    for in_camera in directions:
        colours, on_object = trace(scene, centre, in_camera @ rotation.T)
        total += colours
        cover += on_object
    shape = (lens.height, lens.width)
    return (total / len(directions)).reshape(*shape, 3), (cover / len(directions)).reshape(shape)


def develop(linear: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sensor noise (signal-dependent and constant), sRGB curve, 8 bits."""
    sigma = np.sqrt(_SHOT_NOISE**2 * linear + _READ_NOISE**2)
    noisy = np.clip(linear + rng.normal(size=linear.shape) * sigma, 0.0, 1.0)
    low = noisy <= 0.0031308
    encoded = np.where(
        low, 12.92 * noisy, 1.055 * np.maximum(noisy, 0.0031308) ** (1 / 2.4) - 0.055
    )
    return np.round(255 * encoded).astype(np.uint8)


def render_demo(
    out: Path,
    *,
    views: int = 28,
    width: int = 640,
    height: int = 480,
    seed: int = 0,
    supersample: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write demo photos and their exact truth.

    ``out/photos/IMG_0001.jpg`` … are what the pipeline gets. ``out/truth`` holds ``cameras.npz``
    (IDR convention, pixel centres at integers, intrinsics without distortion, scale_mat from the
    object's bounding sphere), ``image_names.json``, ``camera.json`` (the lens and its distortion),
    ``mesh_gt.ply`` (object) and ``scene_gt.ply`` (object and table). Lengths: metres.

    Args:
        views: from 20 on two full walks round the object; fewer cover an arc only.
        supersample: rays a pixel, along each side.
        progress: told of the photos done.

    Returns:
        The folder of the photos.

    Raises:
        InputError: fewer than 3 views, or an image side below 64 pixels.
    """
    if views < 3 or min(width, height) < 64 or supersample < 1:
        raise InputError(
            f"cannot render {views} views of {width}×{height} px, {supersample}² rays a pixel",
            hint="give at least 3 views, 64 pixels a side and 1 ray a pixel",
        )
    progress = progress or NullProgress()
    progress.advance("model", 0, 1)
    small = max(width, height) <= 400
    scene = build_scene(seed, voxel=0.02 if small else 0.014, ground_pixels=1536 if small else 3072)
    progress.advance("model", 1, 1)
    lens = demo_lens(width, height)
    poses = walk_around(np.random.default_rng([seed, 1]), views, _TARGET, _DISTANCE)
    directions = pixel_directions(lens, supersample)
    photos = out / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    names = [f"IMG_{i + 1:04d}.jpg" for i in range(views)]

    def shoot(i: int) -> None:
        linear, _ = render_linear(scene, lens, directions, poses[i])
        save_photo(photos / names[i], develop(linear, np.random.default_rng([seed, 2, i])), lens, i)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, _ in enumerate(pool.map(shoot, range(views)), start=1):
            progress.advance("photos", done, views)
    save_truth(out / "truth", names, lens, poses, mesh=scene.mesh, table=scene.table)
    return photos
