"""Where on a mesh the errors are: one distance a vertex, and its colour."""

from pathlib import Path

import numpy as np
import trimesh
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.geometry.similarity import Similarity
from pipeline.metrics.distance import SurfaceDistance
from pipeline.metrics.surface import ObjectSphere, SurfaceProtocol

FILE = "surface_error.npz"
FULL_SCALE = 2.0
"""The colour scale ends at so many thresholds: what is below its middle counts as right."""
UNCOUNTED_RGB = (150, 150, 150)
"""Colour of vertices that do not count: a table, say, that the truth does not have."""


def vertex_errors(
    predicted: trimesh.Trimesh,
    true: trimesh.Trimesh,
    similarity: Similarity,
    places: NDArray,
    spacing: float,
) -> NDArray:
    """Distances (V,) of the predicted vertices to the true surface, in radii of the true object.

    NaN where no accuracy was measured within two spacings: there the mesh does not count.

    Args:
        similarity: predicted → truth.
        places: (A, 3) where accuracy was measured, in the truth's frame.
        spacing: of these, and of the samples that find candidates, in radii.
    """
    radius = ObjectSphere.of(np.asarray(true.vertices)).radius
    vertices = similarity.apply_points(predicted.vertices)
    surface = SurfaceDistance(true.vertices, true.faces, spacing * radius)
    distances: NDArray = surface.distances(vertices) / radius
    if len(places):
        reach = cKDTree(places).query(vertices, distance_upper_bound=2 * spacing * radius)[0]
        distances[~np.isfinite(reach)] = np.nan
    return distances


def save_errors(path: Path, distances: NDArray, protocol: SurfaceProtocol) -> None:
    """Write distances (V,) in radii, with the threshold and cap that colour them."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            distance=distances.astype(np.float32),
            threshold=np.float32(protocol.threshold),
            cap=np.float32(protocol.cap),
        )


def error_colours(distance: NDArray, threshold: float, cap: float) -> NDArray:
    """Colours (V, 3) uint8 of distances (V,): dark blue is none, yellow two thresholds or more.

    What does not count (NaN, or the cap and more) is grey.
    """
    counts = np.asarray(distance) < cap
    scaled = np.clip(np.where(counts, distance, 0) / (FULL_SCALE * threshold), 0, 1)
    rgb = np.round(255 * colormaps["plasma"](scaled)[:, :3]).astype(np.uint8)
    rgb[~counts] = UNCOUNTED_RGB
    return rgb
