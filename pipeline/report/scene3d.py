"""Mesh, cameras and points packed for the page's own 3D viewer."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.idr import IdrCameras
from pipeline.report.data import ReportData
from pipeline.report.pictures import webp_uri
from pipeline.surface.decimate import DisplayMesh, decimate
from pipeline.surface.glb import rotation_to_y_up

MAX_FACES = 80_000
MAX_POINTS = 30_000
MAX_TEXTURE_PX = 2048
FRUSTUM_DEPTH = 0.12
"""Length of the drawn camera pyramids, in radii of the region of interest."""


def pack_scene(data: ReportData) -> dict[str, Any]:
    """What `viewer.js` draws, JSON-serialisable; positions in radii, +Y up."""
    frame = _Frame(data)
    packed: dict[str, Any] = {"names": [photo.name for photo in data.registered]}
    shown = data.textured.mesh if data.textured else data.mesh
    if shown is not None:
        packed["mesh"] = _pack_mesh(decimate(shown, MAX_FACES), frame)
    if data.textured is not None:
        picture = data.textured.picture.copy()
        picture.thumbnail((MAX_TEXTURE_PX, MAX_TEXTURE_PX))
        packed["mesh"]["texture"] = webp_uri(picture, quality=85)
    if data.sparse is not None and len(data.sparse):
        packed["points"] = _pack_points(data.sparse.points, data.sparse.rgb, frame)
    for role, cameras in (("before", data.before), ("after", data.after)):
        if cameras is not None:
            packed[role] = _pack_cameras(cameras, data.image_size, frame)
    change = data.pose_change()
    if change is not None:
        packed["change_deg"] = [round(float(value), 4) for value in change[0]]
    return packed


class _Frame:
    """World → viewer: the region of interest becomes the unit sphere, up becomes +Y."""

    def __init__(self, data: ReportData) -> None:
        cameras = data.before or data.after
        if cameras is not None:
            self.centre, self.radius = cameras.centre, cameras.radius
        elif data.mesh is not None:
            low, high = data.mesh.vertices.min(axis=0), data.mesh.vertices.max(axis=0)
            self.centre, self.radius = (low + high) / 2, float(np.linalg.norm(high - low) / 2)
        else:
            self.centre, self.radius = np.zeros(3), 1.0
        self.rotation = rotation_to_y_up(data.up)

    def points(self, points: NDArray) -> NDArray:
        moved: NDArray = (np.asarray(points) - self.centre) / self.radius @ self.rotation.T
        return moved

    def directions(self, directions: NDArray) -> NDArray:
        turned: NDArray = np.asarray(directions) @ self.rotation.T
        return turned


def _base64(array: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _quantised(points: NDArray) -> dict[str, Any]:
    """Positions as 16-bit fractions of their bounding box; padded to 8 bytes each."""
    low = points.min(axis=0)
    size = np.maximum(points.max(axis=0) - low, 1e-9)
    steps = np.zeros((len(points), 4), dtype="<u2")
    steps[:, :3] = np.round((points - low) / size * 65535)
    return {"low": low.tolist(), "size": size.tolist(), "data": _base64(steps)}


def _padded(values: NDArray, dtype: str) -> NDArray:
    padded = np.zeros((len(values), 4), dtype=dtype)
    padded[:, :3] = values
    return padded


def _pack_mesh(mesh: DisplayMesh, frame: _Frame) -> dict[str, Any]:
    normals = np.round(np.clip(frame.directions(mesh.normals), -1, 1) * 127)
    packed = {
        "positions": _quantised(frame.points(mesh.vertices)),
        "normals": _base64(_padded(normals, "i1")),
        "colours": _base64(_padded(mesh.rgb, "u1")),
        "indices": _base64(mesh.faces.astype("<u4")),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
    }
    if mesh.uv is not None:
        packed["uv"] = _base64(np.round(np.clip(mesh.uv, 0, 1) * 65535).astype("<u2"))
    return packed


def _pack_points(points: NDArray, rgb: NDArray, frame: _Frame) -> dict[str, Any]:
    points = frame.points(points)
    near = np.flatnonzero(np.linalg.norm(points, axis=1) < 6.0)
    if len(near) > MAX_POINTS:
        near = near[np.linspace(0, len(near) - 1, MAX_POINTS).astype(np.int64)]
    if len(near) == 0:
        return {"count": 0}
    return {
        "positions": _quantised(points[near]),
        "colours": _base64(_padded(rgb[near], "u1")),
        "count": len(near),
    }


def _pack_cameras(
    cameras: IdrCameras, image_size: tuple[int, int] | None, frame: _Frame
) -> list[list[float]]:
    """Five points a camera: its centre and the corners of its pyramid, 15 numbers."""
    packed = []
    for K, c2w in zip(cameras.K, cameras.c2w, strict=True):
        width, height = image_size or (2 * K[0, 2], 2 * K[1, 2])
        corners_px = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]])
        corners = corners_px @ np.linalg.inv(K).T * FRUSTUM_DEPTH * frame.radius
        in_camera = np.concatenate([np.zeros((1, 3)), corners])
        world = in_camera @ c2w[:3, :3].T + c2w[:3, 3]
        packed.append(np.round(frame.points(world), 6).reshape(-1).tolist())
    return packed
