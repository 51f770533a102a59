"""A texture from the photos: best views, smooth seams, even exposure, nothing behind a corner."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pipeline.errors import InputError
from pipeline.geometry.cameras import project
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress, Progress
from pipeline.surface.colour import sample
from pipeline.surface.levelling import level_seams
from pipeline.surface.unwrap import Unwrapped, unwrap
from pipeline.surface.view_choice import UNSEEN, best_views, choose_views
from pipeline.surface.views import Views

BLUR_PX = 1.5
"""Colours at seams are compared over so many pixels: detail is not exposure."""


@dataclass(frozen=True)
class TexturedMesh:
    """Corner points of a mesh with their places in a picture.

    Attributes:
        vertex: (W,) vertex of the mesh that each corner point is.
        uv: (W, 2) in [0, 1], from the picture's top left corner.
        faces: (F, 3) into the W; order and winding of the mesh.
        picture: (H, W, 3) uint8 sRGB.
        figures: counts, plain data.
    """

    vertex: NDArray
    uv: NDArray
    faces: NDArray
    picture: NDArray
    figures: dict[str, Any]


def texture_mesh(
    mesh: trimesh.Trimesh,
    views: Views,
    fallback_rgb: NDArray,
    tolerance: float,
    max_size_px: int,
    progress: Progress | None = None,
) -> TexturedMesh:
    """Project the photos onto a mesh.

    Args:
        mesh: normals outward; frame of the views.
        fallback_rgb: (V, 3) uint8 vertex colours, for faces that no photo sees whole.
        tolerance: see `view_choice.best_views`.
        max_size_px: longest side of the texture.

    Raises:
        InputError: no photo sees any face.
    """
    progress = progress or NullProgress()
    label = choose_views(mesh, best_views(mesh, views, tolerance, progress))
    if (label == UNSEEN).all():
        raise InputError(
            "no photo sees any whole triangle of the surface, so it cannot be textured",
            hint="cameras and surface disagree: look at both in the report",
        )
    charts = unwrap(mesh, label, views, max_size_px)
    colour = _seam_colours(mesh, label, charts, views, fallback_rgb)
    correction = level_seams(colour, charts.vertex, charts.faces)
    picture = _paint(mesh, label, charts, views, fallback_rgb, correction, progress)
    size = np.array(charts.size_px, dtype=np.float64)
    seams = len(charts.vertex) - len(np.unique(charts.vertex))
    figures = {
        "size_px": list(charts.size_px),
        "charts": int(charts.chart.max()) + 1,
        "photos_used": len(np.unique(label[label != UNSEEN])),
        "seen_area_fraction": float(mesh.area_faces[label != UNSEEN].sum() / mesh.area),
        "seam_vertices": seams,
        "mean_correction": float(np.abs(correction).mean()),
    }
    return TexturedMesh(charts.vertex, charts.uv_px / size, charts.faces, picture, figures)


def _seam_colours(
    mesh: trimesh.Trimesh,
    label: NDArray,
    charts: Unwrapped,
    views: Views,
    fallback_rgb: NDArray,
) -> NDArray:
    """Colours (W, 3) of the charts' vertices, each from its chart's photo, slightly blurred."""
    of_vertex = np.empty(len(charts.vertex), dtype=np.int64)
    of_vertex[charts.faces.reshape(-1)] = np.repeat(label, 3)
    colour = fallback_rgb[charts.vertex].astype(np.float64)
    for index in np.unique(of_vertex[of_vertex != UNSEEN]):
        chosen = np.flatnonzero(of_vertex == index)
        blurred = cv2.GaussianBlur(views.image(index), (0, 0), BLUR_PX)
        points = mesh.vertices[charts.vertex[chosen]]
        colour[chosen] = sample(blurred, project(views.K[index], views.c2w[index], points)[0])
    return colour


def _paint(
    mesh: trimesh.Trimesh,
    label: NDArray,
    charts: Unwrapped,
    views: Views,
    fallback_rgb: NDArray,
    correction: NDArray,
    progress: Progress,
) -> NDArray:
    """The picture (H, W, 3): every texel's place on the surface, seen in its photo."""
    width, height = charts.size_px
    face, weights = _texels(charts)
    covered = np.flatnonzero(face >= 0)
    face, weights = face[covered], weights[covered]
    corners = mesh.vertices[charts.vertex[charts.faces]]
    of_texel = label[face]
    colour = _mixed(fallback_rgb[charts.vertex].astype(np.float32), charts.faces[face], weights)
    used = np.unique(of_texel[of_texel != UNSEEN])
    for done, index in enumerate(used, start=1):
        chosen = np.flatnonzero(of_texel == index)
        points = np.einsum("tk,tkd->td", weights[chosen], corners[face[chosen]])
        xy_px, _ = project(views.K[index], views.c2w[index], points)
        colour[chosen] = sample(views.image(int(index)), xy_px)
        progress.advance("texture", done, len(used))
    colour += _mixed(correction.astype(np.float32), charts.faces[face], weights)
    picture = np.zeros((height * width, 3), dtype=np.uint8)
    picture[covered] = np.clip(np.round(colour), 0, 255)
    empty = np.ones(height * width, dtype=bool)
    empty[covered] = False
    return _filled(picture.reshape(height, width, 3), empty.reshape(height, width))


def _texels(charts: Unwrapped) -> tuple[NDArray, NDArray]:
    """Face (T,) under each texel, -1 beside the charts, and its corners' weights (T, 3)."""
    width, height = charts.size_px
    flat = RayScene(np.c_[charts.uv_px, np.zeros(len(charts.uv_px))], charts.faces)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    origins = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    hits = flat.cast(origins, np.broadcast_to([0.0, 0.0, -1.0], origins.shape))
    return hits.face, np.c_[1 - hits.uv.sum(axis=1), hits.uv]


def _mixed(values: NDArray, faces: NDArray, weights: NDArray) -> NDArray:
    """Values (W, 3) at the corners (T, 3), mixed by weights (T, 3)."""
    mixed: NDArray = sum(
        values[faces[:, corner]] * weights[:, corner, None].astype(np.float32)
        for corner in range(3)
    )
    return mixed


def _filled(picture: NDArray, empty: NDArray) -> NDArray:
    """Texels beside the charts take the nearest one's colour, so that no seam lights up."""
    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
    filled: NDArray = picture[tuple(nearest)]
    return filled
