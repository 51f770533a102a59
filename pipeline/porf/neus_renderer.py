"""NeuS volume rendering of a signed-distance field along rays.

Wang et al., "NeuS" (NeurIPS 2021), equations 10-13: a ray is cut into sections, the distances at
both ends of a section are extrapolated from its midpoint, and their drop through the logistic
density gives the section's opacity. PoRF's configuration adds samples outside of the unit sphere,
which the same (contracted) field serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.porf.neus_field import ColorField, DenseLayer, SdfField, Variance
from pipeline.porf.sampling import (
    coarse_depths,
    hierarchical_depths,
    near_far,
    outside_depths,
    outside_fractions,
    points_at,
    section_weights,
)

_EPSILON = 1e-5


class SampleCounts(NamedTuple):
    """Samples a ray; defaults are the original's."""

    coarse: int = 64
    importance: int = 64
    upsample_steps: int = 4
    outside: int = 32

    @property
    def total(self) -> int:
        """Sections that are shaded along every ray."""
        return self.coarse + self.importance + self.outside

    @property
    def last_section(self) -> float:
        """Length given to a ray's last section, which has no next sample."""
        return 2 / self.coarse


ORIGINAL_COUNTS = SampleCounts()


class SampledRays(NamedTuple):
    """Rays (B) and what a training step draws for them, before anything is differentiated.

    `surface_depths` (B, coarse + importance) carry no gradient; the outside samples follow `far`
    and are placed by `fractions` (B, outside) when the rays are shaded.
    """

    origins: Tensor
    directions: Tensor
    surface_depths: Tensor
    fractions: Tensor

    def chunk(self, rows: slice) -> SampledRays:
        """Some of the rays."""
        return SampledRays(*(part[rows] for part in self))


class Sections(NamedTuple):
    """The S sections into which B rays are cut.

    Attributes:
        lengths, depths: (B, S) of the sections, and of their midpoints along the rays.
        points: (B, S, 3) the midpoints, normalised frame.
        near, far: (B, 1) bounds of the unit sphere as NeuS takes them.
    """

    lengths: Tensor
    depths: Tensor
    points: Tensor
    near: Tensor
    far: Tensor


class RenderedRays(NamedTuple):
    """What shading gives for B rays with S sections.

    Attributes:
        color: (B, 3) in [0, 1].
        weights: (B, S) rendering weights.
        gradients: (B, S, 3) of the signed distance at the midpoints.
        sections: where the midpoints are.
        s_val: scalar, width of the density, 1 / inv_s.
    """

    color: Tensor
    weights: Tensor
    gradients: Tensor
    sections: Sections
    s_val: Tensor


class FieldLayers(NamedTuple):
    """Effective weights of both networks, computed once a step."""

    sdf: Sequence[DenseLayer]
    color: Sequence[DenseLayer]

    def flat(self) -> list[Tensor]:
        """All tensors in a fixed order."""
        return [tensor for layer in (*self.sdf, *self.color) for tensor in layer]

    def with_tensors(self, flat: Sequence[Tensor]) -> FieldLayers:
        """The same structure holding other tensors, in the order of `flat()`."""
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return FieldLayers(pairs[: len(self.sdf)], pairs[len(self.sdf) :])


