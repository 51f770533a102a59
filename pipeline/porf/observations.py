"""The photos as training sees them: uint8 on the device, and batches of their pixels."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.errors import InputError
from pipeline.formats.case import Case, read_rgb
from pipeline.geometry.cameras import project
from pipeline.porf.config import TrainConfig
from pipeline.porf.memory import check_images_fit
from pipeline.progress import Progress

_ROOM, _LEAST_ROOM_PX = 0.1, 8
"""Around the object in its mask, share of its extent: the outline is trained from both sides."""
BLOCK_PX = 16
"""Side of the blocks of pixels that are held out together."""


@dataclass(frozen=True)
class PixelBatch:
    """Some pixels of some views.

    Attributes:
        view: (B,) index of the view.
        xy_px: (B, 2) float, in the pixels of `Observations.K`.
        rgb: (B, 3) in [0, 1], in the order that the field learns.
        trained: (B,) 1 where the pixel may be trained on, 0 where it is held out.
        mask: (B,) 1 on the object, or None without masks.
    """

    view: Tensor
    xy_px: Tensor
    rgb: Tensor
    trained: Tensor
    mask: Tensor | None

    def rows(self, rows: slice) -> "PixelBatch":
        """Some of the pixels."""
        return PixelBatch(
            view=self.view[rows],
            xy_px=self.xy_px[rows],
            rgb=self.rgb[rows],
            trained=self.trained[rows],
            mask=None if self.mask is None else self.mask[rows],
        )


@dataclass(frozen=True)
class Observations:
    """All views at training size.

    Attributes:
        images: (V, H, W, 3) uint8, colours in the order that the field learns.
        color_divisor: 8-bit value that is full brightness to the field.
        color_order: `rgb` or `bgr`.
        masks: (V, H, W) bool, or None.
        K, K_inv: (V, 3, 3) intrinsics at training size, pixel centres at integers.
        box_px: (V, 4) x0, y0, width, height of the pixels that batches are drawn from.
        heldout: (V, ceil(H/16), ceil(W/16)) bool, blocks never trained on.
    """

    images: Tensor
    masks: Tensor | None
    K: Tensor
    K_inv: Tensor
    box_px: Tensor
    heldout: Tensor
    color_divisor: int = 255
    color_order: str = "rgb"

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def calibrated(
        self, K_before: NDArray, K: NDArray, distortion: tuple[float, float] = (0.0, 0.0)
    ) -> "Observations":
        """The same photos with another calibration.

        Args:
            K_before, K: (V, 3, 3) old and new intrinsics at the photos' full size.
            distortion: k1, k2 that the photos have under K; it is undone.
        """
        scale = (
            self.K[0, 0, 0].item() / K_before[0, 0, 0],
            self.K[0, 1, 1].item() / K_before[0, 1, 1],
        )
        small = scaled_intrinsics(K, *scale)
        photos = self if distortion == (0.0, 0.0) else self._undistorted(small, distortion)
        return replace(
            photos,
            K=torch.from_numpy(small).float().to(self.device),
            K_inv=torch.from_numpy(np.linalg.inv(small)).float().to(self.device),
        )

    def _undistorted(self, K: NDArray, distortion: tuple[float, float]) -> "Observations":
        """Photos and masks without a distortion k1, k2 under K (V, 3, 3), training size."""
        layers = [self.images.cpu().numpy()]
        if self.masks is not None:
            layers.append(self.masks.cpu().numpy().astype(np.uint8))
        size = (self.images.shape[2], self.images.shape[1])
        straight = [np.empty_like(layer) for layer in layers]
        for view, K_view in enumerate(K):
            maps = cv2.initUndistortRectifyMap(
                K_view, np.array([*distortion, 0.0, 0.0]), np.eye(3), K_view, size, cv2.CV_32FC1
            )
            for before, after in zip(layers, straight, strict=True):
                after[view] = cv2.remap(
                    before[view], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                )
        images, *masks = (torch.from_numpy(layer).to(self.device) for layer in straight)
        return replace(self, images=images, masks=masks[0].bool() if masks else None)

    def draw(self, count: int, view: int | None, generator: torch.Generator) -> PixelBatch:
        """`count` random pixels of all views, or of one; generator on the images' device."""
        if view is None:
            views = torch.randint(len(self), (count,), generator=generator, device=self.device)
        else:
            views = torch.full((count,), view, device=self.device)
        box = self.box_px[views]
        draw = torch.rand(count, 2, generator=generator, device=self.device)
        xy = box[:, :2] + (draw * box[:, 2:]).long().minimum(box[:, 2:] - 1)
        return self.pixels(views, xy)

    def pixels(self, views: Tensor, xy: Tensor) -> PixelBatch:
        """The pixels xy (B, 2), integers, of `views` (B,)."""
        x, y = xy.unbind(1)
        height, width = self.images.shape[1:3]
        flat = (views * height + y) * width + x
        rgb = self.images.view(-1, 3).index_select(0, flat).float() / self.color_divisor
        mask = None
        if self.masks is not None:
            mask = self.masks.view(-1).index_select(0, flat).float()
        trained = 1.0 - self.heldout[views, y // BLOCK_PX, x // BLOCK_PX].float()
        return PixelBatch(views, xy.float(), rgb, trained, mask)

    def heldout_pixels(self, limit: int, generator: torch.Generator) -> PixelBatch | None:
        """Up to `limit` held-out pixels inside the boxes; None where nothing is held out."""
        views, rows, columns = torch.nonzero(self.heldout.cpu(), as_tuple=True)
        if not len(views):
            return None
        chosen = torch.randint(len(views), (4 * limit,), generator=generator)
        offset = torch.randint(BLOCK_PX, (4 * limit, 2), generator=generator)
        xy = torch.stack([columns[chosen], rows[chosen]], dim=1) * BLOCK_PX + offset
        box = self.box_px.cpu()[views[chosen]]
        inside = ((xy >= box[:, :2]) & (xy < box[:, :2] + box[:, 2:])).all(1)
        xy, views = xy[inside][:limit], views[chosen][inside][:limit]
        if not len(xy):
            return None
        return self.pixels(views.to(self.device), xy.to(self.device))


def load_observations(
    case: Case, config: TrainConfig, seed: int, device: torch.device, progress: Progress
) -> Observations:
    """Read, reduce and place all views.

    Raises:
        InputError: an image cannot be read, a view does not see the unit sphere at all, or the
            images do not fit into memory.
    """
    width, height = training_size(case.width, case.height, config.max_image_side)
    count = len(case)
    with_masks = config.use_masks and case.mask_paths is not None
    check_images_fit(count, (width, height), 4 if with_masks else 3, device)
    images = np.empty((count, height, width, 3), np.uint8)
    masks = np.empty((count, height, width), bool) if with_masks else None
    for i, path in enumerate(case.image_paths):
        rgb = _resized(read_rgb(path), width, height)
        images[i] = rgb if config.color_order == "rgb" else rgb[..., ::-1]
        if masks is not None and case.mask_paths is not None:
            with Image.open(case.mask_paths[i]) as mask:
                masks[i] = _resized(np.asarray(mask.convert("L")), width, height) > 127
        progress.advance("images", i + 1, count)
    K = scaled_intrinsics(case.cameras.K, width / case.width, height / case.height)
    box = np.tile(np.array([0, 0, width, height]), (count, 1))
    if config.rays_near_object:
        box = sphere_boxes(K, case.cameras.c2w_normalised, width, height)
        if masks is not None:
            box = object_boxes(box, masks)
    rng = np.random.default_rng([seed, 1])
    blocks = (count, -(-height // BLOCK_PX), -(-width // BLOCK_PX))
    K_tensor = torch.from_numpy(K).float()
    return Observations(
        images=torch.from_numpy(images).to(device),
        masks=None if masks is None else torch.from_numpy(masks).to(device),
        K=K_tensor.to(device),
        K_inv=torch.from_numpy(np.linalg.inv(K)).float().to(device),
        box_px=torch.from_numpy(box).long().to(device),
        heldout=torch.from_numpy(rng.random(blocks) < config.heldout_blocks).to(device),
        color_divisor=config.color_divisor,
        color_order=config.color_order,
    )


def training_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Image size for training: the longer side at most `max_side` pixels (0 = no limit)."""
    if max_side == 0 or max(width, height) <= max_side:
        return width, height
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def scaled_intrinsics(K: NDArray, scale_x: float, scale_y: float) -> NDArray:
    """K (N, 3, 3) of images resized by these factors; pixel centres at integer coordinates."""
    scaled = np.array(K, dtype=np.float64)
    scaled[:, 0] *= scale_x
    scaled[:, 1] *= scale_y
    scaled[:, 0, 2] += 0.5 * (scale_x - 1)
    scaled[:, 1, 2] += 0.5 * (scale_y - 1)
    return scaled


def sphere_boxes(K: NDArray, c2w: NDArray, width: int, height: int) -> NDArray:
    """Boxes (N, 4) x0, y0, width, height around the unit sphere in every view, in pixels.

    A camera in or near the sphere, or one that has part of it behind, gets its whole view.

    Raises:
        InputError: a view does not see the sphere.
    """
    points = _sphere_points()
    boxes = np.empty((len(K), 4), dtype=np.int64)
    for i in range(len(K)):
        xy, depth = project(K[i], c2w[i], points)
        if np.linalg.norm(c2w[i, :3, 3]) < 1.05 or (0 < (depth <= 0.01).sum() < len(points)):
            boxes[i] = (0, 0, width, height)
            continue
        low = np.array([-1.0, -1.0]) if depth.max() <= 0 else np.floor(xy.min(axis=0)) - 1
        high = np.array([-1.0, -1.0]) if depth.max() <= 0 else np.ceil(xy.max(axis=0)) + 2
        low, high = np.maximum(low, 0), np.minimum(high, (width, height))
        if (high - low < 2).any():
            raise InputError(
                f"view {i} does not see the region of interest (the unit sphere)",
                hint="check scale_mat in the camera file, or set the region of interest",
            )
        boxes[i] = (*low, *(high - low))
    return boxes


def object_boxes(box: NDArray, masks: NDArray) -> NDArray:
    """Boxes (N, 4) cut down to what the masks (N, H, W) show, with room around it.

    A view whose box holds nothing of its mask keeps it: all that it says is that nothing is there.
    """
    cut = box.copy()
    for i, mask in enumerate(masks):
        x, y, width, height = box[i]
        rows, columns = (mask[y : y + height, x : x + width].any(axis) for axis in (1, 0))
        if not rows.any():
            continue
        for k, shown, size in ((0, columns, width), (1, rows, height)):
            found = np.flatnonzero(shown)
            room = max(_LEAST_ROOM_PX, round(_ROOM * (found[-1] - found[0] + 1)))
            low, high = max(0, found[0] - room), min(size, found[-1] + 1 + room)
            cut[i, k], cut[i, k + 2] = box[i, k] + low, high - low
    return cut


def _sphere_points(count: int = 2000) -> NDArray:
    """Evenly spread points (count, 3) on the unit sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)


def _resized(image: NDArray, width: int, height: int) -> NDArray:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
