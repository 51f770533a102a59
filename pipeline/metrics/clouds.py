"""Meshes and point clouds of any tool, read and checked before anything is measured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry.similarity import Similarity

LARGEST_SCALE_RATIO = 30.0
"""Sizes that differ by more than this are taken for a mistake of units."""
LET_CAMERAS_ALIGN = "let the cameras align it: --cameras and --true-cameras, or --transform"
"""Advice where a prediction is in another frame than the truth."""
_EMPTY = "the program that wrote it found no surface, or its export went wrong: look into it"


@dataclass(frozen=True)
class Prediction:
    """A surface to be measured.

    Attributes:
        points: (V, 3) float64, vertices of the mesh or the cloud's points.
        faces: (F, 3), or None for a point cloud.
        name: for messages.
    """

    points: NDArray
    faces: NDArray | None
    name: str

    def moved(self, similarity: Similarity) -> "Prediction":
        """The same in another frame."""
        return Prediction(similarity.apply_points(self.points), self.faces, self.name)

    @property
    def mesh(self) -> trimesh.Trimesh:
        """As a mesh; only where there are faces."""
        return trimesh.Trimesh(self.points, self.faces, process=False)


def load_prediction(path: Path, needs_faces: bool) -> Prediction:
    """Read a mesh (PLY, OBJ, STL, GLB …) or a point cloud, as it is.

    Args:
        needs_faces: whether a point cloud will not do.

    Raises:
        InputError: no such file, not readable, empty, a cloud where a mesh is needed, or vertices
            that are not finite.
    """
    vertices, faces = read_geometry(path)
    check_points(vertices, str(path))
    if needs_faces and faces is None:
        raise InputError(
            f"{path} has no triangles: expected a surface mesh, not a point cloud",
            hint="make a mesh of the points first; `dtu` and `tanks_and_temples` take points too",
        )
    if faces is not None:
        check_mesh(vertices, faces, str(path))
    return Prediction(vertices, faces, str(path))


def load_points(path: Path) -> NDArray:
    """The points (P, 3) float64 of a cloud, or the vertices of a mesh.

    Raises:
        InputError: no such file, not readable, empty, or not finite.
    """
    points, _ = read_geometry(path)
    check_points(points, str(path))
    return points


def read_geometry(path: Path) -> tuple[NDArray, NDArray | None]:
    """Vertices (V, 3) float64 and faces (F, 3), or None where the file has none; not checked.

    Raises:
        InputError: no such file, or not readable.
    """
    if not path.is_file():
        raise InputError(f"no mesh file at {path}")
    try:
        loaded = trimesh.load(path, process=False)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_geometry()
        vertices = np.array(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.array(getattr(loaded, "faces", np.zeros((0, 3))), dtype=np.int64)
    except Exception as error:  # trimesh raises whatever its readers meet
        raise InputError(
            f"{path} cannot be read as a mesh ({error})", hint="give a PLY, OBJ, STL or GLB file"
        ) from error
    return vertices, faces if len(faces) else None


def check_points(points: NDArray, what: str) -> None:
    """Refuse points that nothing can be measured from.

    Raises:
        InputError: there is none, or some are not finite.
    """
    if len(points) == 0:
        raise InputError(f"{what} is empty: it has no vertices", hint=_EMPTY)
    bad = int((~np.isfinite(points)).any(axis=1).sum())
    if bad:
        raise InputError(
            f"{what}: {bad} of {len(points)} vertices are not finite (NaN or inf)",
            hint="export it again, or remove them (trimesh: `mesh.remove_infinite_values()`)",
        )


def check_mesh(vertices: NDArray, faces: NDArray, what: str) -> None:
    """Refuse a mesh that no distance can be measured to.

    Raises:
        InputError: no triangles, vertices that are not finite, faces that name missing vertices, or
            no triangle with an area.
    """
    if len(faces) == 0 or len(vertices) == 0:
        raise InputError(f"{what} is empty: it has no triangles", hint=_EMPTY)
    check_points(vertices, what)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{what}: its faces name vertices that do not exist")
    a, b, c = vertices[faces].transpose(1, 0, 2)
    if not (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0).any():
        raise InputError(f"{what}: none of its triangles has an area")


def extent(points: NDArray) -> tuple[NDArray, float]:
    """Centre (3,) of the bounding box and the largest distance of a point (V, 3) from it."""
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    return centre, float(np.linalg.norm(points - centre, axis=1).max())


def check_frames_fit(points: NDArray, reference: NDArray, what: str) -> None:
    """Refuse a surface (V, 3) that cannot be compared with the reference (R, 3) as it lies.

    Raises:
        InputError: the sizes differ grossly (a factor near 1000 or 100 is named), or the bounding
            boxes have nothing in common.
    """
    (centre, radius), (true_centre, true_radius) = extent(points), extent(reference)
    ratio = true_radius / max(radius, 1e-300)
    if not 1 / LARGEST_SCALE_RATIO <= ratio <= LARGEST_SCALE_RATIO:
        larger = "larger" if ratio > 1 else "smaller"
        raise InputError(
            f"the ground truth is {max(ratio, 1 / ratio):.4g} times {larger} than {what}"
            f"{unit_guess(ratio)}",
            hint=f"give both in one unit, or {LET_CAMERAS_ALIGN}",
        )
    apart = np.maximum(points.min(axis=0), reference.min(axis=0)) > np.minimum(
        points.max(axis=0), reference.max(axis=0)
    )
    if apart.any():
        distance = np.linalg.norm(centre - true_centre) / true_radius
        raise InputError(
            f"{what} and the ground truth do not overlap: their centres are {distance:.3g} radii "
            "apart, so they are not in one frame",
            hint=LET_CAMERAS_ALIGN,
        )


def unit_guess(ratio: float) -> str:
    """What a ratio of two sizes says about their units; empty if nothing."""
    for factor, units in ((1000.0, "metres and millimetres"), (100.0, "metres and centimetres")):
        if 0.4 < ratio / factor < 2.5 or 0.4 < ratio * factor < 2.5:
            return f" (a factor of about {factor:.0f}: {units}?)"
    return ""
