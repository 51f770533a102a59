"""Cameras from whatever file or folder a user has: which format it is, and reading it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.formats.arkit import (
    json_pose_files,
    load_json_poses,
    load_text_poses,
    text_pose_files,
)
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.nerfstudio import FILE_NAME, load_transforms
from pipeline.formats.posed import PosedCameras, check_camera, from_idr, safe_name

NAMES_FILE = "image_names.json"
CASE_FILES = ("cameras_colmap.npz", "cameras_arkit.npz", "cameras.npz")
"""In the order of preference: what a case wants refined, before its truth."""
_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0")


@dataclass(frozen=True)
class CameraSource:
    """Where the cameras are, and how to read them.

    Attributes:
        files: all files that make them up; they identify the result.
        load: reads them.
    """

    files: list[Path]
    load: Callable[[], PosedCameras]


def find_cameras(path: Path) -> CameraSource:
    """Recognise the format of a file or folder.

    In this order: a `.json` (nerfstudio) or `.npz` (IDR) file; a folder with a COLMAP model (or
    `sparse/0` in it), a `transforms.json`, a case's npz, MobileBrick's `pose` and `intrinsic`, or
    ARKit frames.

    Raises:
        InputError: nothing there, or none of these.
    """
    if not path.exists():
        raise InputError(f"the cameras {path} do not exist", hint="check the path")
    found = _in_folder(path) if path.is_dir() else _from_file(path)
    if found is None:
        raise InputError(
            f"no cameras recognised in {path}",
            hint="expected a COLMAP model (cameras and images, .bin or .txt), nerfstudio's"
            f" {FILE_NAME}, a case's {CASE_FILES[0]} (IDR convention), MobileBrick's pose/ and"
            " intrinsic/, or ARKit frames (.json)",
        )
    return found


def load_cameras(path: Path) -> PosedCameras:
    """Read the cameras of any known format; see `find_cameras`."""
    return find_cameras(path).load()


def _from_file(path: Path) -> CameraSource | None:
    if path.suffix.lower() == ".json":
        return CameraSource([path], partial(load_transforms, path))
    if path.suffix.lower() == ".npz":
        names = path.with_name(NAMES_FILE)
        files = [path, names] if names.is_file() else [path]
        return CameraSource(files, partial(_load_idr, path))
    if path.name in ("cameras.bin", "cameras.txt", "images.bin", "images.txt"):
        return _in_folder(path.parent)
    return None


def _in_folder(folder: Path) -> CameraSource | None:
    from pipeline.formats.colmap_model import (  # noqa: PLC0415  (loads pycolmap)
        colmap_model_files,
        load_colmap_model,
    )

    for below in _MODEL_FOLDERS:
        model = folder / below
        files = colmap_model_files(model) if model.is_dir() else None
        if files:
            return CameraSource(files, partial(load_colmap_model, model))
    for name in (FILE_NAME, *CASE_FILES):
        if (folder / name).is_file():
            return _from_file(folder / name)
    files = text_pose_files(folder)
    if files:
        return CameraSource(files, partial(load_text_poses, folder))
    files = json_pose_files(folder)
    return CameraSource(files, partial(load_json_poses, folder)) if files else None


def _load_idr(path: Path) -> PosedCameras:
    """IDR cameras; names from `image_names.json` beside the file, else by position."""
    cameras = load_idr_cameras(path)
    names_path = path.with_name(NAMES_FILE)
    named = names_path.is_file()
    names = _names(names_path) if named else [f"{i:06d}" for i in range(len(cameras))]
    posed = from_idr(cameras, names, None, str(path))
    with np.load(path, allow_pickle=False) as stored:
        unit = str(stored["unit"]) if "unit" in stored.files else None
    given = not np.array_equal(cameras.scale_mat, np.eye(4))
    return PosedCameras(
        [check_camera(camera, str(path)) for camera in posed],
        str(path),
        named,
        unit if unit in ("m", "mm") else None,
        np.array(cameras.scale_mat) if given else None,
    )


def _names(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a list of photo names")
    return [safe_name(name, str(path)) for name in names]
