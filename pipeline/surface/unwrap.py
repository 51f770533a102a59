"""Texture charts: pieces of surface that take their texture from one photo, packed into a square.

A chart's shape is what its photo shows, so texels are the photo's own pixels, unstretched; xatlas
does the packing.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
import xatlas
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.geometry.cameras import project
from pipeline.surface.view_choice import UNSEEN
from pipeline.surface.views import Views

PADDING_PX = 3
FILL = 0.62
"""Share of the texture that packed charts can be expected to fill."""


@dataclass(frozen=True)
class Unwrapped:
    """A mesh cut into charts.

    Attributes:
        vertex: (W,) vertex of the mesh that each corner point is; several share one at seams.
        uv_px: (W, 2) place in the texture, x right, y down, pixel centres at half-integers.
        faces: (F, 3) into these; same order and winding as the mesh.
        chart: (W,) number of the chart.
        size_px: width and height of the texture.
    """

    vertex: NDArray
    uv_px: NDArray
    faces: NDArray
    chart: NDArray
    size_px: tuple[int, int]


def unwrap(mesh: trimesh.Trimesh, label: NDArray, views: Views, max_size_px: int) -> Unwrapped:
    """Cut and pack.

    Args:
        mesh: frame of the views.
        label: (F,) photo of each face, or `UNSEEN`.
        max_size_px: the texture is scaled down to this side.
    """
    chart_of_face = _charts(mesh, label)
    corner_vertex, corner_chart = mesh.faces.reshape(-1), np.repeat(chart_of_face, 3)
    key = corner_chart * len(mesh.vertices) + corner_vertex
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    faces = index.reshape(-1, 3)
    vertex, chart = corner_vertex[first], corner_chart[first]
    plane = _flattened(mesh, label, views, vertex, np.repeat(label, 3)[first], faces)
    uv_px, size_px = _pack(plane, faces, chart_of_face, max_size_px)
    return Unwrapped(vertex, uv_px, faces, chart, size_px)


def _charts(mesh: trimesh.Trimesh, label: NDArray) -> NDArray:
    """Chart (F,) of each face: joined by edges, of one photo; unseen ones also of one direction."""
    side = np.abs(mesh.face_normals).argmax(axis=1)
    sign = np.take_along_axis(mesh.face_normals, side[:, None], axis=1)[:, 0] > 0
    kind = np.where(label == UNSEEN, -1 - (2 * side + sign), label)
    edges = np.asarray(mesh.face_adjacency)
    joined = edges[kind[edges[:, 0]] == kind[edges[:, 1]]]
    links = coo_matrix((np.ones(len(joined)), joined.T), shape=(len(kind), len(kind)))
    charts: NDArray = connected_components(links, directed=False)[1]
    return charts


def _flattened(
    mesh: trimesh.Trimesh,
    label: NDArray,
    views: Views,
    vertex: NDArray,
    vertex_label: NDArray,
    faces: NDArray,
) -> NDArray:
    """Positions (W, 2) in the chart's own plane, photo pixels.

    A photo's chart lies as in the photo; an unseen one as looked at along its main direction.
    """
    plane = np.zeros((len(vertex), 2))
    for index in np.unique(vertex_label):
        chosen = vertex_label == index
        if index == UNSEEN:
            continue
        xy_px, _ = project(views.K[index], views.c2w[index], mesh.vertices[vertex[chosen]])
        plane[chosen] = xy_px
    unseen_faces = np.flatnonzero(label == UNSEEN)
    if len(unseen_faces):
        normals = mesh.face_normals[unseen_faces]
        axis = np.abs(normals).argmax(axis=1)
        corner, corner_axis = faces[unseen_faces].reshape(-1), np.repeat(axis, 3)
        across = np.array([[1, 2], [0, 2], [0, 1]])[corner_axis]
        points = mesh.vertices[vertex[corner]]
        plane[corner] = np.take_along_axis(points, across, axis=1) * _pixels_per_length(mesh, views)
    return plane


def _pixels_per_length(mesh: trimesh.Trimesh, views: Views) -> float:
    """Typical size of a mesh unit in the photos; unseen surface gets a quarter of that."""
    distance = np.linalg.norm(views.c2w[:, :3, 3] - mesh.centroid, axis=1)
    return float(np.median(views.K[:, 0, 0] / distance)) / 4


def _pack(
    plane: NDArray, faces: NDArray, chart_of_face: NDArray, max_size_px: int
) -> tuple[NDArray, tuple[int, int]]:
    """Places (W, 2) in the texture and its size; scaled down where the charts would not fit."""
    a, b, c = plane[faces].transpose(1, 0, 2)
    e, f = b - a, c - a
    area = float(np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]).sum() / 2)
    scale = min(1.0, np.sqrt(FILL * max_size_px**2 / max(area, 1e-12)))
    options = xatlas.PackOptions()
    options.padding, options.bilinear = PADDING_PX, True
    options.rotate_charts = options.rotate_charts_to_axis = False
    for _ in range(12):
        atlas = xatlas.Atlas()
        # a material a chart keeps xatlas from joining what only touches in the plane
        atlas.add_uv_mesh(
            plane.astype(np.float32),
            faces.astype(np.uint32),
            face_materials=chart_of_face.astype(np.uint32)[:, None],
        )
        options.texels_per_unit = scale
        options.resolution = 0
        atlas.generate(pack_options=options)
        if max(atlas.width, atlas.height) <= max_size_px and atlas.atlas_count == 1:
            break
        scale *= 0.92
    original, _, uv = atlas.get_mesh(0)
    uv_px = np.zeros((len(plane), 2))
    uv_px[original] = uv * [atlas.width, atlas.height]
    return uv_px, (int(atlas.width), int(atlas.height))
