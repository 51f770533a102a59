"""Fields and pose models by their options."""

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.porf.config import PoseConfig, TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.poses import LearnPose, PoRF, PoseField
from pipeline.porf.rays import FieldModel


class FixedPoses(PoseField):
    """The given poses as they are."""

    def residual(self, idx: Tensor | None = None) -> Tensor:
        """See `PoseField.residual`: zeros."""
        like = self.init_translation if idx is None else self.init_translation[idx]
        return like.new_zeros(*like.shape[:-1], 6)


def build_field(
    config: TrainConfig, generator: torch.Generator | None, device: torch.device
) -> FieldModel:
    """The field that `config.field` names; weights are drawn on the CPU, then moved."""
    if config.field == "grid":
        model: nn.Module = GridModel(config.grid, generator)
    else:
        model = NeusModel(config.neus, generator)
    return cast(FieldModel, model.to(device))


def build_poses(config: PoseConfig, c2w: Tensor, generator: torch.Generator | None) -> PoseField:
    """The pose model that `config.model` names, starting from c2w (V, 4, 4)."""
    if config.model == "fixed":
        return FixedPoses(c2w)
    if config.model == "learn_pose":
        return LearnPose(c2w)
    return PoRF(
        c2w, config.mode, scale=config.scale, zero_init=config.zero_init, generator=generator
    )


def field_schedule(config: TrainConfig) -> tuple[int, float]:
    """Warm-up steps and final share of the field's learning rates."""
    section = config.grid if config.field == "grid" else config.neus
    return section.warmup_steps, section.final_rate


def regulariser_weights(config: TrainConfig) -> dict[str, float]:
    """Weights of the regularisers by their names in `RenderOutput`."""
    if config.field == "grid":
        return {
            "eikonal": config.grid.eikonal_weight,
            "anchors": config.grid.anchor_weight,
            "roughness": config.grid.roughness_weight,
        }
    return {
        "eikonal": config.neus.eikonal_weight,
        "distortion": config.neus.distortion_weight,
    }


def resolve_device(name: str) -> torch.device:
    """`auto` becomes CUDA where there is one.

    Raises:
        InputError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "train.device is cuda, but torch finds no CUDA device",
            hint="set train.device to cpu or auto, or install a CUDA build of torch",
        )
    if name == "auto":
        name = "cuda" if available else "cpu"
    return torch.device(name)
