"""Cameras that somebody already has: a lens and a pose by photo name, whatever file they are from.

Pixels are COLMAP's (centres at half-integers), axes OpenCV's, lens models and the order of their
parameters COLMAP's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras
from pipeline.geometry.pixels import colmap_to_idr_K, idr_to_colmap_K

LENS_PARAMS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
}
"""Numbers of parameters by COLMAP's model name; the position is COLMAP's model id."""
ONE_FOCAL = frozenset(
    {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
)
"""Models that begin with f, cx, cy; the others begin with fx, fy, cx, cy."""

MIN_FOCAL, MAX_FOCAL = 0.1, 100.0
"""Of the longer side: about 157° and half a degree of view; nothing beyond is a photo of ours."""
MAX_SIDE_PX = 1_000_000
RIGID_TOLERANCE = 1e-3
MAX_SKEW = 1e-3


@dataclass(frozen=True)
class PosedCamera:
    """One photo's camera.

    Attributes:
        name: of the photo, as its file says; may hold folders, never leads out of one.
        model: lens model, a key of `LENS_PARAMS`.
        params: of that model, in COLMAP's order; pixels.
        size_px: width and height that `params` belong to; None where the file does not say (then
            they are those of the photo).
        c2w: (4, 4) camera-to-world.
    """

    name: str
    model: str
    params: tuple[float, ...]
    size_px: tuple[int, int] | None
    c2w: NDArray[np.float64]

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) of the lens without its distortion; COLMAP's pixels."""
        fx, fy, cx, cy = focal_and_centre(self.model, self.params)
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class PosedCameras:
    """All cameras of one file or folder.

    Attributes:
        cameras: in the file's order.
        source: the file or folder, for messages.
        named: whether names are photo names; otherwise camera i is the i-th photo by name.
        unit: of lengths in the file's world frame, where the format fixes it.
        scale_mat: (4, 4) unit sphere → world where the file tells a region of interest.
        up: unit (3,) away from the earth, where the format fixes it.
    """

    cameras: list[PosedCamera]
    source: str
    named: bool = True
    unit: str | None = None
    scale_mat: NDArray[np.float64] | None = None
    up: tuple[float, float, float] | None = None


