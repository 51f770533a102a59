"""A case in the PoRF data convention: what training starts from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras, load_idr_cameras
from pipeline.formats.matches import ViewMatches, load_matches

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Case:
    """Undistorted views with cameras to refine.

    Attributes:
        image_paths: N files of one size, sorted; index = position.
        mask_paths: N files, or None where the case has no masks.
        cameras: intrinsics, world-frame poses and the region of interest.
        matches: N entries.
        width, height: pixels.
    """

    image_paths: list[Path]
    mask_paths: list[Path] | None
    cameras: IdrCameras
    matches: list[ViewMatches]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.image_paths)

    def load_images(self) -> NDArray:
        """All views as (N, H, W, 3) uint8 RGB."""
        return np.stack([read_rgb(path) for path in self.image_paths])

    def load_masks(self) -> NDArray | None:
        """All masks as (N, H, W) bool, or None; true = object."""
        if self.mask_paths is None:
            return None
        masks = []
        for path in self.mask_paths:
            with Image.open(path) as image:
                masks.append(np.asarray(image.convert("L")) > 127)
        return np.stack(masks)


def read_rgb(path: Path) -> NDArray:
    """One image file as (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which `convert` would cut off at 255
                grey = np.round(np.asarray(image) / 257.0).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path} ({error})") from error


def load_case(scene_dir: Path, matches_dir: Path, cameras_file: str = "cameras_colmap.npz") -> Case:
    """Open a case.

    Args:
        scene_dir: holds `image/`, optionally `mask/`, and `cameras_file`.
        matches_dir: holds `colmap_matches/`; the same folder in a case of the original authors.

    Raises:
        InputError: a part is missing, or counts and sizes do not fit together.
    """
    image_paths = sorted_images(scene_dir / "image")
    cameras = load_idr_cameras(scene_dir / cameras_file)
    if len(cameras) != len(image_paths):
        raise InputError(
            f"{scene_dir}: {len(image_paths)} images but {len(cameras)} cameras in {cameras_file}",
            hint="index i of the cameras is position i of the sorted images",
        )
    width, height = common_size(image_paths)
    masks = sorted_images(scene_dir / "mask") if (scene_dir / "mask").is_dir() else None
    if masks is not None:
        if len(masks) != len(image_paths):
            raise InputError(f"{scene_dir}: {len(image_paths)} images but {len(masks)} masks")
        if common_size(masks) != (width, height):
            raise InputError(f"{scene_dir}: masks and images differ in size")
    matches = load_matches(matches_dir / "colmap_matches", len(image_paths))
    return Case(image_paths, masks, cameras, matches, width, height)


def sorted_images(folder: Path) -> list[Path]:
    """Image files of a folder by name.

    Raises:
        InputError: no folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: expected one image file a view in it")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"no images in {folder}: expected {', '.join(IMAGE_SUFFIXES)} files")
    return paths


def common_size(paths: Iterable[Path]) -> tuple[int, int]:
    """(width, height) that all image files share, in pixels.

    Raises:
        InputError: a file cannot be read, or the sizes differ.
    """
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        try:
            with Image.open(path) as image:
                size = image.size
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the image {path} ({error})") from error
        if first is None:
            first = (path, size)
        elif size != first[1]:
            raise InputError(
                f"images differ in size: {first[0].name} is {first[1]}, {path.name} is {size}"
            )
    if first is None:
        raise InputError("no images to take a size from")
    return first[1]
