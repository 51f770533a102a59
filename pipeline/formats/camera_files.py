"""Which files hold cameras, and in which format; looks without reading, loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError

TRANSFORMS_FILE = "transforms.json"
NAMES_FILE = "image_names.json"
CASE_FILES = ("cameras_colmap.npz", "cameras_arkit.npz", "cameras.npz")
"""In the order of preference: what a case wants refined, before its truth."""
_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0")

CameraFormat = Literal["colmap", "nerfstudio", "idr", "pose text", "arkit"]


@dataclass(frozen=True)
class CameraFiles:
    """Where somebody's cameras are.

    Attributes:
        form: how to read them.
        place: the file, or the folder that holds the files.
        files: all files that make them up; their content identifies the cameras.
    """

    form: CameraFormat
    place: Path
    files: list[Path]


def find_cameras(path: Path) -> CameraFiles:
    """Recognise the format of a file or folder.

    In this order: a `.json` (nerfstudio) or `.npz` (IDR) file; a folder with a COLMAP model (or
    `sparse/0` in it), a `transforms.json`, a case's npz, MobileBrick's `pose` and `intrinsic`, or
    ARKit frames.

    Raises:
        InputError: nothing there, or none of these.
    """
    if not path.exists():
        raise InputError(f"the cameras {path} do not exist", hint="check the path")
    found = _in_folder(path) if path.is_dir() else _one_file(path)
    if found is None:
        raise InputError(
            f"no cameras recognised in {path}",
            hint="expected a COLMAP model (cameras and images, .bin or .txt), nerfstudio's"
            f" {TRANSFORMS_FILE}, a case's {CASE_FILES[0]} (IDR convention), MobileBrick's pose/"
            " and intrinsic/, or ARKit frames (.json)",
        )
    return found


def colmap_model_files(folder: Path) -> list[Path] | None:
    """The two files of a COLMAP model in `folder`, binary preferred; None if there is none."""
    for suffix in (".bin", ".txt"):
        files = [folder / f"cameras{suffix}", folder / f"images{suffix}"]
        if all(path.is_file() for path in files):
            return files
    return None


def json_pose_files(folder: Path) -> list[Path]:
    """The frames of ARKit's scanner app in `folder`, by name."""
    mark = b'"cameraPoseARFrame"'
    return sorted(p for p in folder.glob("*.json") if p.is_file() and mark in p.read_bytes())


def _one_file(path: Path) -> CameraFiles | None:
    if path.suffix.lower() == ".json":
        return CameraFiles("nerfstudio", path, [path])
    if path.suffix.lower() == ".npz":
        names = path.with_name(NAMES_FILE)
        return CameraFiles("idr", path, [path, names] if names.is_file() else [path])
    if path.name in ("cameras.bin", "cameras.txt", "images.bin", "images.txt"):
        return _in_folder(path.parent)
    return None


def _in_folder(folder: Path) -> CameraFiles | None:
    for below in _MODEL_FOLDERS:
        files = colmap_model_files(folder / below)
        if files:
            return CameraFiles("colmap", folder / below, files)
    for name in (TRANSFORMS_FILE, *CASE_FILES):
        if (folder / name).is_file():
            return _one_file(folder / name)
    poses = sorted((folder / "pose").glob("*.txt"))
    if poses:
        lenses = sorted((folder / "intrinsic").glob("*.txt"))
        return CameraFiles("pose text", folder, [*poses, *lenses])
    frames = json_pose_files(folder)
    return CameraFiles("arkit", folder, frames) if frames else None
