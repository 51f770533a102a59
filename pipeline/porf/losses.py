"""Losses on rendered rays, with the normalisations of the original PoRF code.

Each comes as sum and normaliser where chunks of rays are to be added up, and as the mean that the
published method uses.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EIKONAL_RADIUS = 2.0
"""Samples farther than this from the centre do not count in the eikonal loss."""

_EPSILON = 1e-5


class LossWeights(NamedTuple):
    """Factors of the total loss; defaults of the original's configurations."""

    color: float = 1.0
    eikonal: float = 0.1
    distortion: float = 0.001
    epipolar: float = 0.1


ORIGINAL_WEIGHTS = LossWeights()


def color_loss(color: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """L1: sum over channels, mean over rays.

    Args:
        color, target: (B, 3) in [0, 1].
        mask: (B,) weights of the rays (1 = counts); None = all count. No ray at all gives zero.
    """
    per_ray = (color - target).abs().sum(-1)
    if mask is None:
        return per_ray.mean()
    weight = mask.to(per_ray.dtype)
    return (per_ray * weight).sum() / weight.sum().clamp(min=1)


def eikonal_samples(points: Tensor) -> Tensor:
    """Which points (..., 3) count in the eikonal loss: bool (...)."""
    return points.detach().norm(dim=-1) < EIKONAL_RADIUS


def eikonal_sum(gradients: Tensor, points: Tensor) -> Tensor:
    """Sum over the counting samples of (|gradient| - 1)²; both (..., 3)."""
    deviation = (gradients.norm(dim=-1) - 1) ** 2
    return torch.where(eikonal_samples(points), deviation, torch.zeros_like(deviation)).sum()


def eikonal_mean(total: Tensor, count: Tensor) -> Tensor:
    """`eikonal_sum` divided by the number of counting samples; zero where none counts."""
    return total / (count + _EPSILON)


def eikonal_loss(gradients: Tensor, points: Tensor) -> Tensor:
    """Mean (|gradient| - 1)² over samples (..., 3) within `EIKONAL_RADIUS`."""
    return eikonal_mean(eikonal_sum(gradients, points), eikonal_samples(points).sum())


def distortion_per_ray(weights: Tensor, depths: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Distortion (B,) of ascending samples: how far a ray's weight is spread out.

    Barron et al., "Mip-NeRF 360" (2022), equation 15, in the O(S) form of DVGO v2; depths are first
    mapped to [0, 1/2] between near and far and to [1/2, 1) behind, as PoRF's code does.

    Args:
        weights, depths: (B, S).
        near, far: (B, 1).
    """
    s = _normalised_depth(depths, near, far)
    interval = s[:, 1:] - s[:, :-1]
    interval = torch.cat([interval, interval[:, -1:]], dim=-1)
    weighted_middle = weights * (s + 0.5 * interval)
    within = (interval * weights**2).sum(-1) / 3
    before = weights.cumsum(-1)[:, :-1]
    middle_before = weighted_middle.cumsum(-1)[:, :-1]
    between = weighted_middle[:, 1:] * before - weights[:, 1:] * middle_before
    return 2 * between.sum(-1) + within


def distortion_loss(weights: Tensor, depths: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Mean of `distortion_per_ray` over rays."""
    return distortion_per_ray(weights, depths, near, far).mean()


def total_loss(
    color: Tensor,
    eikonal: Tensor,
    distortion: Tensor,
    epipolar: Tensor,
    weights: LossWeights = ORIGINAL_WEIGHTS,
) -> Tensor:
    """Weighted sum of the four terms."""
    return (
        weights.color * color
        + weights.eikonal * eikonal
        + weights.distortion * distortion
        + weights.epipolar * epipolar
    )


def _normalised_depth(depths: Tensor, near: Tensor, far: Tensor) -> Tensor:
    inside = 0.5 * ((depths - near) / (far - near))
    # `where` differentiates both branches: a depth of zero must not reach the division.
    safe = torch.where(depths.abs() < _EPSILON, torch.full_like(depths, _EPSILON), depths)
    behind = 1 - 0.5 / safe
    return torch.where(depths < far, inside.clamp(0, 0.5), behind.clamp(0.5, 1))
