"""Videos in: the sharpest frames at even steps of the camera's movement, not every n-th."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.imaging.decode import sharpness
from pipeline.progress import Progress

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mts", ".3gp"})
LOOKED_AT_PER_S = 12.0
"""Frames a second that are judged; between two of them hand-held sharpness hardly changes."""
SMALL_SIDE_PX = 320
CORNERS = 200
STILL = 0.004
"""Share of the longer side; a frame moves less than this by noise and compression."""
MIN_MOTION = 0.15
"""Of the longer side, over the whole video; below, there is nothing to triangulate."""
MIN_STEP = 0.02
"""Of the longer side: frames closer than this add no baseline."""
MIN_FRAMES = 3


@dataclass(frozen=True)
class Judged:
    """One frame that was looked at.

    Attributes:
        index: position in the video.
        sharpness: as of `decode.sharpness`, at a small size.
        path: how far the picture has moved up to here, in longer sides.
    """

    index: int
    sharpness: float
    path: float


def is_video(path: Path) -> bool:
    """Whether a file is named like a video."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


def extract_frames(video: Path, folder: Path, count: int, progress: Progress) -> list[Path]:
    """Write up to `count` chosen frames of `video` as upright PNGs into `folder`.

    Named after their position in the video (`frame_000123.png`), so that their order is the
    video's.

    Raises:
        InputError: not a readable video, or one in which the camera does not move.
    """
    judged = judge_frames(video, progress)
    chosen = {frame.index for frame in choose_frames(judged, count, video.name)}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, rgb in _frames(video, chosen):
        path = folder / f"frame_{index:06d}.png"
        cv2.imwrite(
            str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 2]
        )
        written.append(path)
        progress.advance("frames", len(written), len(chosen))
    return written


def judge_frames(video: Path, progress: Progress) -> list[Judged]:
    """Sharpness and movement of some frames a second.

    Raises:
        InputError: not a readable video, or hardly any frames.
    """
    stride, total = _stride(video)
    judged: list[Judged] = []
    before: NDArray[np.uint8] | None = None
    path = 0.0
    for index, rgb in _frames(video, None, stride):
        small = _small(rgb)
        if before is not None:
            step = _movement(before, small)
            path += step if step > STILL else 0.0
        before = small
        judged.append(Judged(index, sharpness(np.repeat(small[..., None], 3, axis=2)), path))
        progress.advance("video", min(index, total), total)
    if len(judged) < MIN_FRAMES:
        raise InputError(f"{video} has only {len(judged)} readable frames")
    return judged


def choose_frames(judged: list[Judged], count: int, name: str = "the video") -> list[Judged]:
    """The sharpest frame of each of `count` even steps along the movement; fewer if it is short.

    Raises:
        InputError: the picture hardly moves.
    """
    total = judged[-1].path
    if total < MIN_MOTION:
        raise InputError(
            f"the camera hardly moves in {name}: the picture shifts by {total:.0%} of its size in"
            f" all, expected {MIN_MOTION:.0%} or more",
            hint="walk around the object while filming; a camera on a tripod shows one side only",
        )
    steps = max(MIN_FRAMES, min(count, int(total / MIN_STEP)))
    best: dict[int, Judged] = {}
    for frame in judged:
        step = min(int(frame.path / total * steps), steps - 1)
        if step not in best or frame.sharpness > best[step].sharpness:
            best[step] = frame
    return [best[step] for step in sorted(best)]


def _movement(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """How far most corners moved, in longer sides: the 70th percentile, so that an object that the
    camera keeps in the middle does not hide the movement around it."""
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 5)
    if corners is None:
        return 0.0
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    kept = found.ravel() == 1
    if kept.sum() < 8:
        return 0.0
    moved = np.linalg.norm((tracked - corners).reshape(-1, 2)[kept], axis=1)
    return float(np.quantile(moved, 0.7)) / max(before.shape)


def _small(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = SMALL_SIDE_PX / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _stride(video: Path) -> tuple[int, int]:
    """Frames from one that is looked at to the next, and the number of frames as far as known."""
    with _opened(video) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 30)
        seconds = float(container.duration or 0) / av.time_base
        total = int(stream.frames or seconds * rate)
    return max(1, round(rate / LOOKED_AT_PER_S)), max(total, 1)


def _frames(
    video: Path, wanted: set[int] | None, stride: int = 1
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Position and upright (H, W, 3) RGB of the wanted frames, or of every `stride`-th."""
    last = max(wanted) if wanted else None
    try:
        with _opened(video) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if last is not None and index > last:
                    return
                if index in wanted if wanted is not None else index % stride == 0:
                    yield index, _upright(frame)
    except av.error.FFmpegError as error:
        raise InputError(f"{video} cannot be read to its end ({error.strerror})") from error


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The frame turned as the file says (counter-clockwise degrees)."""
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


def _opened(video: Path) -> "av.container.InputContainer":
    try:
        container = av.open(str(video), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{video} is not a readable video ({error})",
            hint="give a folder of photos, or a video file (MP4, MOV, MKV, WebM, AVI)",
        ) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{video} holds no picture, only sound")
    return container