def focal_and_centre(model: str, params: Sequence[float]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a lens."""
    if model in ONE_FOCAL:
        return params[0], params[0], params[1], params[2]
    return params[0], params[1], params[2], params[3]


def with_radial(camera: PosedCamera, k1: float, k2: float) -> PosedCamera:
    """The pinhole camera with radial distortion: x · (1 + k1 r² + k2 r⁴), COLMAP's OPENCV."""
    params = (*focal_and_centre(camera.model, camera.params), k1, k2, 0.0, 0.0)
    return replace(camera, model="OPENCV", params=params)


def without_distortion(camera: PosedCamera) -> PosedCamera:
    """The pinhole camera that is left when the coefficients are dropped."""
    params = focal_and_centre(camera.model, camera.params)
    return replace(camera, model="PINHOLE", params=params)


def scaled(camera: PosedCamera, size_px: tuple[int, int]) -> PosedCamera:
    """The same camera for the photo resized to `size_px` (width, height).

    One scale for both axes, by the width: COLMAP's pixel coordinates begin at the image's corner,
    so focal length and centre scale with the image.
    """
    if camera.size_px is None or camera.size_px == size_px:
        return PosedCamera(camera.name, camera.model, camera.params, size_px, camera.c2w)
    scale = size_px[0] / camera.size_px[0]
    lengths = 3 if camera.model in ONE_FOCAL else 4
    params = tuple(p * scale for p in camera.params[:lengths]) + camera.params[lengths:]
    return PosedCamera(camera.name, camera.model, params, size_px, camera.c2w)


def safe_name(name: str, source: str) -> str:
    """A photo's name from a foreign file, with plain slashes and without a leading `./`.

    Raises:
        InputError: empty, absolute, or leading out of its folder.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    printable = bool(name.strip()) and all(c.isprintable() for c in name)
    if absolute or ".." in windows.parts or not printable or not windows.name:
        raise InputError(
            f"{source}: the photo name {name!r} leads out of its folder or is no name",
            hint="photo names must be relative paths below the folder of photos",
        )
    return "/".join(windows.parts)


def check_camera(camera: PosedCamera, source: str) -> PosedCamera:
    """The camera itself, if a photo can have been taken with it.

    Raises:
        InputError: an unknown lens model, a wrong number of parameters, values that are not finite,
            a focal length or centre that no camera has, or a pose that is not rigid.
    """
    who = f"{source}: {camera.name}"
    expected = LENS_PARAMS.get(camera.model)
    if expected is None:
        raise InputError(
            f"{who}: unknown lens model {camera.model}", hint="known: " + ", ".join(LENS_PARAMS)
        )
    if len(camera.params) != expected:
        raise InputError(
            f"{who}: {camera.model} has {expected} parameters, got {len(camera.params)}"
        )
    if not np.isfinite(camera.params).all() or not np.isfinite(camera.c2w).all():
        raise InputError(f"{who}: values that are not finite")
    if camera.size_px is not None:
        _check_lens(camera, camera.size_px, who)
    _check_pose(camera.c2w, who)
    return camera


def _check_lens(camera: PosedCamera, size_px: tuple[int, int], who: str) -> None:
    width, height = size_px
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        shown = "×".join(str(side)[:12] for side in size_px)
        raise InputError(
            f"{who}: an image size of {shown} pixels: expected 1 to {MAX_SIDE_PX} each way"
        )
    fx, fy, cx, cy = focal_and_centre(camera.model, camera.params)
    longer = max(width, height)
    for focal in (fx, fy):
        if not MIN_FOCAL * longer <= focal <= MAX_FOCAL * longer:
            raise InputError(
                f"{who}: a focal length of {focal:g} pixels for an image of {width}×{height}:"
                f" expected between {MIN_FOCAL * longer:g} and {MAX_FOCAL * longer:g}",
                hint="focal lengths are in pixels of the stated image size, not in millimetres",
            )
    if max(fx, fy) > 2 * min(fx, fy):
        raise InputError(f"{who}: focal lengths {fx:g} and {fy:g} pixels: no lens differs so much")
    if not (-0.5 * width < cx < 1.5 * width and -0.5 * height < cy < 1.5 * height):
        raise InputError(
            f"{who}: the principal point ({cx:g}, {cy:g}) lies far outside the {width}×{height}"
            " pixels of the image"
        )


def _check_pose(c2w: NDArray[np.float64], who: str) -> None:
    if c2w.shape != (4, 4):
        raise InputError(f"{who}: expected a pose of shape (4, 4), got {c2w.shape}")
    rotation = c2w[:3, :3]
    if np.abs(c2w[3] - [0, 0, 0, 1]).max() > RIGID_TOLERANCE:
        raise InputError(f"{who}: the last row of a pose must be 0 0 0 1")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > RIGID_TOLERANCE:
        raise InputError(
            f"{who}: the pose is not rigid (its upper left is no rotation)",
            hint="expected camera-to-world matrices without scale or shear",
        )
    if np.linalg.det(rotation) < 0:
        raise InputError(
            f"{who}: the pose mirrors the scene (determinant -1): left-handed axes",
            hint="convert the poses to right-handed axes first",
        )


def from_idr(
    cameras: IdrCameras, names: Sequence[str], size_px: tuple[int, int] | None, source: str
) -> list[PosedCamera]:
    """Pinhole cameras in the IDR convention under their photo names.

    Raises:
        InputError: counts that differ, or a skew that no lens model here expresses.
    """
    if len(names) != len(cameras):
        raise InputError(f"{source}: {len(cameras)} cameras for {len(names)} names")
    skew = np.abs(cameras.K[:, 0, 1]) / np.abs(cameras.K[:, 0, 0])
    if (skew > MAX_SKEW).any():
        worst = int(np.argmax(skew))
        raise InputError(f"{source}: camera {worst} has skewed pixels ({skew[worst]:.2g} of fx)")
    posed = []
    for name, K, c2w in zip(names, idr_to_colmap_K(cameras.K), cameras.c2w, strict=True):
        params = (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
        posed.append(PosedCamera(name, "PINHOLE", params, size_px, np.array(c2w)))
    return posed


def to_idr(cameras: Sequence[PosedCamera], scale_mat: NDArray[np.float64]) -> IdrCameras:
    """Cameras without distortion in the IDR convention.

    Raises:
        InputError: a lens with distortion: undistort the photos first.
    """
    curved = [c for c in cameras if c.model not in ("SIMPLE_PINHOLE", "PINHOLE")]
    if curved:
        raise InputError(
            f"{curved[0].name} has a lens with distortion ({curved[0].model}), which the IDR"
            " convention cannot express",
            hint="export the cameras of the undistorted views instead",
        )
    K = colmap_to_idr_K(np.stack([camera.K for camera in cameras]))
    return IdrCameras(K, np.stack([camera.c2w for camera in cameras]), scale_mat)
