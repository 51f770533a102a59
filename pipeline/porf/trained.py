"""A trained surface as later stages use it."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.porf.artifacts import MODEL_FILE
from pipeline.porf.checkpoint import FORMAT, load_plain
from pipeline.porf.config import TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.models import build_field, resolve_device
from pipeline.porf.rays import FieldModel, RayBatch, camera_rays


class TrainedModel:
    """Field and cameras of a finished training; nothing here tracks gradients.

    Attributes:
        K: (N, 3, 3) intrinsics at the photos' full size, pixel centres at integers, float64.
        c2w: (N, 4, 4) accepted cameras, normalised frame, float64.
        scale_mat: (4, 4) normalised → world frame.
        width, height: of the photos, pixels.
        config: options of the training.
        device: where the field is.
    """

    def __init__(
        self, field: FieldModel, state: dict[str, Any], config: TrainConfig, device: torch.device
    ) -> None:
        self.field, self.config, self.device = field, config, device
        self.K: NDArray = state["K"].cpu().numpy()
        self.c2w: NDArray = state["c2w"].cpu().numpy()
        self.scale_mat: NDArray = state["scale_mat"].cpu().numpy()
        self.width, self.height = (int(side) for side in state["size_px"])

    @torch.no_grad()
    def sdf(self, x: Tensor) -> Tensor:
        """Signed distances (N,) at x (N, 3), normalised frame and units, negative inside."""
        return self.field.sdf(x)

    @torch.no_grad()
    def sdf_and_normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances (N,) and unit normals (N, 3), outward, at x (N, 3)."""
        sdf, gradient = self.field.sdf_and_normal(x)
        return sdf, nn.functional.normalize(gradient, dim=1)

    @torch.no_grad()
    def render(
        self,
        K: NDArray,
        c2w_normalised: NDArray,
        width: int,
        height: int,
        chunk_rays: int = 2048,
    ) -> dict[str, NDArray]:
        """Render one view.

        Args:
            K: (3, 3) intrinsics for `width` × `height` pixels, centres at integers.
            c2w_normalised: (4, 4) camera-to-world, normalised frame.
            chunk_rays: rays rendered at once.

        Returns:
            rgb (h, w, 3) uint8; normal (h, w, 3) in [-1, 1], normalised frame, zero where nothing
            is; depth (h, w) distance along the ray, normalised units; opacity (h, w) of what lies
            inside the unit sphere.
        """
        parts: dict[str, list[Tensor]] = {"rgb": [], "normal": [], "depth": [], "opacity": []}
        pose = torch.as_tensor(np.asarray(c2w_normalised)[None]).float().to(self.device)
        K_inv = torch.as_tensor(np.linalg.inv(K)[None]).float().to(self.device)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([x, y], dim=-1).reshape(-1, 2).float().to(self.device)
        for xy in pixels.split(chunk_rays):
            view = torch.zeros(len(xy), dtype=torch.long, device=self.device)
            output = self.field.render(camera_rays(pose, K_inv, view, xy), None)
            parts["rgb"].append(
                self._levels(output.color).round().clamp(0, 255).to(torch.uint8).cpu()
            )
            parts["normal"].append(output.normal.cpu())
            parts["depth"].append(output.depth.cpu())
            parts["opacity"].append(output.opacity.cpu())
        return {
            name: torch.cat(rows).view(height, width, *rows[0].shape[1:]).numpy()
            for name, rows in parts.items()
        }

    @torch.no_grad()
    def backdrop(self, origins: NDArray, directions: NDArray, chunk_rays: int = 8192) -> NDArray:
        """Grey levels (R, 3), RGB, that rays would show if nothing were in the unit sphere; of the
        fast field.

        Args:
            origins, directions: (R, 3) and unit (R, 3), normalised frame.
        """
        field = cast(GridModel, self.field)
        parts = []
        for begin in range(0, len(origins), chunk_rays):
            rows = slice(begin, begin + chunk_rays)
            ends = (torch.tensor(e[rows], dtype=torch.float32) for e in (origins, directions))
            rays = RayBatch(*(end.to(self.device) for end in ends))
            parts.append(self._levels(field.outside_color(rays)).cpu())
        return torch.cat(parts).numpy()

    def _levels(self, color: Tensor) -> Tensor:
        """Grey levels (R, 3), RGB, of trained colours."""
        to_rgb = [2, 1, 0] if self.config.color_order == "bgr" else [0, 1, 2]
        return color[:, to_rgb] * self.config.color_divisor


def load_trained(train_dir: Path, device: str | torch.device = "cpu") -> TrainedModel:
    """Open the model of a finished training.

    Args:
        train_dir: artifact folder of the train stage.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        InputError: no model there, or one of another version.
    """
    path = train_dir / MODEL_FILE
    if not path.is_file():
        raise InputError(
            f"no trained surface at {path}",
            hint="run the train stage first, with train.steps above 0 (0 finds cameras alone)",
        )
    resolved = resolve_device(device) if isinstance(device, str) else device
    try:
        state = load_plain(path, resolved)
        if state.get("format") != FORMAT:
            raise ValueError(f"{path} has format {state.get('format')}, expected {FORMAT}")
        config = TrainConfig.model_validate(state["options"])
        field = build_field(config, None, resolved)
        cast(nn.Module, field).load_state_dict(state["field"])
    except (ValueError, KeyError, RuntimeError, ValidationError) as error:
        raise InputError(
            f"{path} is not a model that this version can open ({error})",
            hint="run the train stage again",
        ) from error
    cast(nn.Module, field).eval().requires_grad_(False)
    return TrainedModel(field, state, config, resolved)
