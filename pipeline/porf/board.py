"""Curves and pictures of a training for TensorBoard, on request."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import InputError
from pipeline.porf.observations import Observations, scaled_intrinsics, training_size
from pipeline.porf.rays import FieldModel, camera_rays

FOLDER = "tensorboard"
_PICTURE_SIDE_PX = 96
_CHUNK_RAYS = 1024


class Board:
    """Writes event files; does nothing where it was not asked for.

    Args:
        work: folder that survives a kill; the files lie in `tensorboard` beneath it.
        wanted: whether anything is written.
        step: from which the training goes on; what was written after it is taken back.

    Raises:
        InputError: wanted, and the package is not installed.
    """

    def __init__(self, work: Path, wanted: bool, step: int) -> None:
        self.folder = work / FOLDER
        self._writer: Any = None
        if not wanted:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (optional package)
        except ImportError as error:
            raise InputError(
                "train.tensorboard needs the package tensorboard, which is not installed",
                hint="pip install 'porf-pipeline[tensorboard]', or leave the option out",
            ) from error
        self._writer = SummaryWriter(str(self.folder), purge_step=step or None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def pictures(
        self, step: int, field: FieldModel, observations: Observations, c2w: Tensor
    ) -> None:
        """The first view as it is rendered now, and its normals, small."""
        if self._writer is None:
            return
        rendered = small_render(field, observations, c2w, 0)
        for name, picture in rendered.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self, out: Path) -> None:
        """Finish, and hand the files over to the training's results."""
        if self._writer is not None:
            self._writer.close()
            shutil.copytree(self.folder, out / FOLDER, dirs_exist_ok=True)


@torch.no_grad()
def small_render(
    field: FieldModel, observations: Observations, c2w: Tensor, view: int
) -> dict[str, Tensor]:
    """`photo`, `render` and `normal` (h, w, 3) in [0, 1] of one view, at most 96 pixels wide."""
    full_height, full_width = observations.images.shape[1:3]
    width, height = training_size(full_width, full_height, _PICTURE_SIDE_PX)
    K = observations.K[view : view + 1].double().cpu().numpy()
    K = scaled_intrinsics(K, width / full_width, height / full_height)
    device = observations.device
    K_inv = torch.linalg.inv(torch.from_numpy(K)).float().to(device)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2).float().to(device)
    colors, normals = [], []
    for xy in pixels.split(_CHUNK_RAYS):
        first = torch.zeros(len(xy), dtype=torch.long, device=device)
        output = field.render(camera_rays(c2w[view : view + 1], K_inv, first, xy), None)
        colors.append(output.color.clamp(0, 1).cpu())
        normals.append((0.5 + 0.5 * output.normal).clamp(0, 1).cpu())
    photo = observations.images[view].cpu().permute(2, 0, 1)[None].float()
    photo = F.interpolate(photo, (height, width), mode="area")[0].permute(1, 2, 0)
    order = [0, 1, 2] if observations.color_order == "rgb" else [2, 1, 0]
    return {
        "photo": (photo / 255)[..., order],
        "render": torch.cat(colors).view(height, width, 3)[..., order],
        "normal": torch.cat(normals).view(height, width, 3),
    }
