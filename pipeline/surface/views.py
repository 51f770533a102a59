"""The photos of a scene with their cameras, as the surface steps need them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.case import common_size, read_rgb, sorted_images
from pipeline.geometry.cameras import pixel_rays, project
from pipeline.geometry.raycast import RayScene


@dataclass(frozen=True)
class Views:
    """N calibrated photos of one size; nothing is read until it is asked for.

    Attributes:
        K: (N, 3, 3) intrinsics, pixel centres at integer coordinates.
        c2w: (N, 4, 4) camera-to-world in the frame of the mesh.
        image_paths: N photos.
        mask_paths: N masks, white on the object; empty if the scene has none.
        width, height: size of every photo in pixels.
    """

    K: NDArray
    c2w: NDArray
    image_paths: list[Path]
    mask_paths: list[Path]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.c2w)

    def image(self, index: int) -> NDArray:
        """Photo (H, W, 3), uint8 RGB."""
        return read_rgb(self.image_paths[index])

    def mask(self, index: int) -> NDArray:
        """Mask (H, W), true on the object."""
        return read_rgb(self.mask_paths[index]).max(axis=2) > 127


def open_views(scene_dir: Path, K: NDArray, c2w: NDArray) -> Views:
    """The photos of a scene folder (`image/`, perhaps `mask/`) with cameras K, c2w.

    Raises:
        InputError: the numbers of photos, masks and cameras differ, or the photos' sizes do.
    """
    images = sorted_images(scene_dir / "image")
    masks = sorted_images(scene_dir / "mask") if (scene_dir / "mask").is_dir() else []
    if len(images) != len(c2w) or (masks and len(masks) != len(images)):
        raise InputError(
            f"a scene of {len(images)} images and {len(masks)} masks does not fit "
            f"{len(c2w)} trained cameras",
            hint="run the stages `scene` and `train` again on the same photos",
        )
    width, height = common_size(images + masks)
    return Views(np.asarray(K), np.asarray(c2w), images, masks, width, height)


@dataclass(frozen=True)
class Sight:
    """What one view sees of a mesh's vertices.

    Attributes:
        vertex: (S,) indices of the vertices seen.
        xy_px: (S, 2) where.
        cosine: (S,) of the angle between surface normal and direction to the camera, > 0.
        depth: (S,) along the optical axis, in the frame of the mesh.
    """

    vertex: NDArray
    xy_px: NDArray
    cosine: NDArray
    depth: NDArray


def see_vertices(
    mesh: trimesh.Trimesh, scene: RayScene, views: Views, index: int, tolerance: float
) -> Sight:
    """Vertices inside the image of view `index`, facing the camera, with nothing in front.

    Args:
        mesh: whose vertices.
        scene: what may stand in the way; the same mesh or a larger one.
        tolerance: how far behind the first hit a vertex may lie and still be seen (mesh units).
    """
    K, c2w = views.K[index], views.c2w[index]
    xy_px, depth = project(K, c2w, mesh.vertices)
    to_camera = c2w[:3, 3] - mesh.vertices
    to_camera /= np.maximum(np.linalg.norm(to_camera, axis=1, keepdims=True), 1e-12)
    cosine = np.einsum("ij,ij->i", np.asarray(mesh.vertex_normals), to_camera)
    with np.errstate(invalid="ignore"):
        in_image = (
            (depth > 0)
            & (xy_px >= 0).all(axis=1)
            & (xy_px[:, 0] <= views.width - 1)
            & (xy_px[:, 1] <= views.height - 1)
        )
    candidates = np.flatnonzero(in_image & (cosine > 0))
    seen = candidates[scene.sees(c2w[:3, 3], mesh.vertices[candidates], tolerance)]
    return Sight(seen, xy_px[seen], cosine[seen], depth[seen])


def back_facing_fraction(scene: RayScene, views: Views, rays_per_view: int = 2000) -> float:
    """Share of the first hits of all views' rays that meet the back of a face; 0 if none hit."""
    step = max(1.0, np.sqrt(views.width * views.height / rays_per_view))
    grid = np.meshgrid(np.arange(0, views.width, step), np.arange(0, views.height, step))
    pixels = np.stack(grid, axis=-1).reshape(-1, 2)
    back = total = 0
    for K, c2w in zip(views.K, views.c2w, strict=True):
        origins, directions = pixel_rays(K, c2w, pixels)
        hits = scene.cast(origins, directions)
        facing_away = np.einsum("ij,ij->i", hits.normal, directions) > 0
        back += int((facing_away & hits.hit).sum())
        total += int(hits.hit.sum())
    return back / total if total else 0.0
