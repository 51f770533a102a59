"""Which photo each triangle takes its texture from: a good view, and its neighbours' if it can.

Source: Lempitsky and Ivanov, "Seamless mosaicing of image-based texture maps", CVPR 2007: a data
term by view quality and a Potts term along the edges; here minimised over each triangle's few best
views by iterated conditional modes, in turn with moves of whole small patches, which single
triangles cannot make.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.geometry.cameras import project
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress, Progress
from pipeline.surface.views import Views

CANDIDATES = 8
SWEEPS = 24
ROUNDS = 6
SMALL_PATCH = 60
"""Patches of fewer triangles are offered as a whole to the photos beside them."""
SEAM_COST = 1.0
"""What an edge between two views costs, against ln(best area / area) of a worse view."""
MIN_COSINE = 0.15
EDGE_PX = 2.0
"""Triangles nearer than this to the image's border are not taken from it."""
UNSEEN = -1


@dataclass(frozen=True)
class Candidates:
    """The best views of each triangle.

    Attributes:
        view: (F, C) indices, best first; `UNSEEN` where there are fewer.
        area_px: (F, C) area of the triangle in that photo; 0 there.
    """

    view: NDArray
    area_px: NDArray


def best_views(
    mesh: trimesh.Trimesh, views: Views, tolerance: float, progress: Progress | None = None
) -> Candidates:
    """Up to `CANDIDATES` photos that see each triangle whole: its corners and its centre.

    Args:
        mesh: normals outward; frame of the views.
        tolerance: how far behind the first hit a point may lie and still be seen (mesh units).
    """
    progress = progress or NullProgress()
    scene = RayScene(mesh.vertices, mesh.faces)
    view = np.full((len(mesh.faces), CANDIDATES), UNSEEN)
    area = np.zeros((len(mesh.faces), CANDIDATES))
    for index in range(len(views)):
        seen, seen_area = _seen_faces(mesh, scene, views, index, tolerance)
        weakest = area[seen].argmin(axis=1)
        better = seen_area > area[seen, weakest]
        seen, weakest = seen[better], weakest[better]
        view[seen, weakest], area[seen, weakest] = index, seen_area[better]
        progress.advance("views of faces", index + 1, len(views))
    order = np.argsort(-area, axis=1, kind="stable")
    return Candidates(
        np.take_along_axis(view, order, axis=1), np.take_along_axis(area, order, axis=1)
    )


def _seen_faces(
    mesh: trimesh.Trimesh, scene: RayScene, views: Views, index: int, tolerance: float
) -> tuple[NDArray, NDArray]:
    """Faces that view `index` sees whole, and their areas in it, px²."""
    c2w = views.c2w[index]
    xy_px, depth = project(views.K[index], c2w, mesh.vertices)
    limit = np.array([views.width, views.height]) - 1 - EDGE_PX
    with np.errstate(invalid="ignore"):
        inside = (depth > 0) & (xy_px >= EDGE_PX).all(axis=1) & (xy_px <= limit).all(axis=1)
    to_camera = c2w[:3, 3] - mesh.triangles_center
    cosine = np.einsum("ij,ij->i", mesh.face_normals, to_camera)
    cosine /= np.maximum(np.linalg.norm(to_camera, axis=1), 1e-12)
    faces = np.flatnonzero((cosine > MIN_COSINE) & inside[mesh.faces].all(axis=1))
    corners = np.unique(mesh.faces[faces])
    free = np.zeros(len(mesh.vertices), dtype=bool)
    free[corners] = scene.sees(c2w[:3, 3], mesh.vertices[corners], tolerance)
    faces = faces[free[mesh.faces[faces]].all(axis=1)]
    faces = faces[scene.sees(c2w[:3, 3], mesh.triangles_center[faces], tolerance)]
    a, b, c = xy_px[mesh.faces[faces]].transpose(1, 0, 2)
    e, f = b - a, c - a
    return faces, np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]) / 2


