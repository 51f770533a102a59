"""What can be said about a mesh by looking at it: counts, closedness, cut edges."""

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.surface.clean import face_pieces

FLAT_CUT = 0.08
"""A cut as close to a plane as this (RMS, in radii) is a table's edge and not an object's."""

BACK_FACING_WARN = 0.2
OUTWARD_NEEDED = 0.5


@dataclass(frozen=True)
class Shape:
    """Counts of a mesh in the normalised frame.

    Attributes:
        pieces: separate pieces joined by edges.
        largest_piece_fraction: the largest one's share of the area.
        watertight: no open edge.
        open_edges: edges with one face.
        non_manifold_edges: edges with more than two faces.
        cut_edges: open edges at the region of interest's boundary.
        cut_flatness: RMS distance of the cut's points from their best plane, in radii; None if
            there is no cut.
    """

    pieces: int
    largest_piece_fraction: float
    watertight: bool
    open_edges: int
    non_manifold_edges: int
    cut_edges: int
    cut_flatness: float | None


def measure_shape(mesh: trimesh.Trimesh, cell: float) -> Shape:
    """Look at a mesh in the normalised frame, whose lattice had cells of edge `cell`."""
    edges, uses = np.unique(np.asarray(mesh.edges_sorted), axis=0, return_counts=True)
    border = edges[uses == 1]
    points = mesh.vertices[border].mean(axis=1) if len(border) else np.zeros((0, 3))
    cut = points[np.linalg.norm(points, axis=1) > 1.0 - 2 * cell]
    piece = face_pieces(mesh)
    area = np.bincount(piece, weights=mesh.area_faces)
    return Shape(
        pieces=len(area),
        largest_piece_fraction=float(area.max() / max(area.sum(), 1e-30)),
        watertight=len(border) == 0,
        open_edges=len(border),
        non_manifold_edges=int((uses > 2).sum()),
        cut_edges=len(cut),
        cut_flatness=_flatness(cut) if len(cut) else None,
    )


def shape_warnings(shape: Shape, back_facing: float) -> list[str]:
    """What a user should look at, one sentence each.

    Args:
        back_facing: share of the cameras' rays that meet the back of a face.
    """
    warnings = []
    if shape.cut_flatness is not None and shape.cut_flatness > FLAT_CUT:
        warnings.append(
            "the surface is cut by the boundary of the region of interest, and not only where a "
            "table ends: the object may be cut off; raise `scene.roi_scale`"
        )
    if back_facing > BACK_FACING_WARN:
        warnings.append(
            f"{back_facing:.0%} of the cameras' rays meet the back of the surface: it is inside "
            "out or open where it should be closed"
        )
    if shape.non_manifold_edges:
        warnings.append(f"{shape.non_manifold_edges} edges have more than two faces")
    return warnings


def shape_verdicts(shape: Shape, back_facing: float, outward: float) -> dict[str, bool]:
    """What is wrong with a mesh, by name; an empty one never comes so far.

    `touches_boundary`: it ends where the region of interest ends, as a table may. `object_cut`: and
    not in one plane, so the object itself may be cut. `inside_out`: cameras see backs of faces, or
    faces look to where the field falls.

    Args:
        back_facing: share of the cameras' rays that meet the back of a face.
        outward: share of the faces whose normals look to where the field grows.
    """
    return {
        "empty": False,
        "touches_boundary": shape.cut_edges > 0,
        "object_cut": shape.cut_flatness is not None and shape.cut_flatness > FLAT_CUT,
        "non_manifold": shape.non_manifold_edges > 0,
        "inside_out": back_facing > BACK_FACING_WARN or outward < OUTWARD_NEEDED,
    }


def _flatness(points: NDArray) -> float:
    centred = points - points.mean(axis=0)
    return float(np.linalg.svd(centred, compute_uv=False)[-1] / np.sqrt(len(points)))
