"""Vertex colours from the photos."""

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress, Progress
from pipeline.surface.views import Views, see_vertices

WEIGHT_POWER = 2.0
"""How much a better view counts than a worse one: weights are raised to this power."""


@dataclass(frozen=True)
class VertexColours:
    """Colours of a mesh.

    Attributes:
        rgb: (V, 3) uint8, sRGB as in the photos.
        seen_by: (V,) number of views that see each vertex; where it is 0 the colour is borrowed
            from the nearest vertex that is seen.
    """

    rgb: NDArray
    seen_by: NDArray


def colour_vertices(
    mesh: trimesh.Trimesh,
    views: Views,
    tolerance: float,
    blended_views: int = 3,
    progress: Progress | None = None,
) -> VertexColours:
    """Colour each vertex from the views that see it best.

    A view's weight is the area that a piece of surface takes in its image: the cosine of the
    viewing angle over the squared depth in pixels. Only the `blended_views` best views count.

    Args:
        mesh: normals outward; same frame as the views.
        tolerance: see `views.see_vertices`.

    Raises:
        InputError: no vertex is seen by any view.
    """
    progress = progress or NullProgress()
    scene = RayScene(mesh.vertices, mesh.faces)
    count = len(mesh.vertices)
    weight = np.zeros((count, blended_views))
    rgb = np.zeros((count, blended_views, 3), dtype=np.float32)
    seen_by = np.zeros(count, dtype=np.int64)
    for index in range(len(views)):
        sight = see_vertices(mesh, scene, views, index, tolerance)
        focal_px = views.K[index][0, 0]
        new_weight = sight.cosine * (focal_px / sight.depth) ** 2
        _insert(weight, rgb, sight.vertex, new_weight, sample(views.image(index), sight.xy_px))
        seen_by[sight.vertex] += 1
        progress.advance("colour", index + 1, len(views))
    if not seen_by.any():
        raise InputError(
            "no photo sees any part of the surface, so it cannot be coloured",
            hint="cameras and surface disagree: look at both in the report",
        )
    return VertexColours(_blend(mesh.vertices, weight, rgb, seen_by), seen_by)


def sample(image: NDArray, xy_px: NDArray) -> NDArray:
    """Bilinear colours (S, 3) float32 of an image (H, W, 3) at pixels (S, 2), IDR's convention."""
    if len(xy_px) == 0:
        return np.zeros((0, 3), dtype=np.float32)
    height, width = image.shape[:2]
    x = np.clip(xy_px[:, 0], 0, width - 1)
    y = np.clip(xy_px[:, 1], 0, height - 1)
    x0 = np.minimum(x.astype(np.int64), width - 2)
    y0 = np.minimum(y.astype(np.int64), height - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    colours: NDArray = (top * (1 - fy) + bottom * fy).astype(np.float32)
    return colours


def _insert(
    weight: NDArray, rgb: NDArray, vertex: NDArray, new_weight: NDArray, new_rgb: NDArray
) -> None:
    """Put a view's samples in the place of each vertex's weakest one, where they are stronger."""
    weakest = weight[vertex].argmin(axis=1)
    stronger = new_weight > weight[vertex, weakest]
    vertex, weakest = vertex[stronger], weakest[stronger]
    weight[vertex, weakest] = new_weight[stronger]
    rgb[vertex, weakest] = new_rgb[stronger]


def _blend(vertices: NDArray, weight: NDArray, rgb: NDArray, seen_by: NDArray) -> NDArray:
    relative = weight / np.maximum(weight.max(axis=1, keepdims=True), 1e-30)
    sharp = relative**WEIGHT_POWER
    mean = (rgb * sharp[..., None]).sum(axis=1) / np.maximum(sharp.sum(axis=1), 1e-30)[:, None]
    unseen = seen_by == 0
    if unseen.any():
        nearest = cKDTree(vertices[~unseen]).query(vertices[unseen])[1]
        mean[unseen] = mean[~unseen][nearest]
    return np.clip(np.round(mean), 0, 255).astype(np.uint8)