def choose_views(mesh: trimesh.Trimesh, candidates: Candidates, seed: int = 0) -> NDArray:
    """The photo (F,) of each triangle; `UNSEEN` where none sees it.

    Args:
        seed: of the order in which triangles reconsider; the result hardly depends on it.
    """
    known = candidates.view != UNSEEN
    best = np.maximum(candidates.area_px[:, :1], 1e-12)
    cost = np.where(known, np.log(best / np.maximum(candidates.area_px, 1e-12)), np.inf)
    neighbours = _neighbours(mesh)
    label = candidates.view[:, 0].copy()
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        label = _improved(label, candidates, cost, neighbours, rng)
        merged = _small_patches_joined(mesh, label, candidates)
        if np.array_equal(merged, label):
            break
        label = merged
    return label


def _improved(
    label: NDArray,
    candidates: Candidates,
    cost: NDArray,
    neighbours: NDArray,
    rng: np.random.Generator,
) -> NDArray:
    """Labels after every triangle chose anew what is best for it and its neighbours."""
    label, seen = label.copy(), candidates.view[:, 0] != UNSEEN
    for _ in range(SWEEPS):
        around = np.where(neighbours >= 0, label[neighbours], UNSEEN)
        same = (candidates.view[:, :, None] == around[:, None, :]).sum(axis=2)
        beside = (around != UNSEEN).sum(axis=1)
        total = cost + SEAM_COST * (beside[:, None] - same)
        wanted = np.take_along_axis(candidates.view, total.argmin(axis=1)[:, None], axis=1)[:, 0]
        changes = seen & (wanted != label)
        if not changes.any():
            break
        # only some at a time, else neighbours would swap for ever
        changes &= rng.random(len(label)) < 0.5
        label[changes] = wanted[changes]
    return label


def _small_patches_joined(mesh: trimesh.Trimesh, label: NDArray, candidates: Candidates) -> NDArray:
    """Labels where patches of few triangles took over the photo beside them that sees them whole.

    Where there are several, the one with the longest common border.
    """
    edges = np.asarray(mesh.face_adjacency)
    same = edges[label[edges[:, 0]] == label[edges[:, 1]]]
    links = coo_matrix((np.ones(len(same)), same.T), shape=(len(label), len(label)))
    patch = connected_components(links, directed=False)[1]
    size = np.bincount(patch)
    small = (size[patch] < SMALL_PATCH) & (label != UNSEEN)
    both = np.concatenate([edges, edges[:, ::-1]])
    border = both[small[both[:, 0]] & (patch[both[:, 0]] != patch[both[:, 1]])]
    border = border[label[border[:, 1]] != UNSEEN]
    views = int(candidates.view.max()) + 1
    wanted, length = np.unique(
        patch[border[:, 0]] * views + label[border[:, 1]], return_counts=True
    )
    faces, _ = np.nonzero(small[:, None] & (candidates.view != UNSEEN))
    possible = candidates.view[small][candidates.view[small] != UNSEEN]
    keys, covered = np.unique(patch[faces] * views + possible, return_counts=True)
    whole = keys[covered == size[keys // views]]
    fits = np.isin(wanted, whole)
    wanted, length = wanted[fits], length[fits]
    order = np.argsort(length, kind="stable")  # the longest border comes last and stays
    target = np.full(len(size), UNSEEN)
    target[wanted[order] // views] = wanted[order] % views
    moves = small & (target[patch] != UNSEEN)
    joined: NDArray = np.where(moves, target[patch], label)
    return joined


def _neighbours(mesh: trimesh.Trimesh) -> NDArray:
    """(F, 3) faces across the edges, -1 at a border."""
    found = np.full((len(mesh.faces), 3), -1)
    pairs = np.asarray(mesh.face_adjacency)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.argsort(both[:, 0], kind="stable")
    face, other = both[order].T
    rank = np.arange(len(face)) - np.searchsorted(face, face)
    fits = rank < 3
    found[face[fits], rank[fits]] = other[fits]
    return found
