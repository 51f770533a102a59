"""Closing small holes: each is a closed loop of open edges, filled by a fan around its middle."""

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

ON_BOUNDARY = 0.98
"""Loops with a vertex farther out than this (radii) are where the region of interest ends."""


@dataclass(frozen=True)
class Filling:
    """What was closed.

    Attributes:
        found: loops of open edges.
        closed: loops filled.
        at_boundary: loops left because the region of interest ends there.
        too_wide: loops left because they are wider than asked for.
        faces_added: triangles of the fillings.
    """

    found: int
    closed: int
    at_boundary: int
    too_wide: int
    faces_added: int


def fill_holes(mesh: trimesh.Trimesh, widest: float) -> tuple[trimesh.Trimesh, Filling]:
    """Close holes whose points lie within `widest` of each other.

    Args:
        mesh: normalised frame.
        widest: largest diameter of a hole that is closed, in radii of the region.
    """
    vertices, faces = [np.asarray(mesh.vertices)], [np.asarray(mesh.faces)]
    count = len(mesh.vertices)
    closed = at_boundary = too_wide = added = 0
    loops = open_loops(np.asarray(mesh.faces))
    for loop in loops:
        points = mesh.vertices[loop]
        if np.linalg.norm(points, axis=1).max() > ON_BOUNDARY:
            at_boundary += 1
        elif 2 * np.linalg.norm(points - points.mean(axis=0), axis=1).max() > widest:
            too_wide += 1
        else:
            vertices.append(points.mean(axis=0)[None])
            ends = np.roll(loop, -1)
            # against the open edges' direction, so that the winding goes on
            faces.append(np.stack([ends, loop, np.full(len(loop), count)], axis=1))
            count, closed, added = count + 1, closed + 1, added + len(loop)
    filled = trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)
    return filled, Filling(len(loops), closed, at_boundary, too_wide, added)


def open_loops(faces: NDArray) -> list[NDArray]:
    """Closed loops of edges with one face, each as vertices in the order of its faces' winding.

    Loops that touch themselves in a vertex are left out: it is not told which way they go on.
    """
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    _, first, uses = np.unique(
        np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True
    )
    border = edges[first[uses == 1]]
    starts, how_often = np.unique(border[:, 0], return_counts=True)
    unclear = set(starts[how_often > 1].tolist())
    following = {int(a): int(b) for a, b in border}
    loops = []
    while following:
        start, at = following.popitem()
        loop = [start]
        while at in following:
            loop.append(at)
            at = following.pop(at)
        if at == start and not unclear.intersection(loop):
            loops.append(np.array(loop))
    return loops
