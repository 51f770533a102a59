"""Rays against a triangle mesh (Embree): which triangle is hit first, and how far away.

Embree ships inside its wheel and needs neither a display nor a graphics driver.
"""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from pipeline.errors import InputError

RAYS_PER_CALL = 1 << 20


@dataclass(frozen=True)
class Hits:
    """First hits of R rays.

    Attributes:
        distance: (R,) distance along the unit direction, inf where nothing is hit.
        face: (R,) index of the triangle, -1 where nothing is hit.
        normal: (R, 3) unit normal of the triangle by its winding, 0 where nothing is hit.
        uv: (R, 2) weights of the triangle's second and third corner at the hit.
    """

    distance: NDArray
    face: NDArray
    normal: NDArray
    uv: NDArray

    @property
    def hit(self) -> NDArray:
        """(R,) whether anything was hit."""
        return self.face >= 0


class RayScene:
    """A triangle mesh that rays can be cast at."""

    def __init__(self, vertices: NDArray, faces: NDArray) -> None:
        """
        Args:
            vertices: (V, 3) positions.
            faces: (F, 3) indices into the vertices.

        Raises:
            InputError: there is no triangle.
        """
        if len(faces) == 0:
            raise InputError("rays can only be cast at a mesh with triangles, got none")
        self._scene = EmbreeScene()
        corners = np.asarray(vertices, dtype=np.float32)[np.asarray(faces, dtype=np.int64)]
        self._geometry = TriangleMesh(self._scene, np.ascontiguousarray(corners))

    def cast(self, origins: NDArray, directions: NDArray) -> Hits:
        """First hits of rays with origins (R, 3) or (3,) and unit directions (R, 3)."""
        directions = np.ascontiguousarray(directions, dtype=np.float32)
        origins = np.broadcast_to(np.asarray(origins, dtype=np.float32), directions.shape)
        parts = [
            self._cast(origins[start : start + RAYS_PER_CALL], directions[start:][:RAYS_PER_CALL])
            for start in range(0, max(len(directions), 1), RAYS_PER_CALL)
        ]
        distance, face, normal, uv = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Hits(distance, face, normal, uv)

    def _cast(
        self, origins: NDArray, directions: NDArray
    ) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        if len(directions) == 0:
            return np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros((0, 2))
        found = self._scene.run(np.ascontiguousarray(origins), directions, output=True)
        face = found["primID"].astype(np.int64)
        hit = face >= 0
        distance = np.where(hit, found["tfar"], np.inf).astype(np.float64)
        normal = np.where(hit[:, None], found["Ng"], 0.0)
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        uv = np.stack([found["u"], found["v"]], axis=1)
        return distance, face, normal / np.where(length > 0, length, 1.0), uv

    def sees(self, viewpoint: NDArray, targets: NDArray, tolerance: float) -> NDArray:
        """Whether each of the targets (T, 3) is seen from the viewpoint (3,).

        A target counts as seen when nothing lies in front of it by more than `tolerance`
        (scene units): targets usually lie on the very mesh that is asked.
        """
        offset = np.asarray(targets, dtype=np.float64) - viewpoint
        distance = np.linalg.norm(offset, axis=1)
        directions = offset / np.maximum(distance, 1e-12)[:, None]
        return self.cast(viewpoint, directions).distance >= distance - tolerance
