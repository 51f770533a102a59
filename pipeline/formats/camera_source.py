"""Cameras from whatever file or folder a user has."""

from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.formats.arkit import load_json_poses, load_text_poses
from pipeline.formats.camera_files import NAMES_FILE, find_cameras
from pipeline.formats.case import common_size, sorted_images
from pipeline.formats.colmap_model import load_colmap_model
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.json_text import parse_json
from pipeline.formats.nerfstudio import load_transforms
from pipeline.formats.posed import PosedCameras, check_camera, from_idr, safe_name

UNITS = ("m", "mm")


def load_cameras(path: Path) -> PosedCameras:
    """Read the cameras of any format that `find_cameras` knows.

    Raises:
        InputError: no such format, damaged, or cameras that cannot be.
    """
    found = find_cameras(path)
    readers = {
        "colmap": load_colmap_model,
        "nerfstudio": load_transforms,
        "idr": _load_idr,
        "pose text": load_text_poses,
        "arkit": load_json_poses,
    }
    return readers[found.form](found.place)


def _load_idr(path: Path) -> PosedCameras:
    """IDR cameras; names from `image_names.json` beside the file, else by position.

    In a case they belong to the views in `image/`, which then tells their size.
    """
    cameras = load_idr_cameras(path)
    names_path, images = path.with_name(NAMES_FILE), path.with_name("image")
    named = names_path.is_file()
    names = _names(names_path) if named else [f"{i:06d}" for i in range(len(cameras))]
    size_px = common_size(sorted_images(images)[:1]) if images.is_dir() else None
    posed = from_idr(cameras, names, size_px, str(path))
    with np.load(path, allow_pickle=False) as stored:
        unit = str(stored["unit"]) if "unit" in stored.files else None
    region_given = not np.array_equal(cameras.scale_mat, np.eye(4))
    return PosedCameras(
        [check_camera(camera, str(path)) for camera in posed],
        str(path),
        named,
        unit if unit in UNITS else None,
        np.array(cameras.scale_mat) if region_given else None,
    )


def _names(path: Path) -> list[str]:
    try:
        names = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a list of photo names")
    return [safe_name(name, str(path)) for name in names]
