"""Binary glTF (GLB) of a mesh with vertex colours.

Written by hand because viewers show the usual exports wrongly: glTF wants linear vertex colours
(photos are sRGB), a rough non-metal material, and both sides of an open mesh drawn.
Source: glTF 2.0 specification, sections 3.7 (meshes), 3.9 (materials), 4 (GLB).
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942


def rotation_to_y_up(up: NDArray) -> NDArray:
    """Rotation (3, 3) that takes the direction `up` (3,) to +Y by the shortest way."""
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    y = np.array([0.0, 1.0, 0.0])
    cosine = float(up @ y)
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    vx, vy, vz = np.cross(up, y)
    cross = np.array([[0, -vz, vy], [vz, 0, -vx], [-vy, vx, 0]])
    rotation: NDArray = np.eye(3) + cross + cross @ cross / (1 + cosine)
    return rotation


def srgb_to_linear(rgb: NDArray) -> NDArray:
    """Linear intensities in [0, 1] of sRGB bytes (IEC 61966-2-1)."""
    value = np.asarray(rgb, dtype=np.float64) / 255
    linear: NDArray = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear


def save_glb(
    path: Path,
    vertices: NDArray,
    normals: NDArray,
    faces: NDArray,
    rgb: NDArray,
    up: NDArray,
    metres: float = 1.0,
) -> None:
    """Write a mesh that viewers show upright, standing at the origin, in glTF's metres.

    The vertices stay in their own frame; the node's matrix turns `up` to glTF's +Y and scales.

    Args:
        vertices: (V, 3) positions.
        normals: (V, 3) unit normals.
        faces: (F, 3).
        rgb: (V, 3) uint8 sRGB.
        up: (3,) direction in the vertices' frame.
        metres: length of their unit; 1 where it is not known.
    """
    rgba = np.concatenate([srgb_to_linear(rgb), np.ones((len(rgb), 1))], axis=1)
    arrays = [
        ("POSITION", np.asarray(vertices).astype("<f4"), _FLOAT, "VEC3"),
        ("NORMAL", np.asarray(normals).astype("<f4"), _FLOAT, "VEC3"),
        ("COLOR_0", np.round(rgba * 65535).astype("<u2"), _UINT16, "VEC4"),
        ("indices", np.asarray(faces).reshape(-1).astype("<u4"), _UINT32, "SCALAR"),
    ]
    document, binary = _document(arrays, _standing(vertices, up, metres), "photo colours")
    _write(path, document, binary)


def save_textured_glb(
    path: Path,
    vertices: NDArray,
    normals: NDArray,
    faces: NDArray,
    uv: NDArray,
    jpeg: bytes,
    up: NDArray,
    metres: float = 1.0,
) -> None:
    """Write a mesh with its texture inside, upright as by `save_glb`.

    Args:
        vertices, normals: (V, 3); a vertex at a seam occurs once for each of its places.
        faces: (F, 3).
        uv: (V, 2) in [0, 1] from the picture's top left corner, as glTF has it.
        jpeg: the picture as a JPEG file.
        up, metres: as by `save_glb`.
    """
    arrays = [
        ("POSITION", np.asarray(vertices).astype("<f4"), _FLOAT, "VEC3"),
        ("NORMAL", np.asarray(normals).astype("<f4"), _FLOAT, "VEC3"),
        ("TEXCOORD_0", np.asarray(uv).astype("<f4"), _FLOAT, "VEC2"),
        ("indices", np.asarray(faces).reshape(-1).astype("<u4"), _UINT32, "SCALAR"),
    ]
    document, binary = _document(arrays, _standing(vertices, up, metres), "photo texture")
    document["bufferViews"].append(
        {"buffer": 0, "byteOffset": len(binary), "byteLength": len(jpeg)}
    )
    binary += jpeg
    document["buffers"][0]["byteLength"] = len(binary)
    document["images"] = [
        {"bufferView": len(document["bufferViews"]) - 1, "mimeType": "image/jpeg"}
    ]
    document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
    document["textures"] = [{"source": 0, "sampler": 0}]
    document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    _write(path, document, binary)


def _standing(vertices: NDArray, up: NDArray, metres: float) -> NDArray:
    """Matrix (4, 4) that turns `up` to +Y, sets the mesh on the origin and scales to metres."""
    rotation = rotation_to_y_up(up)
    turned = np.asarray(vertices) @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    node = np.eye(4)
    node[:3, :3] = rotation
    node[:3, 3] = [-(low[0] + high[0]) / 2, -low[1], -(low[2] + high[2]) / 2]
    node[:3] *= metres
    return node


def _document(
    arrays: list[tuple[str, NDArray, int, str]], node: NDArray, material_name: str
) -> tuple[dict[str, Any], bytes]:
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    attributes: dict[str, int] = {}
    binary = b""
    for index, (name, array, component, kind) in enumerate(arrays):
        target = _INDICES if name == "indices" else _VERTICES
        content = array.tobytes()
        views.append(
            {"buffer": 0, "byteOffset": len(binary), "byteLength": len(content), "target": target}
        )
        accessor = {
            "bufferView": index,
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if name == "POSITION":
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        if name == "COLOR_0":
            accessor["normalized"] = True
        if name != "indices":
            attributes[name] = index
        accessors.append(accessor)
        binary += content
    material = {
        "name": material_name,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "doubleSided": True,
    }
    primitive = {"attributes": attributes, "indices": len(arrays) - 1, "material": 0}
    document = {
        "asset": {"version": "2.0", "generator": "porf-pipeline"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        # glTF matrices are column-major
        "nodes": [{"mesh": 0, "name": "surface", "matrix": node.T.reshape(-1).tolist()}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return document, binary


def _write(path: Path, document: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    with path.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
        file.write(struct.pack("<II", len(binary), _BINARY_CHUNK) + binary)
