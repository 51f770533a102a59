"""Dark surface before a dark backdrop: photos cannot tell it from nothing.

A backdrop that is black wherever one looks says nothing about depth: black surface anywhere before
it explains the photos as well, and training may leave some, most of all at the boundary of the
region of interest, where the outside takes over.
"""

from collections.abc import Callable

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.geometry.raycast import RayScene
from pipeline.progress import Progress
from pipeline.surface.clean import Cleaning, smooth_outline
from pipeline.surface.colour import sample
from pipeline.surface.views import Views, see_vertices

Backdrop = Callable[[NDArray, NDArray], NDArray]
"""Origins (R, 3) and unit directions (R, 3) of rays, normalised frame → (R, 3) grey levels of what
they would show if there were nothing in the region of interest."""

DARK_LEVELS = 40.0
SAME_LEVELS = 32.0
_NEAR_BOUNDARY = 0.95
"""Of the radius: what nobody sees at the boundary itself is gone already."""


def remove_backdrop(
    cleaning: Cleaning, views: Views, backdrop: Backdrop, tolerance: float, progress: Progress
) -> None:
    """Remove what is dark and like the backdrop in every view that sees it, as far as it hangs
    together with the boundary of the region of interest.

    Args:
        tolerance: see `views.see_vertices`.
    """
    mesh = cleaning.mesh
    alike = like_backdrop(mesh, views, backdrop, tolerance, progress)
    reached = _from_boundary(mesh, alike)
    if reached.any():
        reached = smooth_outline(mesh, reached)
    cleaning.keep(
        "backdrop",
        ~reached[mesh.faces].all(axis=1),
        "dark surface at the region's boundary that no photo tells from the dark backdrop",
    )


def like_backdrop(
    mesh: trimesh.Trimesh, views: Views, backdrop: Backdrop, tolerance: float, progress: Progress
) -> NDArray[np.bool_]:
    """Vertices (V,) that are seen, and dark and like the backdrop in all views that see them."""
    scene = RayScene(mesh.vertices, mesh.faces)
    seen = np.zeros(len(mesh.vertices), dtype=bool)
    alike = np.ones(len(mesh.vertices), dtype=bool)
    for index in range(len(views)):
        sight = see_vertices(mesh, scene, views, index, tolerance)
        levels = sample(views.image(index), sight.xy_px)
        dark = levels.max(axis=1) < DARK_LEVELS
        seen[sight.vertex] = True
        alike[sight.vertex[~dark]] = False
        asked = dark & alike[sight.vertex]
        alike[sight.vertex[asked]] = _same(
            levels[asked], mesh.vertices[sight.vertex[asked]], views.c2w[index][:3, 3], backdrop
        )
        progress.advance("backdrop", index + 1, len(views))
    return seen & alike


def _same(levels: NDArray, points: NDArray, centre: NDArray, backdrop: Backdrop) -> NDArray:
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    directions = points - centre
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    behind = backdrop(np.broadcast_to(centre, points.shape), directions)
    same: NDArray = np.abs(levels - behind).max(axis=1) < SAME_LEVELS
    return same


def _from_boundary(mesh: trimesh.Trimesh, among: NDArray) -> NDArray[np.bool_]:
    """Vertices (V,) of a set that edges within it join to the boundary of the unit sphere."""
    edges = np.asarray(mesh.edges_unique)
    edges = edges[among[edges].all(axis=1)]
    count = len(mesh.vertices)
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    group = connected_components(links, directed=False)[1]
    at_boundary = among & (np.linalg.norm(mesh.vertices, axis=1) > _NEAR_BOUNDARY)
    reached: NDArray[np.bool_] = among & np.isin(group, np.unique(group[at_boundary]))
    return reached
