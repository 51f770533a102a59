"""Poses of a phone that tracks itself (ARKit): metres, one file a frame.

Two layouts: MobileBrick's `pose/000000.txt` (4×4 camera-to-world, OpenCV axes) beside
`intrinsic/000000.txt` (3×3), and the scanner app's `frame_00000.json` with `cameraPoseARFrame` (16
numbers, ARKit's OpenGL axes) and `intrinsics` (9 numbers). Intrinsics are taken with pixel centres
at integers, as MobileBrick's own conversion to the IDR convention does.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.camera_files import json_pose_files
from pipeline.formats.json_text import parse_json
from pipeline.formats.nerfstudio import OPENCV_FROM_OPENGL
from pipeline.formats.posed import PosedCamera, PosedCameras, check_camera, safe_name
from pipeline.geometry.pixels import HALF_PIXEL


def load_text_poses(folder: Path) -> PosedCameras:
    """Read MobileBrick's layout; a photo's name is its stem (`000000`).

    Raises:
        InputError: a frame without intrinsics, or matrices that are none.
    """
    cameras = []
    for path in sorted((folder / "pose").glob("*.txt")):
        lens = folder / "intrinsic" / path.name
        if not lens.is_file():
            raise InputError(
                f"{path} has no intrinsics: expected {lens}",
                hint="every pose/NAME.txt needs an intrinsic/NAME.txt",
            )
        pose, K = _matrix(path, (4, 4)), _matrix(lens, (3, 3), (4, 4))[:3, :3]
        cameras.append(_camera(path.stem, pose, K, str(folder)))
    return PosedCameras(cameras, str(folder), unit="m")


def load_json_poses(folder: Path) -> PosedCameras:
    """Read the scanner app's layout; a photo's name is the stem of its frame, y is up.

    Raises:
        InputError: a frame without pose or intrinsics.
    """
    cameras = []
    for path in json_pose_files(folder):
        try:
            frame = parse_json(path.read_bytes())
            pose = np.array(frame["cameraPoseARFrame"], dtype=np.float64).reshape(4, 4)
            K = np.array(frame["intrinsics"], dtype=np.float64).reshape(3, 3)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a readable frame ({error!r})") from error
        cameras.append(_camera(path.stem, pose @ OPENCV_FROM_OPENGL, K, str(folder)))
    return PosedCameras(cameras, str(folder), unit="m", up=(0.0, 1.0, 0.0))


def _camera(
    name: str, c2w: NDArray[np.float64], K: NDArray[np.float64], source: str
) -> PosedCamera:
    params = (K[0, 0], K[1, 1], K[0, 2] + HALF_PIXEL, K[1, 2] + HALF_PIXEL)
    camera = PosedCamera(
        safe_name(name, source), "PINHOLE", tuple(float(p) for p in params), None, c2w
    )
    return check_camera(camera, source)


def _matrix(path: Path, *shapes: tuple[int, int]) -> NDArray[np.float64]:
    try:
        matrix = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable matrix ({error})") from error
    if matrix.shape not in shapes:
        raise InputError(f"{path}: expected a {shapes[0]} matrix, got {matrix.shape}")
    return matrix
