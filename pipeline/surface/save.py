"""Writing a finished surface."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from pipeline.formats.frame import UNKNOWN
from pipeline.surface.glb import save_glb, save_textured_glb
from pipeline.surface.obj import save_obj

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from pipeline.surface.build import Surface


METRES = {"m": 1.0, "mm": 0.001}
"""Lengths of the units that a world frame can have."""


def save_ply(path: Path, surface: "Surface") -> None:
    """Binary PLY in the world frame: positions, normals, colours, faces."""
    mesh = surface.mesh
    rgba = np.concatenate(
        [surface.colours.rgb, np.full((len(mesh.vertices), 1), 255, dtype=np.uint8)], axis=1
    )
    coloured = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.vertex_normals,
        vertex_colors=rgba,
        process=False,
    )
    path.write_bytes(coloured.export(file_type="ply", vertex_normal=True, encoding="binary"))


def save_surface(
    folder: Path, surface: "Surface", up: NDArray, with_obj: bool = False, unit: str = UNKNOWN
) -> None:
    """Write the mesh in every form that was asked for.

    `mesh.ply` (world frame); `mesh.glb` (turned so that `up` (3,) is +Y, in metres where `unit`,
    the world frame's, is known) and, where there is a texture, `mesh_textured.glb`; with
    `with_obj`, `mesh.obj` + `mesh.mtl` (+ `mesh_texture.png`), world frame.
    """
    save_ply(folder / "mesh.ply", surface)
    mesh, metres = surface.mesh, METRES.get(unit, 1.0)
    save_glb(
        folder / "mesh.glb",
        mesh.vertices,
        np.asarray(mesh.vertex_normals),
        mesh.faces,
        surface.colours.rgb,
        up,
        metres,
    )

    textured = surface.textured
    if textured is not None:
        normals = np.asarray(mesh.vertex_normals)[textured.vertex]
        points = mesh.vertices[textured.vertex]
        jpeg = _encoded(textured.picture, "JPEG", quality=93, subsampling=0)
        save_textured_glb(
            folder / "mesh_textured.glb",
            points,
            normals,
            textured.faces,
            textured.uv,
            jpeg,
            up,
            metres,
        )
    if with_obj:
        save_obj(folder / "mesh.obj", surface)


def _encoded(picture: NDArray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=form, **options)
    return buffer.getvalue()


def mean_camera_up(c2w: NDArray) -> NDArray:
    """Direction (3,) that photos taken upright agree on: the mean of the cameras' -y axes."""
    up: NDArray = -np.asarray(c2w)[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up)
    return up / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
