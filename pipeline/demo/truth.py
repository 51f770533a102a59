"""What the demo writes: photos with a camera's EXIF, and the exact truth in metres."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from pipeline.demo.camera import Lens
from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras

METRES_PER_UNIT = 0.1
_JPEG_QUALITY = 92
_EXIF_MAKE, _EXIF_MODEL, _EXIF_DATE = 0x010F, 0x0110, 0x0132
_EXIF_IFD, _EXIF_FOCAL, _EXIF_FOCAL_35MM = 0x8769, 0x920A, 0xA405
_SENSOR_WIDTH_MM = 6.17


def save_photo(path: Path, image: NDArray[np.uint8], lens: Lens, index: int) -> None:
    """JPEG of an (h, w, 3) image with maker, model, date and focal length.

    As with real cameras the 35 mm focal length is a whole number, so only about right.
    """
    exif = Image.Exif()
    exif[_EXIF_MAKE] = "PoRF"
    exif[_EXIF_MODEL] = "Demo"
    exif[_EXIF_DATE] = f"2024:05:04 10:{index // 60:02d}:{index % 60:02d}"
    details = exif.get_ifd(_EXIF_IFD)
    details[_EXIF_FOCAL] = round(lens.focal_px / lens.width * _SENSOR_WIDTH_MM, 1)
    details[_EXIF_FOCAL_35MM] = round(lens.focal_px / lens.width * 36.0)
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY, subsampling=0, exif=exif)


def save_truth(
    folder: Path,
    names: list[str],
    lens: Lens,
    c2w: NDArray[np.float64],
    *,
    mesh: trimesh.Trimesh,
    table: trimesh.Trimesh,
) -> None:
    """Write cameras, names, lens and meshes; lengths go from model units to metres.

    Args:
        c2w: (N, 4, 4) poses in model units, in the order of ``names``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    c2w_m = c2w.copy()
    c2w_m[:, :3, 3] *= METRES_PER_UNIT
    vertices_m = mesh.vertices * METRES_PER_UNIT
    centre_m = (vertices_m.min(axis=0) + vertices_m.max(axis=0)) / 2
    radius_m = float(np.linalg.norm(vertices_m - centre_m, axis=1).max())
    cameras = IdrCameras(
        np.broadcast_to(lens.K, (len(c2w), 3, 3)), c2w_m, make_scale_mat(centre_m, radius_m)
    )
    save_idr_cameras(folder / "cameras.npz", cameras, unit="m")
    (folder / "image_names.json").write_text(json.dumps(names, indent=1) + "\n")
    description = {
        "model": "RADIAL, pixel centres at integers",
        **asdict(lens),
        "unit": "m",
        "object_radius": radius_m,
    }
    (folder / "camera.json").write_text(json.dumps(description, indent=1) + "\n")
    object_m = trimesh.Trimesh(vertices_m, mesh.faces, process=False)
    table_m = trimesh.Trimesh(table.vertices * METRES_PER_UNIT, table.faces, process=False)
    object_m.export(folder / "mesh_gt.ply")
    trimesh.util.concatenate([object_m, table_m]).export(folder / "scene_gt.ply")
