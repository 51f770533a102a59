"""Fewer triangles for the same shape."""

import fast_simplification
import numpy as np
import trimesh


def simplify(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """The mesh with about `faces` triangles; itself where it has no more.

    Source: Garland and Heckbert, "Surface simplification using quadric error metrics", SIGGRAPH
    1997, by the library fast-simplification.
    """
    if len(mesh.faces) <= faces:
        return mesh
    vertices, kept = fast_simplification.simplify(
        np.asarray(mesh.vertices, dtype=np.float32),
        np.asarray(mesh.faces, dtype=np.int32),
        target_count=faces,
        agg=4.0,
    )
    used, renumbered = np.unique(kept, return_inverse=True)
    return trimesh.Trimesh(
        np.asarray(vertices, dtype=np.float64)[used], renumbered.reshape(-1, 3), process=False
    )
