"""What passes between the trainer and a field: rays in, rendered colours and regularisers out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class RayBatch:
    """Rays in the normalised frame (the object lies in the unit sphere).

    Attributes:
        origins: (B, 3) camera centres; carries the poses' gradient where the trainer wants it.
        directions: (B, 3) unit length; likewise.
    """

    origins: Tensor
    directions: Tensor


@dataclass(frozen=True)
class RenderOutput:
    """What a field renders along B rays.

    Attributes:
        color: (B, 3) in [0, 1], the outside included.
        opacity: (B,) summed weights of the samples inside the unit sphere.
        depth: (B,) mean distance along the ray of the inside samples, normalised units.
        normal: (B, 3) weighted sum of unit normals, normalised frame.
        regularisers: scalars that the trainer weights and adds to the loss, by name.
        figures: detached scalars worth logging, by name.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    regularisers: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


class FieldModel(Protocol):
    """A surface with colour that can be rendered and trained; always an `nn.Module` as well."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Adam groups with their base learning rates; the trainer scales them by its schedule."""

    def begin_step(self, step: int, total_steps: int) -> None:
        """Set the schedules for `step`; called without gradients before each training render, and
        once with `step` = `total_steps` at the end.

        Everything it derives is a function of its arguments and of the state dict, so that a
        resumed training continues exactly.
        """

    def render(self, rays: RayBatch, generator: torch.Generator | None) -> RenderOutput:
        """Render; samples are jittered from `generator`, or evenly placed where it is None."""

    def sdf(self, x: Tensor) -> Tensor:
        """Signed distances (N,) at points (N, 3), normalised frame, negative inside."""

    def sdf_and_normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances (N,) and their gradients (N, 3), not scaled to unit length."""


@runtime_checkable
class ChunkedFieldModel(FieldModel, Protocol):
    """A field that can differentiate a batch chunk by chunk, where one graph would be too large.

    Attributes:
        chunk_rays: rays in a chunk; None = chosen by device and memory.
    """

    chunk_rays: int | None

    def backward(
        self,
        rays: RayBatch,
        generator: torch.Generator | None,
        color_loss: Callable[[Tensor, slice], Tensor],
        regulariser_weights: Mapping[str, float],
    ) -> tuple[RenderOutput, Tensor]:
        """Render and add the loss' gradients to the field's parameters.

        Args:
            color_loss: colours (b, 3) of the batch's rows in a slice → their share of the loss.

        Returns:
            The detached output, and a scalar whose gradient after the rays is the loss'.
        """

    def halve_chunk(self) -> int | None:
        """Use half as many rays at a time from here on; how many, or None where it is one."""


def camera_rays(c2w: Tensor, K_inv: Tensor, view: Tensor, xy_px: Tensor) -> RayBatch:
    """Rays through pixels.

    Args:
        c2w: (V, 4, 4) camera-to-world, normalised frame.
        K_inv: (V, 3, 3) inverse intrinsics, pixel centres at integer coordinates.
        view: (B,) view of each pixel.
        xy_px: (B, 2) pixels, same dtype as the cameras.
    """
    homogeneous = torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)
    in_camera = (K_inv[view] @ homogeneous[:, :, None])[:, :, 0]
    in_camera = torch.nn.functional.normalize(in_camera, dim=1)
    pose = c2w[view]
    directions = (pose[:, :3, :3] @ in_camera[:, :, None])[:, :, 0]
    return RayBatch(pose[:, :3, 3], directions)


def unit_sphere_interval(rays: RayBatch, margin: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays run inside the unit sphere.

    Returns:
        near and far (B, 1) along the ray, near ≥ `margin`; and a mask (B,) of the rays that cross
        the sphere in front of the camera. Rays that miss get a short interval at the closest point.
    """
    along = (rays.origins * rays.directions).sum(1)
    discriminant = along * along - (rays.origins * rays.origins).sum(1) + 1.0
    half = discriminant.clamp(min=margin * margin).sqrt()
    near, far = (-along - half).clamp(min=margin), -along + half
    hit = (discriminant > margin * margin) & (far > 2 * margin)
    far = torch.maximum(far, near + margin)
    return near[:, None], far[:, None], hit
