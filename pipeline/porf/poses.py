"""Camera pose models: what turns the given poses into the refined ones.

`PoRF` is the pose residual field of Bian et al., "PoRF: Pose Residual Field for Accurate Neural
Surface Reconstruction" (ICLR 2024), section 3.1: one small network, shared by all views, maps a
view's index and its given pose to six residuals. `LearnPose` is the paper's baseline with six free
parameters a view. Both add their residuals to the axis-angle vector and the translation of the
camera-to-world pose, and both return all views in one batched pass.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.porf.so3 import so3_exp, so3_log

PoseMode = Literal["porf", "index_only", "pose_only"]
POSE_MODES: tuple[str, ...] = ("porf", "index_only", "pose_only")

_ROTATION_TOLERANCE = 1e-3


def _check_poses(c2w: Tensor) -> None:
    if c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or len(c2w) == 0:
        raise InputError(f"Expected camera poses of shape (V, 4, 4), got {tuple(c2w.shape)}.")
    rotation = c2w[:, :3, :3].double()
    identity = torch.eye(3, dtype=torch.float64, device=c2w.device)
    deviation = (rotation @ rotation.transpose(1, 2) - identity).abs().amax((1, 2))
    bad = ~(
        torch.isfinite(c2w).all(-1).all(-1)
        & (deviation < _ROTATION_TOLERANCE)
        & (torch.linalg.det(rotation) > 0)
    )
    if bool(bad.any()):
        views = torch.nonzero(bad).flatten().tolist()
        raise InputError(
            f"Expected camera-to-world matrices with proper rotations; views {views} have none.",
            hint="Scale and mirroring belong into scale_mat, not into the poses.",
        )


def init_linear_(linear: nn.Linear, generator: torch.Generator | None) -> nn.Linear:
    """torch's default initialisation of a linear layer, drawn from `generator`."""
    bound = 1 / math.sqrt(linear.in_features)
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        if linear.bias is not None:
            linear.bias.uniform_(-bound, bound, generator=generator)
    return linear


class PoseField(nn.Module):
    """Base of the pose models: given poses plus six residuals a view.

    Args:
        init_c2w: (V, 4, 4) given camera-to-world poses, OpenCV axes, normalised frame.

    Raises:
        InputError: wrong shape, or a rotation part that is not a rotation.
    """

    init_c2w: Tensor
    init_rotvec: Tensor
    init_translation: Tensor

    def __init__(self, init_c2w: Tensor) -> None:
        super().__init__()
        init_c2w = init_c2w.detach().clone()
        _check_poses(init_c2w)
        rotvec = so3_log(init_c2w[:, :3, :3].double()).to(init_c2w.dtype)
        self.register_buffer("init_c2w", init_c2w)
        self.register_buffer("init_rotvec", rotvec)
        self.register_buffer("init_translation", init_c2w[:, :3, 3].clone())

    @property
    def num_views(self) -> int:
        return len(self.init_c2w)

    def residual(self, idx: Tensor | None = None) -> Tensor:
        """(..., 6): change of the axis-angle vector (radians) and of the translation."""
        raise NotImplementedError

    def forward(self, idx: Tensor | None = None) -> Tensor:
        """Refined camera-to-world poses.

        Args:
            idx: view indices of any shape, or None for all views in order.

        Returns:
            (*idx.shape, 4, 4), or (V, 4, 4) for all views.
        """
        rotvec, translation = self.init_rotvec, self.init_translation
        if idx is not None:
            rotvec, translation = rotvec[idx], translation[idx]
        residual = self.residual(idx)
        rotation = so3_exp(rotvec + residual[..., :3])
        translation = translation + residual[..., 3:]
        top = torch.cat([rotation, translation[..., None]], dim=-1)
        bottom = nn.functional.pad(torch.ones_like(top[..., :1, 3:]), (3, 0))
        return torch.cat([top, bottom], dim=-2)


class PoRF(PoseField):
    """Pose residual field: an MLP shared by all views (paper section 3.1, original code).

    Input (7) = view index scaled to [-1, 1) as ``index / V * 2 - 1``, given axis-angle, given
    translation; `layers` + 1 hidden layers of `hidden` units with ELU; output (6) times `scale`.

    Args:
        init_c2w: (V, 4, 4) given camera-to-world poses, OpenCV axes, normalised frame.
        mode: "porf" feeds index and pose; "index_only" zeroes the pose, "pose_only" the index.
        hidden: width of the hidden layers.
        layers: number of hidden layers after the first.
        scale: factor on the network's output.
        zero_init: start with a zero last layer, so that refinement begins exactly at the given
            poses. The original does not (its first poses are off by about `scale` times 0.05).
        generator: source of the initial weights; None draws from torch's global generator.

    Raises:
        InputError: unknown mode, wrong shape, or a rotation part that is not a rotation.
    """

    network_input: Tensor

    def __init__(
        self,
        init_c2w: Tensor,
        mode: PoseMode = "porf",
        *,
        hidden: int = 256,
        layers: int = 2,
        scale: float = 1e-2,
        zero_init: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(init_c2w)
        if mode not in POSE_MODES:
            raise InputError(
                f"Unknown pose mode {mode!r}; expected one of {', '.join(POSE_MODES)}."
            )
        self.mode = mode
        self.scale = scale
        self.register_buffer("network_input", self._input_for(mode))

        blocks: list[nn.Module] = [init_linear_(nn.Linear(7, hidden), generator), nn.ELU()]
        for _ in range(layers):
            inner = init_linear_(nn.Linear(hidden, hidden), generator)
            blocks.append(nn.Sequential(inner, nn.ELU()))
        last = init_linear_(nn.Linear(hidden, 6), generator)
        if zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        # The nesting gives the parameters the original's names: layers.0, .2.0, .3.0, .4.
        self.layers = nn.Sequential(*blocks, last).to(init_c2w.device, init_c2w.dtype)

    def _input_for(self, mode: str) -> Tensor:
        views = torch.arange(self.num_views, device=self.init_c2w.device).to(self.init_c2w.dtype)
        index = (views / self.num_views * 2 - 1)[:, None]
        pose = torch.cat([self.init_rotvec, self.init_translation], dim=-1)
        if mode == "index_only":
            pose = torch.zeros_like(pose)
        elif mode == "pose_only":
            index = torch.zeros_like(index)
        return torch.cat([index, pose], dim=-1)

    def residual(self, idx: Tensor | None = None) -> Tensor:
        inputs = self.network_input if idx is None else self.network_input[idx]
        return self.layers(inputs) * self.scale


class LearnPose(PoseField):
    """Baseline: six free parameters a view, all zero at the start (original `learn_pose`)."""

    def __init__(self, init_c2w: Tensor) -> None:
        super().__init__(init_c2w)
        zeros = torch.zeros(self.num_views, 3, device=init_c2w.device, dtype=init_c2w.dtype)
        self.r = nn.Parameter(zeros.clone())
        self.t = nn.Parameter(zeros)

    def residual(self, idx: Tensor | None = None) -> Tensor:
        free = torch.cat([self.r, self.t], dim=-1)
        return free if idx is None else free[idx]
