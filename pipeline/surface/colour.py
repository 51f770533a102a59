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

EXTRA_VIEWS = 2
"""Views beyond the blended ones that have a say in what the common colour is."""

DISAGREEMENT = 20.0
"""Samples this far (grey levels) from the views' median count for less: at the edge of something
that stands in front, a sample may be of the wrong thing."""


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
    viewing angle over the squared depth in pixels. Only the `blended_views` best views count, less
    where they contradict the median of the best few.

    Args:
        mesh: normals outward; same frame as the views.
        tolerance: see `views.see_vertices`.

    Raises:
        InputError: no vertex is seen by any view.
    """
    progress = progress or NullProgress()
    scene = RayScene(mesh.vertices, mesh.faces)
    count = len(mesh.vertices)
    weight = np.zeros((count, blended_views + EXTRA_VIEWS))
    rgb = np.zeros((*weight.shape, 3), dtype=np.float32)
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
    blended = _blend(weight, rgb, blended_views)
    return VertexColours(_fill(mesh.vertices, blended, seen_by), seen_by)


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


def _blend(weight: NDArray, rgb: NDArray, blended_views: int) -> NDArray:
    """Mean colours (V, 3) of the samples (V, S, 3) by weight (V, S); weight 0 = no sample."""
    order = np.argsort(-weight, axis=1)
    weight = np.take_along_axis(weight, order, axis=1)
    rgb = np.take_along_axis(rgb, order[..., None], axis=1)
    known = np.where((weight > 0)[..., None], rgb, np.nan)
    known[weight[:, 0] == 0, 0] = 0.0
    distance = np.linalg.norm(rgb - np.nanmedian(known, axis=1)[:, None], axis=2)
    relative = weight / np.maximum(weight[:, :1], 1e-30)
    counted = relative**WEIGHT_POWER / (1 + (distance / DISAGREEMENT) ** 4)
    # the best views are taken among those that agree
    rank = np.argsort(np.argsort(-counted, axis=1), axis=1)
    counted = np.where(rank < blended_views, counted, 0.0)
    total = np.maximum(counted.sum(axis=1), 1e-30)
    mean: NDArray = (rgb * counted[..., None]).sum(axis=1) / total[:, None]
    return mean


def _fill(vertices: NDArray, rgb: NDArray, seen_by: NDArray) -> NDArray:
    """Bytes; vertices that no view sees take the colour of the nearest one that is seen."""
    unseen = seen_by == 0
    if unseen.any():
        nearest = cKDTree(vertices[~unseen]).query(vertices[unseen])[1]
        rgb[unseen] = rgb[~unseen][nearest]
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)
