"""Videos: sharp frames at even steps of the movement; films that cannot work are refused."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.imaging.records import load_ingest
from pipeline.imaging.video import Judged, choose_frames, extract_frames, judge_frames
from pipeline.progress import NullProgress
from tests.stages.photo_run import run_stage

WIDTH, HEIGHT, FPS = 320, 240, 24


def _panorama() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // 6, 220, 3), dtype=np.uint8)
    return cv2.resize(coarse, (1320, HEIGHT), interpolation=cv2.INTER_CUBIC)


def _film(path: Path, offsets: list[float], blurred: set[int] = frozenset()) -> Path:  # type: ignore[assignment]
    """A window that slides over a panorama, `offsets` in pixels."""
    scene = _panorama()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.bit_rate = WIDTH, HEIGHT, 4_000_000
        for i, offset in enumerate(offsets):
            x = round(offset)
            rgb = scene[:, x : x + WIDTH]
            if i in blurred:
                rgb = cv2.GaussianBlur(rgb, (0, 0), 4)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_follow_the_movement_and_not_the_clock(tmp_path: Path) -> None:
    """The camera rests for most of the film: the rest gives no frames."""
    offsets = [*np.linspace(0, 400, 40), *[400.0] * 60, *np.linspace(400, 900, 40)]
    video = _film(tmp_path / "film.mp4", offsets)
    chosen = choose_frames(judge_frames(video, NullProgress()), 12)
    places = [offsets[frame.index] for frame in chosen]
    assert 9 <= len(chosen) <= 12
    assert sum(frame.index in range(44, 98) for frame in chosen) <= 1
    steps = np.diff(places)
    assert steps.min() > 0
    assert steps.max() < 4 * np.median(steps)


def test_blurred_frames_are_passed_over(tmp_path: Path) -> None:
    offsets = list(np.linspace(0, 900, 96))
    blurred = {i for i in range(96) if (i // 2) % 3 != 0}
    video = _film(tmp_path / "film.mp4", offsets, blurred)
    files = extract_frames(video, tmp_path / "frames", 8, NullProgress())
    indices = [int(file.stem.removeprefix("frame_")) for file in files]
    assert 6 <= len(indices) <= 8
    assert blurred.isdisjoint(indices)


def test_the_stage_takes_a_video(tmp_path: Path) -> None:
    video = _film(tmp_path / "film.mp4", list(np.linspace(0, 900, 72)))
    verdict = run_stage("ingest", tmp_path / "run", {"photos": video}, {"video_frames": 6})
    record = load_ingest(tmp_path / "run" / "ingest" / "ingest.json")
    assert 4 <= verdict.figures["photos"] <= 6
    assert all((photo.width, photo.height) == (WIDTH, HEIGHT) for photo in record.used)
    assert len({photo.camera for photo in record.used}) == 1
    with pytest.raises(InputError, match="masks cannot be given with a video"):
        run_stage("ingest", tmp_path / "b", {"photos": video, "masks": tmp_path})


def test_a_film_without_movement_is_refused(tmp_path: Path) -> None:
    video = _film(tmp_path / "still.mp4", [100.0] * 60)
    with pytest.raises(InputError, match="the camera hardly moves in still"):
        extract_frames(video, tmp_path / "frames", 10, NullProgress())


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"not a film")
    with pytest.raises(InputError, match="not a readable video"):
        judge_frames(tmp_path / "film.mp4", NullProgress())
    whole = _film(tmp_path / "whole.mp4", [0.0, 10.0])
    with pytest.raises(InputError, match="only 1 readable frames"):
        judge_frames(whole, NullProgress())


def test_a_short_way_gives_fewer_frames() -> None:
    judged = [Judged(i, 1.0, 0.002 * i) for i in range(101)]
    assert len(choose_frames(judged, 80)) == 10