class NeusRenderer(nn.Module):
    """The three networks and the way rays are sampled and shaded with them.

    Args:
        sdf_field, color_field, variance: the networks, also reachable under these names.
        counts: samples a ray.
    """

    def __init__(
        self,
        sdf_field: SdfField,
        color_field: ColorField,
        variance: Variance,
        counts: SampleCounts = ORIGINAL_COUNTS,
    ) -> None:
        super().__init__()
        self.sdf_field = sdf_field
        self.color_field = color_field
        self.variance = variance
        self.counts = counts

    def layers(self) -> FieldLayers:
        """Effective weights of both networks; differentiable."""
        return FieldLayers(self.sdf_field.dense_layers(), self.color_field.dense_layers())

    @torch.no_grad()
    def sample(
        self,
        origins: Tensor,
        directions: Tensor,
        generator: torch.Generator | None,
        layers: FieldLayers,
        chunk_rays: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Depths along rays (B, 3): surface depths and outside fractions of `SampledRays`.

        Args:
            generator: jitters the samples; on the rays' device. None = evenly placed.
            chunk_rays: rays whose importance samples are found at once; None = all.
        """
        near, far = near_far(origins, directions)
        coarse = coarse_depths(near, far, self.counts.coarse, generator)
        fractions = outside_fractions(len(origins), self.counts.outside, near, generator)

        def sdf(points: Tensor) -> Tensor:
            return self.sdf_field.sdf(points, layers.sdf)

        size = chunk_rays or max(len(origins), 1)
        parts = zip(origins.split(size), directions.split(size), coarse.split(size), strict=True)
        count, steps = self.counts.importance, self.counts.upsample_steps
        fine = [hierarchical_depths(sdf, *part, count=count, steps=steps) for part in parts]
        return torch.cat(fine), fractions

    def sections(self, rays: SampledRays) -> Sections:
        """Cut rays at their samples; differentiable in origins and directions."""
        near, far = near_far(rays.origins, rays.directions)
        behind = outside_depths(far, rays.fractions, self.counts.coarse)
        starts, _ = torch.sort(torch.cat([rays.surface_depths, behind], dim=-1), dim=-1)
        last = torch.full_like(far, self.counts.last_section)
        lengths = torch.cat([starts.diff(dim=-1), last], dim=-1)
        depths = starts + 0.5 * lengths
        points = points_at(rays.origins, rays.directions, depths)
        return Sections(lengths, depths, points, near, far)

    def shade(self, rays: SampledRays, cos_anneal: float, layers: FieldLayers) -> RenderedRays:
        """Render sampled rays; differentiable in networks, origins and directions.

        Args:
            cos_anneal: 0 at the start of training to 1; see `_annealed_cosine`.
        """
        sections = self.sections(rays)
        shape = sections.points.shape
        points = sections.points.reshape(-1, 3)
        directions = rays.directions[:, None].expand(shape)
        field = self.sdf_field(points, layers.sdf)
        colors = self.color_field(points, directions.reshape(-1, 3), field, layers.color)
        gradients = field.gradient.reshape(shape)
        inv_s = self.variance()
        cosine = (directions * gradients).sum(-1)
        alpha = section_opacity(
            field.sdf.reshape(cosine.shape), cosine, sections.lengths, inv_s, cos_anneal
        )
        weights = section_weights(alpha)
        color = (colors.reshape(shape) * weights[..., None]).sum(1)
        return RenderedRays(color, weights, gradients, sections, 1 / inv_s)

    def forward(
        self,
        origins: Tensor,
        directions: Tensor,
        cos_anneal: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> RenderedRays:
        """Sample and shade all rays (B, 3) at once, in one graph."""
        layers = self.layers()
        surface_depths, fractions = self.sample(origins, directions, generator, layers)
        rays = SampledRays(origins, directions, surface_depths, fractions)
        return self.shade(rays, cos_anneal, layers)


def section_opacity(
    sdf: Tensor, cosine: Tensor, lengths: Tensor, inv_s: Tensor, cos_anneal: float
) -> Tensor:
    """Opacities (B, S) in [0, 1] of ray sections (NeuS, equation 13).

    Args:
        sdf: (B, S) signed distances at the midpoints.
        cosine: (B, S) ray direction times gradient of the distance.
        lengths: (B, S) of the sections.
        inv_s: scalar sharpness.
        cos_anneal: see `_annealed_cosine`.
    """
    half_change = _annealed_cosine(cosine, cos_anneal) * lengths * 0.5
    entering = torch.sigmoid((sdf - half_change) * inv_s)
    leaving = torch.sigmoid((sdf + half_change) * inv_s)
    return ((entering - leaving + _EPSILON) / (entering + _EPSILON)).clip(0, 1)


def _annealed_cosine(cosine: Tensor, ratio: float) -> Tensor:
    """Non-positive change of the distance along the ray.

    At ratio 1 surfaces seen from behind are transparent; at 0 every surface still receives a
    gradient, which early training needs.
    """
    return -(F.relu(0.5 - 0.5 * cosine) * (1 - ratio) + F.relu(-cosine) * ratio)
