"""Renders of any tool against photos, by file name."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.case import read_rgb, sorted_images
from pipeline.metrics.images import psnr_db, ssim
from pipeline.metrics.lpips import find_lpips


@dataclass
class ComparedImages:
    """Likeness of each pair, in the order of the names; `lpips` None without its weights."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    lpips: list[float] | None = None
    notes: list[str] = field(default_factory=list)


def compare_folders(renders: Path, photos: Path, masks: Path | None = None) -> ComparedImages:
    """Compare the pictures of one name in two folders.

    Args:
        masks: folder of masks of the same names, white where pixels count.

    Raises:
        InputError: a folder is missing, no name is in both, a mask is missing, or sizes differ.
    """
    by_stem = {path.stem: path for path in sorted_images(photos)}
    pairs = [(path, by_stem[path.stem]) for path in sorted_images(renders) if path.stem in by_stem]
    if not pairs:
        raise InputError(
            f"no picture in {renders} has the name of one in {photos}",
            hint="renders and photos are matched by file name without suffix",
        )
    masks_by_stem = {path.stem: path for path in sorted_images(masks)} if masks else {}
    network = find_lpips()
    found = ComparedImages(lpips=None if network is None else [])
    for render_path, photo_path in pairs:
        render, photo = read_rgb(render_path), read_rgb(photo_path)
        if render.shape != photo.shape:
            raise InputError(
                f"{render_path.name} is {render.shape[1]}×{render.shape[0]} pixels, its photo "
                f"{photo.shape[1]}×{photo.shape[0]}",
                hint="render at the photos' size",
            )
        mask = _mask(masks_by_stem, photo_path, photo) if masks else None
        found.psnr_db.append(psnr_db(render, photo, mask))
        found.ssim.append(ssim(render, photo))
        if network is not None and found.lpips is not None:
            found.lpips.append(network(render, photo))
    if network is None:
        found.notes.append(
            "LPIPS is left out: its weights are not at hand (alexnet-owt-7be5be79.pth and "
            "lpips_alex.pth in torch's hub folder)"
        )
    return found


def _mask(masks: dict[str, Path], photo_path: Path, photo: NDArray) -> NDArray:
    path = masks.get(photo_path.stem)
    if path is None:
        raise InputError(f"no mask for {photo_path.name}", hint="one mask a picture, same name")
    mask = read_rgb(path).max(axis=2) > 127
    if mask.shape != photo.shape[:2]:
        raise InputError(f"the mask {path.name} and its photo differ in size")
    return np.asarray(mask)
