"""One file to one upright 8-bit RGB image, or the reason why not."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.imaging.exif import PhotoTags, read_tags

pillow_heif.register_heif_opener()
Image.init()

FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF", "BMP", "PPM")
    if name in Image.OPEN  # AVIF depends on how Pillow was built
)
RAW_SUFFIXES = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
MIN_SIDE_PX = 64

_VERBATIM = ("JPEG", "PNG")
"""Formats whose bytes every later reader understands."""


class UnusablePhotoError(Exception):
    """A file that cannot serve as a photo; the text says why."""


@dataclass(frozen=True)
class DecodedPhoto:
    """An upright photo.

    Attributes:
        rgb: (H, W, 3) uint8.
        alpha: (H, W) uint8 where the file has transparency that varies, else None.
        tags: its EXIF.
        stored_size_px: width, height before orientation.
        verbatim: the file's own bytes already hold exactly `rgb`.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    tags: PhotoTags
    stored_size_px: tuple[int, int]
    verbatim: bool


def decode_photo(path: Path, min_side_px: int = MIN_SIDE_PX) -> DecodedPhoto:
    """Decode `path`; orientation from EXIF is applied to the pixels once.

    Images of more than twice `PIL.Image.MAX_IMAGE_PIXELS` (about 179 million pixels) are refused
    before their pixels are decoded.

    Raises:
        UnusablePhotoError: not an image, truncated, too large, too small.
    """
    if path.suffix.lower() in RAW_SUFFIXES:
        raise UnusablePhotoError("camera raw file: export it as JPEG or TIFF first")
    if path.stat().st_size == 0:
        raise UnusablePhotoError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _decode(image, min_side_px)
    except UnidentifiedImageError as error:
        raise UnusablePhotoError("not an image file") from error
    except Image.DecompressionBombError as error:
        raise UnusablePhotoError("too many pixels (limit about 179 million)") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise UnusablePhotoError(f"damaged or truncated image ({error})") from error


def _decode(image: Image.Image, min_side_px: int) -> DecodedPhoto:
    # before anything reads the pixels: then the file's own layout is forgotten
    plain = image.mode == "RGB" and image.format in _VERBATIM and not _is_deep(image)
    tags = read_tags(image)
    stored_size = image.size
    if min(stored_size) < min_side_px:
        raise UnusablePhotoError(f"only {stored_size[0]}×{stored_size[1]} pixels")
    image.load()
    # transposing by the tag that was read here keeps one interpretation of damaged EXIF
    upright = orient(image, tags.orientation)
    rgb, alpha = _to_rgb(upright)
    return DecodedPhoto(rgb, alpha, tags, stored_size, plain and tags.orientation == 1)


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel, of which Pillow keeps the upper eight."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def orient(image: Image.Image, orientation: int) -> Image.Image:
    """`image` turned upright by an EXIF orientation of 1 to 8 (Exif 2.32, tag 0x0112)."""
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _deep_grey(np.asarray(image), image.mode)
        return np.repeat(grey[..., None], 3, axis=2), None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        alpha = np.ascontiguousarray(rgba[..., 3])
        varies = alpha.min() < 128 <= alpha.max()
        return np.ascontiguousarray(rgba[..., :3]), alpha if varies else None
    return np.array(image.convert("RGB")), None


def _deep_grey(pixels: NDArray, mode: str) -> NDArray[np.uint8]:
    """16-bit, 32-bit or floating-point grey to 8 bits over the full range of its type."""
    if mode == "F":
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise UnusablePhotoError("floating-point pixels outside 0 … 1")
        return np.round(pixels * 255).astype(np.uint8)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UnusablePhotoError("integer pixels outside 16 bits")
    return np.round(pixels / 257.0).astype(np.uint8)


def shrink(pixels: NDArray[np.uint8], max_side_px: int) -> NDArray[np.uint8]:
    """Downscale (H, W, 3) or (H, W) to at most `max_side_px`, with exactly equal scale in x and y.

    The target size is rounded down and the fraction of a source pixel that does not fit is cut off
    on the right and at the bottom: rounding both sides would squeeze the image by up to 0.1%, which
    a camera with one focal length cannot express.
    """
    height, width = pixels.shape[:2]
    scale = max_side_px / max(width, height)
    if scale >= 1:
        return pixels
    # the epsilon keeps the longer side at max_side_px where the division rounds down
    target = int(width * scale + 1e-6), int(height * scale + 1e-6)
    box = (0, 0, min(target[0] / scale, width), min(target[1] / scale, height))
    resized = Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized)


def sharpness(rgb: NDArray[np.uint8], side_px: int = 800) -> float:
    """Variance of the Laplacian of the grey image, at most `side_px` wide (Pech-Pacheco 2000)."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = side_px / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
