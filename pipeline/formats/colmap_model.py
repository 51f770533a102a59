"""COLMAP's sparse models, text and binary.

Written through pycolmap. Read by hand, cameras and poses only: a foreign file may be cut off or
worse, and COLMAP's own reader then ends the process or asks for terabytes.

Source: COLMAP's documentation, "Output format".
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.camera_files import colmap_model_files
from pipeline.formats.posed import (
    LENS_PARAMS,
    PosedCamera,
    PosedCameras,
    check_camera,
    safe_name,
)
from pipeline.geometry.cameras import invert_pose, make_pose

MODEL_NAMES = list(LENS_PARAMS)
_Lens = tuple[str, tuple[float, ...], tuple[int, int]]


@dataclass(frozen=True)
class ScenePoint:
    """A triangulated point with what it was triangulated from.

    Attributes:
        xyz: (3,) world.
        rgb: (3,) uint8.
        views: indices of the cameras that see it.
        xy_px: (T, 2) where, one row a view; COLMAP's pixels.
    """

    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    views: list[int]
    xy_px: NDArray[np.float64]


def load_colmap_model(folder: Path) -> PosedCameras:
    """Cameras and poses of the model in `folder`.

    Raises:
        InputError: no model there, damaged, or with cameras that cannot be.
    """
    files = colmap_model_files(folder)
    if files is None:
        raise InputError(
            f"no COLMAP model in {folder}: expected cameras.bin and images.bin, or .txt",
            hint="give the folder that holds these files, often sparse/0",
        )
    lens_path, image_path = files
    try:
        if lens_path.suffix == ".bin":
            lenses = _binary_lenses(lens_path.read_bytes())
            images = _binary_images(image_path.read_bytes())
        else:
            lenses = _text_lenses(lens_path.read_text(encoding="utf-8"))
            images = _text_images(image_path.read_text(encoding="utf-8"))
    except (struct.error, ValueError, IndexError, OSError) as error:
        raise InputError(
            f"{folder} is not a readable COLMAP model ({error})",
            hint="the files may be cut off; write the model again",
        ) from error
    return PosedCameras(_posed(lenses, images, str(folder)), str(folder))


def save_colmap_model(
    folder: Path,
    cameras: Sequence[PosedCamera],
    points: Sequence[ScenePoint] = (),
    form: Literal["text", "binary"] = "binary",
) -> None:
    """Write a model; photos with equal lens and size share a camera.

    Raises:
        InputError: a camera without an image size, or two photos of one name.
    """
    model = as_reconstruction(cameras, points)
    folder.mkdir(parents=True, exist_ok=True)
    if form == "text":
        model.write_text(str(folder))
    else:
        model.write_binary(str(folder))


def as_reconstruction(
    cameras: Sequence[PosedCamera], points: Sequence[ScenePoint] = ()
) -> pycolmap.Reconstruction:
    """The cameras as COLMAP's reconstruction; image i + 1 is camera i.

    Raises:
        InputError: a camera without an image size, or two photos of one name.
    """
    if len({camera.name for camera in cameras}) != len(cameras):
        raise InputError("a COLMAP model cannot hold two photos of one name")
    model = pycolmap.Reconstruction()
    ids: dict[_Lens, int] = {}
    seen: list[list[NDArray[np.float64]]] = [[] for _ in cameras]
    tracks = []
    for point in points:
        track = []
        for view, xy in zip(point.views, point.xy_px, strict=True):
            track.append((view + 1, len(seen[view])))
            seen[view].append(xy)
        tracks.append(track)
    for index, camera in enumerate(cameras):
        if camera.size_px is None:
            raise InputError(f"the size of {camera.name} is not known")
        lens = (camera.model, camera.params, camera.size_px)
        if lens not in ids:
            ids[lens] = len(ids) + 1
            _add_lens(model, ids[lens], lens)
        _add_image(model, index + 1, ids[lens], camera, seen[index])
    for point, track in zip(points, tracks, strict=True):
        elements = pycolmap.Track()
        for image_id, position in track:
            elements.add_element(image_id, position)
        model.add_point3D(point.xyz, elements, point.rgb)
    if points:
        model.update_point_3d_errors()
    return model


def _add_lens(model: pycolmap.Reconstruction, camera_id: int, lens: _Lens) -> None:
    name, params, (width, height) = lens
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            camera_id=camera_id, model=name, width=width, height=height, params=list(params)
        )
    )


def _add_image(
    model: pycolmap.Reconstruction,
    image_id: int,
    camera_id: int,
    camera: PosedCamera,
    seen: list[NDArray[np.float64]],
) -> None:
    image = pycolmap.Image(name=camera.name, image_id=image_id, camera_id=camera_id)
    image.points2D = pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in seen])
    w2c = invert_pose(camera.c2w)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(w2c[:3, :3]), w2c[:3, 3])
    model.add_image_with_trivial_frame(image, pose)


def _posed(
    lenses: dict[int, _Lens], images: list[tuple[str, int, list[float]]], source: str
) -> list[PosedCamera]:
    if not images:
        raise InputError(f"{source}: the COLMAP model holds no registered image")
    posed = []
    for name, camera_id, numbers in images:
        if camera_id not in lenses:
            raise InputError(f"{source}: image {name} refers to the unknown camera {camera_id}")
        quaternion, translation = np.array(numbers[:4]), np.array(numbers[4:])
        if not np.isfinite(numbers).all() or not 0.5 < np.linalg.norm(quaternion) < 2:
            raise InputError(f"{source}: the pose of image {name} is not a rotation and a place")
        rotation = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
        model, params, size_px = lenses[camera_id]
        c2w = invert_pose(make_pose(rotation, translation))
        camera = PosedCamera(safe_name(name, source), model, params, size_px, c2w)
        posed.append(check_camera(camera, source))
    return posed


def _lens(model_id: int, width: int, height: int, params: tuple[float, ...]) -> _Lens:
    return MODEL_NAMES[model_id], params, (width, height)


def _binary_lenses(content: bytes) -> dict[int, _Lens]:
    (count,), at = struct.unpack_from("<Q", content), 8
    lenses = {}
    for _ in range(_believable(count, content, 24)):
        camera_id, model_id, width, height = struct.unpack_from("<iiQQ", content, at)
        if not 0 <= model_id < len(MODEL_NAMES):
            raise ValueError(f"lens model number {model_id}")
        form = f"<{LENS_PARAMS[MODEL_NAMES[model_id]]}d"
        params = struct.unpack_from(form, content, at + 24)
        at += 24 + struct.calcsize(form)
        lenses[camera_id] = _lens(model_id, width, height, params)
    return lenses


def _binary_images(content: bytes) -> list[tuple[str, int, list[float]]]:
    (count,), at = struct.unpack_from("<Q", content), 8
    images = []
    for _ in range(_believable(count, content, 73)):
        _, *numbers, camera_id = struct.unpack_from("<i7di", content, at)
        end = content.index(b"\0", at + 64)
        name = content[at + 64 : end].decode("utf-8")
        (points,) = struct.unpack_from("<Q", content, end + 1)
        at = end + 9 + 24 * points
        if at > len(content):
            raise ValueError("the file ends too early")
        images.append((name, camera_id, list(numbers)))
    return images


def _believable(count: int, content: bytes, least_bytes: int) -> int:
    if count > len(content) // least_bytes:
        raise ValueError(f"{count} entries in {len(content)} bytes")
    return count


def _text_lenses(text: str) -> dict[int, _Lens]:
    lenses = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        camera_id, model, width, height, *params = words
        lens = (model, tuple(float(p) for p in params), (int(width), int(height)))
        lenses[int(camera_id)] = lens
    return lenses


def _text_images(text: str) -> list[tuple[str, int, list[float]]]:
    images = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise ValueError(f"an image line with {len(words)} of 10 entries")
        images.append((words[9].strip(), int(words[8]), [float(w) for w in words[1:8]]))
        next(lines, "")  # its observations, possibly an empty line
    return images
