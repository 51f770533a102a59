"""Every file becomes one upright 8-bit RGB image, or a reason."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.imaging.decode import UnusablePhotoError, decode_photo, sharpness, shrink

_STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}
"""EXIF: how a picture is stored whose upright form is `a` (Exif 2.32, table 4)."""


def _picture(height: int = 70, width: int = 100) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_the_pixels(tmp_path: Path, orientation: int) -> None:
    upright = _picture()
    stored = Image.fromarray(np.ascontiguousarray(_STORED_FROM_UPRIGHT[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    photo = decode_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb, upright)
    assert photo.stored_size_px == stored.size
    assert photo.verbatim == (orientation == 1)


def test_an_impossible_orientation_counts_as_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 42
    Image.fromarray(_picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_photo(tmp_path / "a.png").rgb, _picture())


@pytest.mark.parametrize("suffix", ["webp", "tiff", "bmp", "png"])
def test_lossless_formats_keep_the_pixels(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(_picture()).save(tmp_path / f"a.{suffix}", **options)
    photo = decode_photo(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(photo.rgb, _picture())
    assert photo.verbatim == (suffix == "png")


def test_heic_is_read(tmp_path: Path) -> None:
    smooth = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 255, 128), (96, 128)))
    rgb = np.repeat(smooth[..., None], 3, axis=2).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.heic", quality=95)
    read = decode_photo(tmp_path / "a.heic").rgb
    assert read.shape == rgb.shape
    assert np.abs(read.astype(int) - rgb).mean() < 4


def test_greys_become_rgb(tmp_path: Path) -> None:
    grey = _picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    for name in ("a.png", "deep.png", "float.tiff"):
        photo = decode_photo(tmp_path / name)
        np.testing.assert_array_equal(photo.rgb, np.repeat(grey[..., None], 3, axis=2))
        assert not photo.verbatim


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_a_channel_become_eight(tmp_path: Path, suffix: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (70, 100, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), deep[..., ::-1])
    photo = decode_photo(tmp_path / f"a.{suffix}")
    assert photo.rgb.dtype == np.uint8
    assert np.abs(photo.rgb - deep / 257.0).max() <= 1
    assert not photo.verbatim  # eight bits are written, so that every reader sees the same


def test_transparency_comes_apart_from_the_colour(tmp_path: Path) -> None:
    alpha = np.zeros((70, 100), dtype=np.uint8)
    alpha[20:50, 30:60] = 255
    rgba = np.concatenate([_picture(), alpha[..., None]], axis=2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    photo = decode_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb, _picture())
    assert photo.alpha is not None
    np.testing.assert_array_equal(photo.alpha, alpha)


def test_constant_transparency_says_nothing(tmp_path: Path) -> None:
    rgba = np.concatenate([_picture(), np.full((70, 100, 1), 255, np.uint8)], axis=2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert decode_photo(tmp_path / "a.png").alpha is None


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.fromarray(_picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    photo = decode_photo(tmp_path / "a.jpg")
    assert photo.rgb.shape == (70, 100, 3)
    assert not photo.verbatim


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _claims_to_be(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b""))


def test_unusable_files_get_a_reason(tmp_path: Path) -> None:
    Image.fromarray(_picture(300, 400)).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.jpg").write_text("not a picture at all")
    (tmp_path / "bomb.png").write_bytes(_claims_to_be(60_000, 60_000))
    (tmp_path / "sensor.dng").write_bytes(content)
    Image.fromarray(_picture(8, 8)).save(tmp_path / "icon.png")
    expected = {
        "cut.jpg": "truncated",
        "empty.jpg": "empty",
        "notes.jpg": "not an image",
        "bomb.png": "too many pixels",
        "sensor.dng": "raw",
        "icon.png": "only 8×8",
    }
    for name, words in expected.items():
        with pytest.raises(UnusablePhotoError, match=words):
            decode_photo(tmp_path / name)


def test_shrinking_scales_both_axes_alike() -> None:
    height, width = 301, 467
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    ramp = np.stack([columns / 2, rows / 2, 0 * rows], axis=-1).astype(np.uint8)
    small = shrink(ramp, 200)
    scale = 200 / width
    assert max(small.shape) == 200
    # pixel centre (i + 0.5) of the small image lies at (i + 0.5) / scale of the large one
    y, x = 60, 90
    np.testing.assert_allclose(small[y, x, 0], ((x + 0.5) / scale - 0.5) / 2, atol=1.0)
    np.testing.assert_allclose(small[y, x, 1], ((y + 0.5) / scale - 0.5) / 2, atol=1.0)


def test_shrinking_leaves_small_images_alone() -> None:
    picture = _picture()
    assert shrink(picture, 100) is picture


def test_blur_lowers_sharpness() -> None:
    picture = _picture(200, 300)
    blurred = np.asarray(Image.fromarray(picture).reduce(4).resize((300, 200)))
    assert sharpness(blurred) < 0.2 * sharpness(picture)
