"""Where on a mesh the errors are: one distance a vertex, and its colour."""

from pathlib import Path

import numpy as np
import trimesh
from matplotlib import colormaps
from numpy.typing import NDArray

from pipeline.geometry.similarity import Similarity
from pipeline.metrics.distance import SurfaceDistance
from pipeline.metrics.surface import ObjectSphere, SurfaceProtocol

FILE = "surface_error.npz"
FULL_SCALE = 3.0
"""The colour scale ends at so many thresholds."""
BEYOND_RGB = (150, 150, 150)
"""Colour of vertices beyond the cap: a table, say, that the truth does not have."""


def vertex_errors(
    predicted: trimesh.Trimesh, true: trimesh.Trimesh, similarity: Similarity, spacing: float
) -> NDArray:
    """Distances (V,) of the predicted vertices to the true surface, in radii of the true object.

    Args:
        similarity: predicted → truth.
        spacing: of the samples that find candidates, in radii.
    """
    radius = ObjectSphere.of(np.asarray(true.vertices)).radius
    surface = SurfaceDistance(true.vertices, true.faces, spacing * radius)
    distances: NDArray = surface.distances(similarity.apply_points(predicted.vertices)) / radius
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
    """Colours (V, 3) uint8 of distances (V,): dark blue is none, yellow three thresholds or more.

    Distances of the cap or more are grey: they are not errors of the object.
    """
    scaled = np.clip(np.asarray(distance) / (FULL_SCALE * threshold), 0, 1)
    rgb = np.round(255 * colormaps["plasma"](scaled)[:, :3]).astype(np.uint8)
    rgb[np.asarray(distance) >= cap] = BEYOND_RGB
    return rgb
