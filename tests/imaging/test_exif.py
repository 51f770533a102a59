"""EXIF is believed where it is reliable, and only there."""

import math
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from pipeline.imaging.exif import PhotoTags, camera_group, disbelieved, focal_length_px, read_tags


def _tagged(path: Path, detail: dict, gps: dict | None = None, top: dict | None = None) -> Path:
    exif = Image.Exif()
    for tag, value in (top or {}).items():
        exif[tag] = value
    exif.get_ifd(0x8769).update(detail)
    exif.get_ifd(0x8825).update(gps or {})
    Image.new("RGB", (400, 300)).save(path, exif=exif)
    return path


def _read(path: Path) -> PhotoTags:
    with Image.open(path) as image:
        return read_tags(image)


def test_35mm_equivalent_goes_by_the_diagonal() -> None:
    tags = PhotoTags(focal_35mm=28.0)
    expected = 28.0 / math.hypot(36, 24) * 2000
    assert focal_length_px(tags, 1600, 1200) == pytest.approx(expected)
    assert focal_length_px(tags, 1200, 1600) == pytest.approx(expected)


def test_sensor_resolution_is_scaled_to_the_image() -> None:
    tags = PhotoTags(focal_mm=5.4, focal_plane_px_per_mm=120.0, exif_size_px=(640, 480))
    assert focal_length_px(tags, 640, 480) == pytest.approx(648.0)
    assert focal_length_px(tags, 240, 320) == pytest.approx(324.0)


@pytest.mark.parametrize(
    "tags",
    [
        PhotoTags(),
        PhotoTags(focal_35mm=28.0, exif_size_px=(4000, 2250)),  # cropped since
        PhotoTags(focal_35mm=28.0, digital_zoom=2.0),
        PhotoTags(focal_35mm=2.0),  # no such lens
        PhotoTags(  # 35 mm equivalent and sensor contradict each other
            focal_35mm=28.0, focal_mm=10.0, focal_plane_px_per_mm=500.0, exif_size_px=(1600, 1200)
        ),
    ],
)
def test_unreliable_focal_lengths_are_refused(tags: PhotoTags) -> None:
    assert focal_length_px(tags, 1600, 1200) is None


def test_tags_are_read_and_cleaned(tmp_path: Path) -> None:
    path = _tagged(
        tmp_path / "a.jpg",
        {0x920A: 3.61, 0xA405: 20, 0xA002: 4000, 0xA003: 3000, 0xA404: IFDRational(0, 0)},
        gps={1: "N", 2: (46.0, 30.0, 36.0), 3: "W", 4: (91.0, 0.0, 0.0), 5: b"\x01", 6: 12.5},
        top={0x010F: "DJI\x00\x00\x00", 0x0110: "FC300S"},
    )
    tags = _read(path)
    assert (tags.make, tags.model) == ("DJI", "FC300S")
    assert tags.focal_35mm == 20
    assert tags.digital_zoom is None
    assert tags.gps is not None
    assert tags.gps == pytest.approx((46.51, -91.0, -12.5))
    assert camera_group(tags, 400, 300) == "DJI FC300S 3.61mm 400x300"


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (10.0, 0.0, 0.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (46.0, 0.0, 0.0)},
    ],
)
def test_impossible_positions_are_no_positions(tmp_path: Path, gps: dict) -> None:
    tags = _read(_tagged(tmp_path / "a.jpg", {}, gps))
    assert tags.gps is None
    assert tags.impossible_gps == (gps.get(2) == (95.0, 0.0, 0.0))


def test_a_damaged_block_reads_as_empty(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff")
    tags = _read(tmp_path / "a.jpg")
    assert (tags.orientation, tags.damaged) == (1, True)
    Image.new("RGB", (400, 300)).save(tmp_path / "b.jpg")
    assert not _read(tmp_path / "b.jpg").damaged
    Image.new("RGB", (400, 300)).save(tmp_path / "c.jpg", exif=Image.Exif())
    assert not _read(tmp_path / "c.jpg").damaged
    noise = b"Exif\x00\x00" + bytes(range(7, 200))
    Image.new("RGB", (400, 300)).save(tmp_path / "d.jpg", exif=noise)
    assert _read(tmp_path / "d.jpg").damaged


def test_what_cannot_be_believed_is_told() -> None:
    assert disbelieved(PhotoTags(focal_35mm=28.0), 400, 300) == []
    assert "no lens" in disbelieved(PhotoTags(focal_35mm=65535.0), 400, 300)[0]
    assert "damaged" in disbelieved(PhotoTags(damaged=True), 400, 300)[0]
    assert "GPS" in disbelieved(PhotoTags(impossible_gps=True), 400, 300)[0]


def test_photos_of_one_camera_and_size_share_a_group() -> None:
    tags = PhotoTags(make="Apple", model="iPhone 7", focal_mm=3.99)
    assert camera_group(tags, 1600, 1200) == camera_group(tags, 1600, 1200)
    assert camera_group(tags, 1600, 1200) != camera_group(tags, 1200, 1600)
    assert camera_group(PhotoTags(), 1600, 1200) != camera_group(tags, 1600, 1200)
