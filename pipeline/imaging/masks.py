"""Which mask belongs to which photo, and masks as arrays."""

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.imaging.decode import FORMATS, DecodedPhoto, orient

OBJECT = np.uint8(255)


def assign_masks(mask_dir: Path, photo_names: list[str]) -> dict[str, Path]:
    """Photo name → mask file, for the photos that have one.

    A mask carries the photo's full name plus a suffix (`a.jpg.png`), its stem (`a.png`), or, where
    no name fits, the masks are numbered and as many as the photos: `000.png` belongs to the first
    photo by name. A photo without a mask is absent from the result, never "all object".

    Raises:
        InputError: no folder, no image in it, no mask that fits any photo, or a mask that fits
            several photos.
    """
    if not mask_dir.is_dir():
        raise InputError(f"the folder of masks {mask_dir} does not exist")
    files = sorted(p for p in mask_dir.iterdir() if p.is_file() and not p.name.startswith("."))
    images = [p for p in files if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff")]
    if not images:
        raise InputError(f"no mask images in {mask_dir}: expected one PNG a photo, white = object")
    assigned = _by_name(images, photo_names) or _by_number(images, photo_names)
    if not assigned:
        raise InputError(
            f"none of the {len(images)} masks in {mask_dir} fits a photo by name"
            f" (first mask {images[0].name}, first photo {sorted(photo_names)[0]})",
            hint="name every mask like its photo (IMG_1.jpg → IMG_1.png), or number them"
            " 000.png, 001.png, … one for every photo in the order of the names",
        )
    return assigned


def _by_name(masks: list[Path], photo_names: list[str]) -> dict[str, Path]:
    full = {p.stem.lower(): p for p in masks}
    assigned = {}
    by_stem: dict[str, list[str]] = {}
    for name in photo_names:
        if name.lower() in full:
            assigned[name] = full[name.lower()]
        else:
            by_stem.setdefault(Path(name).stem.lower(), []).append(name)
    for stem, names in by_stem.items():
        if stem not in full:
            continue
        if len(names) > 1:
            raise InputError(
                f"the mask {full[stem].name} fits several photos: {', '.join(names)}",
                hint=f"name the masks {names[0]}.png, {names[1]}.png, …",
            )
        assigned[names[0]] = full[stem]
    return assigned


def _by_number(masks: list[Path], photo_names: list[str]) -> dict[str, Path]:
    numbers = [int(p.stem) for p in masks if re.fullmatch(r"\d+", p.stem)]
    if len(masks) != len(photo_names) or sorted(numbers) != list(range(len(masks))):
        return {}
    in_order = sorted(masks, key=lambda p: int(p.stem))
    return dict(zip(sorted(photo_names), in_order, strict=True))


def read_mask(path: Path, photo: DecodedPhoto) -> NDArray[np.uint8]:
    """Mask (H, W) of 0 and 255, upright like the photo.

    A mask may have the size of the upright photo or of the pixels as stored, before EXIF
    orientation; then it is turned along. Grey values split at 128; transparency counts as
    background.

    Raises:
        InputError: unreadable, or another size than the photo.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            size = image.size
            height, width = photo.rgb.shape[:2]
            if size != (width, height) and size == photo.stored_size_px:
                upright = orient(image, photo.tags.orientation)
            else:
                upright = image
            pixels = _grey(upright)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the mask {path} ({error})") from error
    if pixels.shape != (height, width):
        raise InputError(
            f"the mask {path.name} has {size[0]}×{size[1]} pixels, its photo {width}×{height}",
            hint="masks must have the size of their photos",
        )
    return binary(pixels)


def binary(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0 and 255 from grey values, split at 128."""
    return np.where(grey > 127, OBJECT, np.uint8(0))


def shrink_mask(mask: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The mask of the photo after `decode.shrink` to this size."""
    if mask.shape == (height, width):
        return mask
    return binary(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I"):
        return np.where(np.asarray(image) > 0, OBJECT, np.uint8(0))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
        grey = rgba[..., :3].max(axis=2) * rgba[..., 3] // 255
        return grey.astype(np.uint8)
    if image.mode == "P":
        return np.asarray(image.convert("RGB")).max(axis=2)
    return np.asarray(image.convert("L"))
