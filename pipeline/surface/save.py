"""Writing a finished surface."""

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.surface.build import Surface
from pipeline.surface.glb import save_glb


def save_ply(path: Path, surface: Surface) -> None:
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


def save_surface(folder: Path, surface: Surface, up: NDArray) -> None:
    """Write `mesh.ply` (world frame) and `mesh.glb` (turned so that `up` (3,) is +Y)."""
    save_ply(folder / "mesh.ply", surface)
    mesh = surface.mesh
    save_glb(
        folder / "mesh.glb",
        mesh.vertices,
        np.asarray(mesh.vertex_normals),
        mesh.faces,
        surface.colours.rgb,
        up,
    )


def mean_camera_up(c2w: NDArray) -> NDArray:
    """Direction (3,) that photos taken upright agree on: the mean of the cameras' -y axes."""
    up: NDArray = -np.asarray(c2w)[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up)
    return up / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
