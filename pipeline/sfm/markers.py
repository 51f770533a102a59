"""Printed markers (ArUco, AprilTag) in the photos, and what their known lengths tell of the scale.

Corners are triangulated from all photos that see them; nothing of the model changes.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.frame import WorldFrame
from pipeline.geometry.similarity import Similarity
from pipeline.progress import Progress
from pipeline.sfm.config import ScaleConfig
from pipeline.sfm.views import RegisteredView

MAX_ERROR_PX = 3.0
MIN_ANGLE_DEG = 3.0
MAX_SPREAD = 0.03
"""Lengths that differ by more than this share contradict each other."""


@dataclass(frozen=True)
class Marker:
    """A marker in space.

    Attributes:
        number: its id in the dictionary.
        corners: (4, 3) in the model's frame, clockwise as printed.
        views: photos that it was triangulated from.
    """

    number: int
    corners: NDArray[np.float64]
    views: int

    @property
    def centre(self) -> NDArray[np.float64]:
        """(3,) mean of the corners."""
        return self.corners.mean(axis=0)

    @property
    def side(self) -> float:
        """Mean length of the four sides."""
        return float(np.linalg.norm(self.corners - np.roll(self.corners, 1, axis=0), axis=1).mean())


def marker_frame(
    views: list[RegisteredView], ingest_dir: Path, config: ScaleConfig, progress: Progress
) -> WorldFrame:
    """The model's frame in metres by the markers' known size or distance.

    Raises:
        InputError: no marker seen by two photos, the two of a known distance not among them, or
            lengths that contradict each other.
    """
    markers = find_markers(views, ingest_dir, str(config.marker_dictionary), progress)
    if not markers:
        raise InputError(
            f"no marker of {config.marker_dictionary} was found in two or more photos",
            hint="check the dictionary; a marker needs a white border and some 20 pixels a side",
        )
    metres_per_unit = []
    if config.marker_size_m is not None:
        metres_per_unit += [config.marker_size_m / marker.side for marker in markers]
    if config.marker_distance is not None:
        first, second, metres = config.marker_distance
        by_number = {marker.number: marker for marker in markers}
        for number in (first, second):
            if number not in by_number:
                seen = ", ".join(str(m.number) for m in markers)
                raise InputError(f"marker {number} was not found in two photos; found: {seen}")
        apart = np.linalg.norm(by_number[first].centre - by_number[second].centre)
        metres_per_unit.append(metres / float(apart))
    scale = float(np.median(metres_per_unit))
    spread = float(np.abs(np.array(metres_per_unit) / scale - 1).max())
    if spread > MAX_SPREAD:
        raise InputError(
            f"the markers' lengths contradict each other by {spread:.0%}",
            hint="check the printed size (printers scale pages) and the measured distance",
        )
    figures = {
        "markers": [marker.number for marker in markers],
        "views_per_marker": [marker.views for marker in markers],
        "scale_spread_percent": round(100 * spread, 3),
    }
    similarity = Similarity(scale, np.eye(3), np.zeros(3))
    return WorldFrame("m", f"{len(markers)} printed markers", similarity, figures=figures)


def find_markers(
    views: list[RegisteredView], ingest_dir: Path, dictionary: str, progress: Progress
) -> list[Marker]:
    """All markers that two or more photos see, by id; ids seen twice in one photo are left out."""
    seen: dict[int, list[tuple[RegisteredView, NDArray[np.float64]]]] = defaultdict(list)
    repeated: set[int] = set()
    detector = _detector(dictionary)
    for done, view in enumerate(views, start=1):
        with Image.open(ingest_dir / str(view.photo.file)) as image:
            grey = np.asarray(image.convert("L"))
        corners, numbers, _ = detector.detectMarkers(grey)
        found = [] if numbers is None else [int(n) for n in np.ravel(numbers)]
        repeated.update(n for n in found if found.count(n) > 1)
        for number, quad in zip(found, corners, strict=True):
            # OpenCV's pixel centres are integers, COLMAP's half-integers
            seen[number].append((view, quad.reshape(4, 2).astype(np.float64) + 0.5))
        progress.advance("markers", done, len(views))
    markers = []
    for number in sorted(set(seen) - repeated):
        placed = [triangulate([(v, quad[i]) for v, quad in seen[number]]) for i in range(4)]
        if all(point is not None for point in placed):
            corners_3d = np.stack([point for point in placed if point is not None])
            markers.append(Marker(number, corners_3d, len(seen[number])))
    return markers


def triangulate(
    seen: list[tuple[RegisteredView, NDArray[np.float64]]],
) -> NDArray[np.float64] | None:
    """The point (3,) nearest to the rays of its observations (COLMAP's pixels).

    The worst observation is dropped until all agree; None if fewer than two are left or their rays
    are nearly parallel.
    """
    rest = list(seen)
    while len(rest) >= 2:
        origins = np.stack([view.c2w[:3, 3] for view, _ in rest])
        rays = np.stack([_ray(view, xy) for view, xy in rest])
        if np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))) < MIN_ANGLE_DEG:
            return None
        across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
        point = np.linalg.solve(across.sum(axis=0), np.einsum("nij,nj->i", across, origins))
        errors = [_error_px(view, xy, point) for view, xy in rest]
        if max(errors) <= MAX_ERROR_PX:
            return np.asarray(point)
        rest.pop(int(np.argmax(errors)))
    return None


def _detector(dictionary: str) -> cv2.aruco.ArucoDetector:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    known = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary))
    return cv2.aruco.ArucoDetector(known, parameters)


def _ray(view: RegisteredView, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
    ideal = np.asarray(view.camera.cam_from_img(xy_px[None])).reshape(2)
    ray = view.c2w[:3, :3] @ np.array([*ideal, 1.0])
    return ray / np.linalg.norm(ray)


def _error_px(
    view: RegisteredView, xy_px: NDArray[np.float64], point: NDArray[np.float64]
) -> float:
    in_camera = view.c2w[:3, :3].T @ (point - view.c2w[:3, 3])
    if in_camera[2] <= 0:
        return float("inf")
    camera: pycolmap.Camera = view.camera
    return float(np.linalg.norm(np.asarray(camera.img_from_cam(in_camera[None]))[0] - xy_px))
