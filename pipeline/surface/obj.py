"""Wavefront OBJ with its material file: what every modelling program reads.

Vertex colours follow the positions (`v x y z r g b`), a common extension; the texture, where there
is one, lies beside as PNG. OBJ counts from 1 and has the texture's origin at the bottom left.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pipeline.surface.build import Surface

MATERIAL = "surface"


def save_obj(path: Path, surface: "Surface") -> None:
    """Write `<name>.obj`, `<name>.mtl` and, with a texture, `<name>_texture.png`; world frame."""
    mesh, textured = surface.mesh, surface.textured
    normals = np.asarray(mesh.vertex_normals)
    lines = [f"mtllib {path.with_suffix('.mtl').name}", f"o {path.stem}"]
    values = np.c_[mesh.vertices, surface.colours.rgb / 255.0]
    lines += _rows("v", values, "%.9g %.9g %.9g %.4f %.4f %.4f")
    material = [f"newmtl {MATERIAL}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    corner = np.asarray(mesh.faces) + 1
    if textured is None:
        lines += _rows("vn", normals, "%.5f %.5f %.5f")
        lines += [f"usemtl {MATERIAL}", *_rows("f", _columns(corner, corner), _FACE_PLAIN)]
    else:
        picture = path.with_name(f"{path.stem}_texture.png")
        Image.fromarray(textured.picture).save(picture)
        material.append(f"map_Kd {picture.name}")
        lines += _rows("vt", textured.uv * [1, -1] + [0, 1], "%.7f %.7f")
        lines += _rows("vn", normals, "%.5f %.5f %.5f")
        columns = _columns(corner, textured.faces + 1, corner)
        lines += [f"usemtl {MATERIAL}", *_rows("f", columns, _FACE_TEXTURED)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.with_suffix(".mtl").write_text("\n".join(material) + "\n", encoding="utf-8")


_FACE_PLAIN = "%d//%d %d//%d %d//%d"
_FACE_TEXTURED = "%d/%d/%d %d/%d/%d %d/%d/%d"


def _columns(*indices: NDArray) -> NDArray:
    """Indices (F, 3) each, interleaved corner by corner."""
    return np.stack(indices, axis=2).reshape(len(indices[0]), -1)


def _rows(keyword: str, values: NDArray, form: str) -> list[str]:
    return [f"{keyword} {form % tuple(row)}" for row in values.tolist()]
