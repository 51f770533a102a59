"""Where NeuS samples a ray: coarse, importance (hierarchical) and outside samples.

Distances along rays ("depths") are in units of the normalised frame, ray directions have unit
length. Source: NeuS (Wang et al., 2021), section 3.3 and its code, in PoRF's configuration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_UPSAMPLING_INV_S = 64.0
"""Sharpness of the first importance step; it doubles with every further one."""

_OUTSIDE_START = 1e-3
_EPSILON = 1e-5
_MIN_SLOPE = -1e3


def near_far(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Depths (B, 1) one unit before and behind the point of each ray closest to the origin.

    NeuS' bounds of the unit sphere; rays that miss it get them too.
    """
    squared_length = (directions * directions).sum(-1, keepdim=True)
    middle = -(origins * directions).sum(-1, keepdim=True) / squared_length
    return middle - 1, middle + 1


def points_at(origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
    """Points (B, S, 3) at depths (B, S) along rays (B, 3)."""
    return origins[:, None] + directions[:, None] * depths[..., None]


def coarse_depths(
    near: Tensor, far: Tensor, count: int, generator: torch.Generator | None
) -> Tensor:
    """`count` even depths (B, count) from near to far, ends included.

    With a generator (on the rays' device) every ray is shifted as a whole by up to half a unit
    interval ``2 / count``, as NeuS does.
    """
    even = torch.linspace(0, 1, count, dtype=near.dtype, device=near.device)
    depths = near + (far - near) * even
    if generator is not None:
        shift = torch.rand(near.shape, generator=generator, dtype=near.dtype, device=near.device)
        depths = depths + (shift - 0.5) * (2 / count)
    return depths


def outside_fractions(
    rays: int, count: int, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Fractions (rays, count) in (0, 1), descending, for `outside_depths`.

    Even, or with a generator (on `like`'s device) one random fraction in each stratum.
    """
    end = 1 - 1 / (count + 1)
    even = torch.linspace(_OUTSIDE_START, end, count, dtype=like.dtype, device=like.device)
    fractions = even.expand(rays, count)
    if generator is not None:
        middles = 0.5 * (even[1:] + even[:-1])
        upper = torch.cat([middles, even[-1:]])
        lower = torch.cat([even[:1], middles])
        draw = torch.rand((rays, count), generator=generator, dtype=like.dtype, device=like.device)
        fractions = lower + (upper - lower) * draw
    return fractions.flip(-1)


def outside_depths(far: Tensor, fractions: Tensor, coarse_count: int) -> Tensor:
    """Depths (B, O) behind `far` (B, 1), even in inverse depth: ``far / fraction + 1/coarse``."""
    return far / fractions + 1 / coarse_count


def sample_pdf(bins: Tensor, weights: Tensor, count: int) -> Tensor:
    """Even quantiles of a piecewise constant density (inverse transform sampling, NeRF).

    Args:
        bins: (B, S + 1) ascending edges.
        weights: (B, S) non-negative, need not sum to one.

    Returns:
        (B, count) ascending positions within the bins.
    """
    density = weights + _EPSILON
    density = density / density.sum(-1, keepdim=True)
    cumulated = torch.cumsum(density, dim=-1)
    cumulated = torch.cat([torch.zeros_like(cumulated[:, :1]), cumulated], dim=-1)
    half = 0.5 / count
    quantiles = torch.linspace(half, 1 - half, count, dtype=bins.dtype, device=bins.device)
    quantiles = quantiles.expand(len(bins), count).contiguous()

    index = torch.searchsorted(cumulated, quantiles, right=True)
    below = (index - 1).clamp(min=0)
    above = index.clamp(max=cumulated.shape[1] - 1)
    mass_below, mass_above = cumulated.gather(1, below), cumulated.gather(1, above)
    edge_below, edge_above = bins.gather(1, below), bins.gather(1, above)
    mass = mass_above - mass_below
    mass = torch.where(mass < _EPSILON, torch.ones_like(mass), mass)
    return edge_below + (quantiles - mass_below) / mass * (edge_above - edge_below)


def section_weights(alpha: Tensor) -> Tensor:
    """Rendering weights (B, S) of opacities (B, S) along rays: alpha times transmittance."""
    clear = torch.ones_like(alpha[:, :1])
    transmittance = torch.cumprod(torch.cat([clear, 1 - alpha + 1e-7], dim=-1), dim=-1)
    return alpha * transmittance[:, :-1]


def importance_depths(
    origins: Tensor, directions: Tensor, depths: Tensor, sdf: Tensor, *, count: int, inv_s: float
) -> Tensor:
    """`count` new depths (B, count) where the sampled distances say that the surface is.

    Args:
        depths, sdf: (B, S) samples so far, ascending, and their signed distances.
        inv_s: fixed sharpness of the density used here; the learned one is not used.
    """
    radius = points_at(origins, directions, depths).norm(dim=-1)
    inside = (radius[:, :-1] < 1) | (radius[:, 1:] < 1)
    length = depths[:, 1:] - depths[:, :-1]
    middle_sdf = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    slope = (sdf[:, 1:] - sdf[:, :-1]) / (length + _EPSILON)
    # The steeper of this section and the one before: robust where a thin part dips below zero.
    previous = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=-1)
    slope = torch.minimum(previous, slope).clip(_MIN_SLOPE, 0) * inside
    half_change = slope * length * 0.5
    entering = torch.sigmoid((middle_sdf - half_change) * inv_s)
    leaving = torch.sigmoid((middle_sdf + half_change) * inv_s)
    alpha = (entering - leaving + _EPSILON) / (entering + _EPSILON)
    return sample_pdf(depths, section_weights(alpha), count)


@torch.no_grad()
def hierarchical_depths(
    sdf: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    *,
    count: int,
    steps: int,
) -> Tensor:
    """Coarse depths (B, S) refined by `count` importance samples in `steps`: (B, S + count).

    Ascending and without a gradient, as in the original.

    Args:
        sdf: signed distances (N,) of points (N, 3).
    """

    def sdf_at(at: Tensor) -> Tensor:
        return sdf(points_at(origins, directions, at).reshape(-1, 3)).reshape(at.shape)

    if count == 0:
        return depths
    values = sdf_at(depths)
    for step in range(steps):
        inv_s = FIRST_UPSAMPLING_INV_S * 2**step
        new = importance_depths(
            origins, directions, depths, values, count=count // steps, inv_s=inv_s
        )
        depths, order = torch.sort(torch.cat([depths, new], dim=-1), dim=-1)
        if step + 1 < steps:
            values = torch.cat([values, sdf_at(new)], dim=-1).gather(1, order)
    return depths
