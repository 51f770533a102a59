"""Renders of a trained surface beside the photos, small enough for a CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from pipeline.formats.case import read_rgb
from pipeline.metrics.images import psnr_db, ssim

ERROR_FULL_SCALE = 64
"""Mean absolute difference of the channels (of 255) at the end of the colour scale."""

_BESIDE = np.uint8(128)


class Renderer(Protocol):
    """A trained surface with its cameras; see `pipeline.porf.trained.TrainedModel`."""

    K: NDArray
    c2w: NDArray

    def render(
        self, K: NDArray, c2w_normalised: NDArray, width: int, height: int
    ) -> dict[str, NDArray]:
        """Pictures `rgb`, `normal`, `opacity` of one view."""


@dataclass(frozen=True)
class RenderedView:
    """Likeness of one rendered view.

    Attributes:
        index: of the view.
        size_px: width and height of the render.
        psnr_db, ssim: render against photo.
    """

    index: int
    size_px: tuple[int, int]
    psnr_db: float
    ssim: float


def scaled_intrinsics(K: NDArray, scale_x: float, scale_y: float) -> NDArray:
    """Intrinsics (3, 3) of an image resized by these factors, pixel centres at integers."""
    shift = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    resized: NDArray = np.linalg.inv(shift) @ np.diag([scale_x, scale_y, 1.0]) @ shift @ K
    return resized


def render_view(
    model: Renderer,
    index: int,
    photo_path: Path,
    mask_path: Path | None,
    max_side_px: int,
    out: Path,
) -> RenderedView:
    """Render view `index`, and write `<index>_{photo,render,normal,error}.png` into `out`.

    Args:
        mask_path: white on the object; where there is one, nothing else was trained on, so both
            pictures are grey beside the object, and PSNR is that of the object's pixels.
    """
    photo = read_rgb(photo_path)
    full_height, full_width = photo.shape[:2]
    shrink = min(1.0, max_side_px / max(full_width, full_height))
    width, height = round(full_width * shrink), round(full_height * shrink)
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    K = scaled_intrinsics(model.K[index], width / full_width, height / full_height)
    rendered = model.render(K, model.c2w[index], width, height)
    render, mask = rendered["rgb"], None
    if mask_path is not None:
        full_mask = read_rgb(mask_path).max(axis=2)
        mask = cv2.resize(full_mask, (width, height), interpolation=cv2.INTER_AREA) > 127
        small, render = (np.where(mask[..., None], p, _BESIDE) for p in (small, render))
    pictures = {
        "photo": small,
        "render": render,
        "normal": normal_picture(rendered["normal"], rendered["opacity"], model.c2w[index]),
        "error": error_picture(small, render),
    }
    out.mkdir(parents=True, exist_ok=True)
    for kind, picture in pictures.items():
        Image.fromarray(picture).save(out / f"{index:03d}_{kind}.png")
    return RenderedView(index, (width, height), psnr_db(small, render, mask), ssim(small, render))


def normal_picture(normal: NDArray, opacity: NDArray, c2w: NDArray) -> NDArray[np.uint8]:
    """Normals (h, w, 3) as colours, as is usual: red to the right, green up, blue to the viewer.

    Args:
        normal: in the frame that `c2w` (4, 4) leads to; any length.
        opacity: (h, w); where nothing is, the picture fades to white.
    """
    right_down_away = normal @ c2w[:3, :3]
    length = np.linalg.norm(right_down_away, axis=2, keepdims=True)
    towards_viewer = right_down_away / np.maximum(length, 1e-9) * np.array([1.0, -1.0, -1.0])
    cover = np.clip(opacity, 0, 1)[..., None]
    colours = cover * (towards_viewer + 1) / 2 + (1 - cover)
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def error_picture(photo: NDArray, render: NDArray) -> NDArray[np.uint8]:
    """Mean absolute difference of the channels on a dark-to-bright scale (magma)."""
    difference = np.abs(photo.astype(np.float64) - render.astype(np.float64)).mean(axis=2)
    colours = colormaps["magma"](np.clip(difference / ERROR_FULL_SCALE, 0, 1))[..., :3]
    return np.round(255 * colours).astype(np.uint8)
