"""What can be said of a surface without ground truth: sparse points, coverage, silhouettes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.formats.case import read_rgb
from pipeline.formats.idr import IdrCameras
from pipeline.geometry.cameras import pixel_rays, project
from pipeline.geometry.raycast import RayScene
from pipeline.metrics.distance import SurfaceDistance, sample_surface

COVERED = 0.02
"""A sparse point nearer to the mesh than this (radii of the region) is covered."""
SURFACE_SPACING = 0.02
SILHOUETTE_RAYS = 20_000


@dataclass(frozen=True)
class SelfCheck:
    """Measures of a mesh against what it was made from.

    Attributes:
        sparse_distance: (P,) distances of the sparse points inside the region of interest to the
            mesh, in radii of the region.
        covered: share of them nearer than `COVERED`; NaN without points.
        views_per_place: (S,) how many photos see each of evenly spread places of the mesh.
        silhouette_iou: (N,) intersection over union of mesh and mask in each view; None without
            masks.
    """

    sparse_distance: NDArray
    covered: float
    views_per_place: NDArray
    silhouette_iou: NDArray | None


def check_surface(
    mesh: trimesh.Trimesh,
    cameras: IdrCameras,
    size_px: tuple[int, int],
    sparse_points: NDArray,
    mask_paths: Sequence[Path] | None,
) -> SelfCheck:
    """Measure.

    Args:
        mesh: world frame, with faces.
        cameras: of all views, world frame; their `scale_mat` is the region of interest.
        size_px: width and height of the views.
        sparse_points: (P, 3) triangulated points, world frame; may be empty.
        mask_paths: one a view, white on the object.
    """
    vertices = (np.asarray(mesh.vertices) - cameras.centre) / cameras.radius
    faces = np.asarray(mesh.faces)
    points = (np.asarray(sparse_points).reshape(-1, 3) - cameras.centre) / cameras.radius
    points = points[np.linalg.norm(points, axis=1) < 1]
    distance = SurfaceDistance(vertices, faces, SURFACE_SPACING).distances(points)
    rays, c2w = RayScene(vertices, faces), cameras.c2w_normalised
    iou = None
    if mask_paths:
        pairs = zip(cameras.K, c2w, mask_paths, strict=True)
        iou = np.array([_silhouette_iou(rays, K, pose, path) for K, pose, path in pairs])
    return SelfCheck(
        sparse_distance=distance,
        covered=float((distance < COVERED).mean()) if len(distance) else float("nan"),
        views_per_place=_views_per_place(rays, vertices, faces, cameras.K, c2w, size_px),
        silhouette_iou=iou,
    )


def _views_per_place(
    rays: RayScene,
    vertices: NDArray,
    faces: NDArray,
    K: NDArray,
    c2w: NDArray,
    size_px: tuple[int, int],
) -> NDArray:
    places = sample_surface(vertices, faces, SURFACE_SPACING)
    count = np.zeros(len(places), dtype=np.int64)
    limit = np.array(size_px) - 0.5
    for view_K, pose in zip(K, c2w, strict=True):
        xy_px, depth = project(view_K, pose, places)
        with np.errstate(invalid="ignore"):
            inside = (depth > 0) & (xy_px >= -0.5).all(axis=1) & (xy_px <= limit).all(axis=1)
        candidates = np.flatnonzero(inside)
        count[candidates] += rays.sees(pose[:3, 3], places[candidates], SURFACE_SPACING / 2)
    return count


def _silhouette_iou(rays: RayScene, K: NDArray, c2w: NDArray, mask_path: Path) -> float:
    """Of mesh and mask, over an even grid of the mask's pixels; 1 where both are empty."""
    mask = read_rgb(mask_path).max(axis=2) > 127
    step = max(1, round(np.sqrt(mask.size / SILHOUETTE_RAYS)))
    y, x = np.mgrid[step // 2 : mask.shape[0] : step, step // 2 : mask.shape[1] : step]
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    hit = rays.cast(*pixel_rays(K, c2w, pixels)).hit
    inside = mask[pixels[:, 1], pixels[:, 0]]
    union = int((hit | inside).sum())
    return float((hit & inside).sum()) / union if union else 1.0
