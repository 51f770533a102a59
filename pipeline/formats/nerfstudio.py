"""nerfstudio's `transforms.json`.

`transform_matrix` is camera-to-world with OpenGL axes (x right, y up, z backward); intrinsics stand
at the top for all frames, or in a frame for that one; pixels are COLMAP's.

Source: nerfstudio's documentation, "Data conventions".
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.camera_files import TRANSFORMS_FILE
from pipeline.formats.json_text import parse_json
from pipeline.formats.posed import (
    PosedCamera,
    PosedCameras,
    check_camera,
    focal_and_centre,
    safe_name,
)

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])

_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_WRITTEN = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
"""Names of the distortion coefficients by lens model, in COLMAP's order."""


def load_transforms(path: Path) -> PosedCameras:
    """Read the cameras of a `transforms.json`.

    Raises:
        InputError: not such a file, no intrinsics, or cameras that cannot be.
    """
    document = _read(path)
    frames = document["frames"]
    cameras = []
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"{path}: frame {number} has no file_path")
        name = safe_name(frame["file_path"], str(path))
        pose = _pose(frame, name, path)
        lens = {**{k: v for k, v in document.items() if k != "frames"}, **frame}
        model, params, size_px = _lens(lens, name, path)
        camera = PosedCamera(name, model, params, size_px, pose @ OPENCV_FROM_OPENGL)
        cameras.append(check_camera(camera, str(path)))
    return PosedCameras(cameras, str(path))


def save_transforms(
    path: Path, cameras: Sequence[PosedCamera], extra: Mapping[str, Any] | None = None
) -> None:
    """Write `cameras`; intrinsics once where all photos share them.

    Args:
        extra: further entries at the top, for example the frame; other readers ignore them.

    Raises:
        InputError: a lens model that the format cannot express, or an unknown image size.
    """
    lenses = [_lens_entries(camera) for camera in cameras]
    shared = lenses[0] if lenses and all(lens == lenses[0] for lens in lenses) else {}
    frames = []
    for camera, lens in zip(cameras, lenses, strict=True):
        pose = camera.c2w @ OPENCV_FROM_OPENGL
        own = {} if shared else lens
        frames.append({"file_path": camera.name, **own, "transform_matrix": pose.tolist()})
    document = {**(extra or {}), **shared, "frames": frames}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    hint = f"expected nerfstudio's {TRANSFORMS_FILE}: intrinsics, and frames with transform_matrix"
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"no camera file at {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})", hint=hint) from error
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path} has no list of frames", hint=hint)
    return dict(document)


def _pose(frame: Mapping[str, Any], name: str, path: Path) -> NDArray[np.float64]:
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except KeyError as error:
        raise InputError(f"{path}: the frame of {name} has no transform_matrix") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the transform_matrix of {name} is no matrix") from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0, 0, 0, 1.0]]])
    if matrix.shape != (4, 4):
        raise InputError(f"{path}: the transform_matrix of {name} has shape {matrix.shape}")
    return matrix


def _lens(
    entries: Mapping[str, Any], name: str, path: Path
) -> tuple[str, tuple[float, ...], tuple[int, int] | None]:
    width, height = _number(entries, "w", name, path), _number(entries, "h", name, path)
    size_px = (int(width), int(height)) if width and height else None
    fx, fy, cx, cy = _pinhole(entries, size_px, name, path)
    coefficient = {k: _number(entries, k, name, path) or 0.0 for k in _DISTORTION}
    model = str(entries.get("camera_model", "OPENCV")).upper()
    fisheye = model == "OPENCV_FISHEYE"
    if model not in _WRITTEN:
        raise InputError(
            f"{path}: camera_model {model} of {name} is not supported",
            hint="supported: " + ", ".join(_WRITTEN),
        )
    if not fisheye and coefficient["k4"]:
        raise InputError(f"{path}: {name} has a coefficient k4, which only fisheye lenses have")
    if not fisheye and coefficient["k3"]:
        k1, k2, k3, _, p1, p2 = (coefficient[k] for k in _DISTORTION)
        return "FULL_OPENCV", (fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), size_px
    if any(value for k, value in coefficient.items() if k not in _WRITTEN[model]):
        model = "OPENCV"  # the name promises less than there is
    one_focal = model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    if one_focal and fx != fy:
        model, one_focal = ("PINHOLE" if model == "SIMPLE_PINHOLE" else "OPENCV"), False
    pinhole = (fx, cx, cy) if one_focal else (fx, fy, cx, cy)
    return model, pinhole + tuple(coefficient[k] for k in _WRITTEN[model]), size_px


def _pinhole(
    entries: Mapping[str, Any], size_px: tuple[int, int] | None, name: str, path: Path
) -> tuple[float, float, float, float]:
    fx, fy = _number(entries, "fl_x", name, path), _number(entries, "fl_y", name, path)
    angle = _number(entries, "camera_angle_x", name, path)
    if fx is None and angle is not None and size_px is not None and 0 < angle < math.pi:
        fx = size_px[0] / 2 / math.tan(angle / 2)
    if fx is None:
        raise InputError(
            f"{path}: no focal length for {name}: expected fl_x (pixels), or camera_angle_x and w"
        )
    cx, cy = _number(entries, "cx", name, path), _number(entries, "cy", name, path)
    if (cx is None or cy is None) and size_px is None:
        raise InputError(f"{path}: neither principal point (cx, cy) nor size (w, h) of {name}")
    middle = (size_px[0] / 2, size_px[1] / 2) if size_px else (0.0, 0.0)
    return (
        fx,
        fx if fy is None else fy,
        middle[0] if cx is None else cx,
        (middle[1] if cy is None else cy),
    )


def _number(entries: Mapping[str, Any], key: str, name: str, path: Path) -> float | None:
    value = entries.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{path}: {key} of {name} is {value!r}: expected a number")
    return float(value)


def _lens_entries(camera: PosedCamera) -> dict[str, Any]:
    if camera.model not in _WRITTEN:
        raise InputError(f"nerfstudio cannot express the lens model {camera.model}")
    if camera.size_px is None:
        raise InputError(f"the size of {camera.name} is not known")
    fx, fy, cx, cy = focal_and_centre(camera.model, camera.params)
    names = _WRITTEN[camera.model]
    coefficients = camera.params[len(camera.params) - len(names) :]
    return {
        "camera_model": camera.model,
        "w": camera.size_px[0],
        "h": camera.size_px[1],
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        **dict(zip(names, coefficients, strict=True)),
    }
