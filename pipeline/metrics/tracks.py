"""Reprojection error of tracks through several views, for any set of cameras."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.matches import ViewMatches
from pipeline.geometry.tracks import Tracks, join_tracks, triangulate

MIN_LENGTH = 3
"""Two views would only say what the epipolar error says."""
MAX_TRACKS = 20_000


def tracks_of(matches: Sequence[ViewMatches]) -> Tracks:
    """Tracks of at least `MIN_LENGTH` views, at most `MAX_TRACKS` evenly picked ones."""
    ends = [
        (np.full(len(rows), ref), np.full(len(rows), src), rows)
        for ref, view in enumerate(matches)
        for src, rows in zip(view.sources, view.matches_px, strict=True)
        if len(rows)
    ] or [(np.zeros(0), np.zeros(0), np.zeros((0, 4)))]
    ref, src, rows = (np.concatenate(part) for part in zip(*ends, strict=True))
    tracks = join_tracks(ref, src, rows, MIN_LENGTH)
    if len(tracks) <= MAX_TRACKS:
        return tracks
    return tracks.of_points(np.linspace(0, len(tracks) - 1, MAX_TRACKS).astype(np.int64))


def reprojection_errors_px(tracks: Tracks, K: NDArray, c2w: NDArray) -> NDArray:
    """Distances (O,) in pixels between observations and their points, triangulated with the
    cameras in question; infinite behind a camera.

    Args:
        K, c2w: (V, 3, 3) and (V, 4, 4), all views of the matches.
    """
    return triangulate(tracks, K, c2w).error_px
