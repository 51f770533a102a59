"""Distorted photos of any size to ideal pinhole views of one size.

All views of a scene share one size; every view has its own pinhole camera with one focal length and
a principal point anywhere. A view is a window on the ideal (distortion-free) image plane, chosen so
that no pixel is blank. Photos of one size keep their scale and their whole blank-free window. Where
sizes or orientations differ, each window is cut to the common aspect, around the object, and
scaled.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.geometry.pixels import colmap_to_idr_K, colmap_to_idr_px

EDGE_SAMPLES = 65
MIN_WINDOW = 0.5
"""Share of a side that a blank-free window must keep; a lens beyond that gets blank corners."""


@dataclass(frozen=True)
class Window:
    """A rectangle on the ideal plane of a camera, in pixels of its own focal length.

    COLMAP's convention, with the distorted camera's principal point.
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Ideal cameras of all views.

    Attributes:
        width, height: of every view, pixels.
        K: (N, 3, 3), IDR's pixel convention.
        kept: (N,) share of the blank-free window that the view keeps.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    kept: NDArray[np.float64]


def ideal_K(camera: pycolmap.Camera) -> NDArray[np.float64]:
    """(3, 3) of the ideal plane: the camera's mean focal length and principal point, COLMAP's."""
    focal = camera.mean_focal_length()
    return np.array(
        [[focal, 0, camera.principal_point_x], [0, focal, camera.principal_point_y], [0, 0, 1.0]]
    )


def to_ideal_plane(camera: pycolmap.Camera, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distorted pixels (P, 2) → normalised coordinates (P, 2) of the ideal plane at depth 1.

    NaN where the lens model has no inverse.
    """
    ideal = camera.cam_from_img(np.asarray(xy_px, dtype=np.float64).reshape(-1, 2))
    return np.asarray(ideal, dtype=np.float64).reshape(-1, 2)


def blank_free_window(camera: pycolmap.Camera) -> Window:
    """The window between the undistorted edges of the photo; all of it without distortion."""
    width, height = camera.width, camera.height
    if camera.model_name == "SIMPLE_PINHOLE":
        return Window(0.0, 0.0, float(width), float(height))
    t = np.linspace(0, 1, EDGE_SAMPLES)
    edges = {
        "left": np.stack([0 * t, t * height], axis=1),
        "right": np.stack([0 * t + width, t * height], axis=1),
        "top": np.stack([t * width, 0 * t], axis=1),
        "bottom": np.stack([t * width, 0 * t + height], axis=1),
    }
    K = ideal_K(camera)
    ideal = {n: to_ideal_plane(camera, e) * K[0, 0] + K[:2, 2] for n, e in edges.items()}
    left, right = np.nanmax(ideal["left"][:, 0]), np.nanmin(ideal["right"][:, 0])
    top, bottom = np.nanmax(ideal["top"][:, 1]), np.nanmin(ideal["bottom"][:, 1])
    if right - left < MIN_WINDOW * width or bottom - top < MIN_WINDOW * height:
        return Window(0.0, 0.0, float(width), float(height))
    return Window(float(left), float(top), float(right - left), float(bottom - top))


def plan_layout(
    cameras: list[pycolmap.Camera], object_centre: NDArray[np.float64], c2w: NDArray[np.float64]
) -> Layout:
    """Choose the common size and every view's window.

    Args:
        cameras: distorted camera of each view.
        object_centre: (3,) world; windows that must be cut are cut around it.
        c2w: (N, 4, 4).
    """
    windows = [blank_free_window(camera) for camera in cameras]
    aspect = _common_aspect(windows)
    cut_widths = np.array([_cut(window, aspect)[0] for window in windows])
    width = int(np.median(cut_widths) + 1e-6)
    height = int(width / aspect + 1e-6)
    K = np.empty((len(cameras), 3, 3))
    kept = np.empty(len(cameras))
    for i, (camera, window) in enumerate(zip(cameras, windows, strict=True)):
        full_width, full_height = _cut(window, aspect)
        scale = max(width / full_width, height / full_height)
        size = np.array([width, height]) / scale
        corner = _corner(window, size, ideal_K(camera), c2w[i], object_centre)
        matrix = ideal_K(camera)
        matrix[:2, 2] -= corner
        matrix[:2] *= scale
        K[i] = colmap_to_idr_K(matrix)
        kept[i] = size.prod() / (window.width * window.height)
    return Layout(width, height, K, kept)


def _common_aspect(windows: list[Window]) -> float:
    """Width over height that keeps most of the windows' area on average; square is a candidate."""
    own = [window.width / window.height for window in windows]
    candidates = sorted({round(aspect, 4) for aspect in own})
    if len(candidates) > 1:
        candidates.append(1.0)
    if len(candidates) > 50:
        candidates = list(np.quantile(candidates, np.linspace(0, 1, 50)))

    def kept(aspect: float) -> float:
        return sum(min(a / aspect, aspect / a) for a in own)

    best = max(candidates, key=kept)
    # of the views' own aspects the exact one, so that windows of one size are kept whole
    return min(own, key=lambda aspect: abs(aspect - best)) if best in np.round(own, 4) else best


def _cut(window: Window, aspect: float) -> tuple[float, float]:
    """Largest (width, height) of that aspect inside the window."""
    width = min(window.width, window.height * aspect)
    return width, width / aspect


def _corner(
    window: Window,
    size: NDArray[np.float64],
    K: NDArray[np.float64],
    c2w: NDArray[np.float64],
    target: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Top left corner of a cut of `size` inside the window, centred on the target if possible."""
    low = np.array([window.left, window.top])
    slack = np.maximum(np.array([window.width, window.height]) - size, 0.0)
    in_camera = c2w[:3, :3].T @ (target - c2w[:3, 3])
    wanted = low + slack / 2
    if in_camera[2] > 0:
        wanted = (K @ in_camera)[:2] / in_camera[2] - size / 2
    return np.clip(wanted, low, low + slack)


def sampling_map(
    camera: pycolmap.Camera, K: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps for `cv2.remap`: where in the distorted photo each pixel of the ideal view lies.

    Args:
        K: (3, 3) of the ideal view, IDR's convention. OpenCV's maps use it too.
    """
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
    ideal = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    rays = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1)
    distorted = colmap_to_idr_px(np.asarray(camera.img_from_cam(rays)))
    # a lens model may not reach the corners of a window with blank parts: far outside is blank
    distorted = np.where(np.isfinite(distorted), distorted, -1e4).astype(np.float32)
    maps = distorted.reshape(height, width, 2)
    return np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])


def resample(
    pixels: NDArray[np.uint8],
    maps: tuple[NDArray[np.float32], NDArray[np.float32]],
    shrink: float,
) -> NDArray[np.uint8]:
    """Sample (H, W[, 3]) uint8 at `maps`; blank outside.

    Args:
        shrink: scale of the view against the photo; below 1 the photo is smoothed first.
    """
    source = pixels
    if shrink < 0.8:
        sigma = 0.5 * np.sqrt(1 / shrink**2 - 1)
        source = cv2.GaussianBlur(source, (0, 0), float(sigma))
    return cv2.remap(source, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)


def undistort_points_px(
    camera: pycolmap.Camera, K: NDArray[np.float64], xy_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distorted pixels (P, 2), COLMAP's convention → pixels (P, 2) of the ideal view, IDR's.

    The exact inverse of `sampling_map`; NaN where the lens model has no inverse.
    """
    return to_ideal_plane(camera, xy_px) * K[[0, 1], [0, 1]] + K[:2, 2]
