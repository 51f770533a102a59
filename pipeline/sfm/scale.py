"""What the world frame is: the given cameras', metres by what tells the scale, or unknown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap

from pipeline.errors import InputError
from pipeline.formats.frame import WorldFrame
from pipeline.geometry.similarity import Similarity
from pipeline.imaging.records import IngestRecord
from pipeline.progress import Progress
from pipeline.sfm.config import ScaleConfig
from pipeline.sfm.gps import GpsPhoto, gps_frame
from pipeline.sfm.markers import marker_frame
from pipeline.sfm.views import RegisteredView, registered_views

MAX_SPREAD = 0.05
MIN_GPS_SHARE = 0.5
"""Below this share of photos with GPS nobody expects it to count."""


def find_frame(
    model: pycolmap.Reconstruction,
    ingest: IngestRecord,
    ingest_dir: Path,
    config: ScaleConfig,
    seed: int,
    progress: Progress,
) -> tuple[WorldFrame, list[str]]:
    """The frame that the best of the scale's sources leads to, and what a user should know.

    With source `auto`, markers come before distances, and distances before GPS. What was configured
    by hand must hold; GPS that does not only leaves the scale unknown.

    Raises:
        InputError: a source that was asked for does not hold.
    """
    views = registered_views(model, ingest)
    if config.source == "none":
        return WorldFrame(source="not asked for"), []
    if config.source == "markers" or (config.source == "auto" and config.marker_dictionary):
        return marker_frame(views, ingest_dir, config, progress), []
    if config.source == "distances" or (config.source == "auto" and config.distances):
        return distance_frame(views, config.distances), []
    return _by_gps(views, config, seed)


def distance_frame(
    views: list[RegisteredView], distances: tuple[tuple[str, str, float], ...]
) -> WorldFrame:
    """Metres by known distances between camera positions.

    Raises:
        InputError: a photo that is not registered, or distances that contradict each other.
    """
    centres = {view.photo.name: view.c2w[:3, 3] for view in views}
    metres_per_unit = []
    for first, second, metres in distances:
        for name in (first, second):
            if name not in centres:
                raise InputError(
                    f"sfm.scale.distances: {name} is not among the registered photos",
                    hint=f"registered are {', '.join(list(centres)[:5])}, …",
                )
        apart = float(np.linalg.norm(centres[first] - centres[second]))
        if apart <= 0:
            raise InputError(f"sfm.scale.distances: {first} and {second} are at one place")
        metres_per_unit.append(metres / apart)
    scale = float(np.median(metres_per_unit))
    spread = float(np.abs(np.array(metres_per_unit) / scale - 1).max())
    if spread > MAX_SPREAD:
        raise InputError(
            f"the known camera distances contradict each other by {spread:.0%}",
            hint="check sfm.scale.distances: metres, and which photos",
        )
    figures = {"distances": len(distances), "scale_spread_percent": round(100 * spread, 3)}
    similarity = Similarity(scale, np.eye(3), np.zeros(3))
    return WorldFrame("m", "known camera distances", similarity, figures=figures)


def apply_frame(model: pycolmap.Reconstruction, frame: WorldFrame) -> None:
    """Move the model from SfM's own frame into `frame`, in place."""
    model.transform(pycolmap.Sim3d(frame.from_sfm.matrix[:3]))


def _by_gps(
    views: list[RegisteredView], config: ScaleConfig, seed: int
) -> tuple[WorldFrame, list[str]]:
    photos = [
        GpsPhoto(view.photo.name, view.c2w[:3, 3], (gps[0], gps[1], gps[2]))
        for view in views
        if (gps := view.photo.gps) is not None and gps[2] is not None
    ]
    if config.source == "auto" and len(photos) < max(
        config.gps_min_photos, MIN_GPS_SHARE * len(views)
    ):
        return WorldFrame(), []
    try:
        frame = gps_frame(photos, config.gps_min_photos, seed)
    except InputError as error:
        if config.source == "gps":
            raise
        unknown = replace(WorldFrame(), source=f"nothing: {error.message}")
        return unknown, [f"the scale stays unknown: {error.message}"]
    outliers = frame.figures.get("outliers") or []
    named = ", ".join(outliers[:5])
    return frame, [f"GPS of {named} does not fit and was left out"] if outliers else []
