"""Rendering of the fast field: few samples, placed by a cached grid of distances."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.porf.anchors import Anchors, anchor_loss
from pipeline.porf.background import ColorBackground, VolumeBackground
from pipeline.porf.config import GridConfig
from pipeline.porf.grid import GridSurface, fill_slabs
from pipeline.porf.neus_renderer import section_opacity
from pipeline.porf.rays import RayBatch, RenderOutput, unit_sphere_interval
from pipeline.porf.sampling import importance_depths, section_weights
from pipeline.porf.schedule import geometric, linear

_EPSILON = 1e-5
_PROPOSAL_INV_S_MAX = 80.0
_DEPTH_JITTER = 0.002
_LAST_SECTION = 2 / 64  # NeuS' length of a section that has no next sample
_STRAIGHT = 0.06
"""Over a longer way than this a straight line says nothing of the distance: long sections between
evenly spread samples would be opaque wherever a ray passes close by a contour."""
_VIEW_RAMP = 0.1  # share of the steps in which view dependence fades in
_ANCHORS_PER_STEP = 512


@dataclass(frozen=True)
class _Inside:
    """The samples (B, S) inside the sphere, before they get a colour."""

    alpha: Tensor
    depths: Tensor
    points: Tensor
    normals: Tensor
    features: Tensor
    eikonal: Tensor


class GridModel(nn.Module):
    """The fast field as the trainer sees it (`FieldModel`): surface, outside and their rendering.

    Samples inside the sphere are placed by NeuS' weights on distances looked up in a coarse cache;
    a share of the cache is recomputed at every step.
    """

    cache: Tensor

    def __init__(self, config: GridConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.config = config
        self.surface = GridSurface(config, generator)
        self.outside: VolumeBackground | ColorBackground
        if config.background == "volume":
            self.outside = VolumeBackground(
                config.background_resolutions,
                config.background_log2_entries,
                config.hidden_width // 2,
                config.background_samples,
                config.foreground_samples,
                generator,
            )
        else:
            self.outside = ColorBackground(config.hidden_width // 2, generator)
        size = config.cache_resolution
        self.register_buffer("cache", torch.zeros(1, 1, size, size, size))
        self.active_levels = self.surface.grid.levels
        self.anneal = 1.0
        self.inv_s_now = config.inv_s_end
        self.view_share = 1.0
        self.anchor_factor = 0.0
        self.anchors: Anchors | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `FieldModel.parameter_groups`: grids learn faster than networks."""
        grids = [p for n, p in self.named_parameters() if n.endswith("grid.table")]
        networks = [p for n, p in self.named_parameters() if not n.endswith("grid.table")]
        betas = (0.9, 0.99)
        # Grid entries see few, tiny gradients: a larger epsilon would freeze them.
        return [
            {"params": grids, "lr": self.config.grid_learning_rate, "betas": betas, "eps": 1e-12},
            {"params": networks, "lr": self.config.network_learning_rate, "betas": betas},
        ]

    @torch.no_grad()
    def begin_step(self, step: int, total_steps: int) -> None:
        """See `FieldModel.begin_step`."""
        config = self.config
        share = step / total_steps
        self.inv_s_now = geometric(share / config.inv_s_share, config.inv_s_start, config.inv_s_end)
        self.anneal = min(1.0, share / config.anneal_share) if config.anneal_share else 1.0
        levels = self.surface.grid.levels
        # Without views, colours can only agree by the right shape; later they may tell highlights.
        self.view_share = linear((share - config.view_start) / _VIEW_RAMP, 0.0, 1.0)
        self.anchor_factor = linear(share, 1.0, config.anchor_end)
        joined = share / config.coarse_share if config.coarse_share else 1.0
        self.active_levels = min(levels, 2 + int(joined * (levels - 2 + 1e-9)))
        if step in (0, total_steps):
            fill_slabs(self.cache, self.sdf)
        else:
            size, steps = config.cache_resolution, config.cache_steps
            turn = step % steps
            fill_slabs(self.cache, self.sdf, turn * size // steps, (turn + 1) * size // steps)

    def sdf(self, x: Tensor) -> Tensor:
        """See `FieldModel.sdf`."""
        return self.surface.sdf(x, self.active_levels)

    def sdf_and_normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `FieldModel.sdf_and_normal`."""
        sdf, gradient, _ = self.surface(x, self.active_levels)
        return sdf, gradient

    def render(self, rays: RayBatch, generator: torch.Generator | None) -> RenderOutput:
        """See `FieldModel.render`."""
        near, far, hit = unit_sphere_interval(rays)
        with torch.no_grad():
            depths = self._sample_depths(rays, near, far, generator)
        # Only the background's sections end at the sphere; the pose gradient of its radius is nil.
        front_alpha, front_color, back_alpha, back_color = self.outside(
            rays, near.detach(), far.detach(), hit, generator
        )
        inside = self._shade(rays, depths, hit)
        alpha = torch.cat([front_alpha, inside.alpha, back_alpha], dim=1)
        weights = section_weights(alpha)
        first, last = front_alpha.shape[1], front_alpha.shape[1] + inside.alpha.shape[1]
        surface_weights = weights[:, first:last]
        color = (front_color * weights[:, :first, None]).sum(1)
        color = color + (back_color * weights[:, last:, None]).sum(1)
        color = color + self._surface_color(rays, inside, surface_weights)
        opacity = surface_weights.sum(1)
        return RenderOutput(
            color=color,
            opacity=opacity,
            depth=(surface_weights * inside.depths).sum(1) / opacity.clamp(min=_EPSILON),
            normal=(surface_weights[..., None] * inside.normals).sum(1),
            regularisers={
                "eikonal": inside.eikonal,
                "anchors": self._anchor_loss(generator),
                "roughness": self._roughness(inside, surface_weights, generator),
            },
        )

    def outside_color(self, rays: RayBatch) -> Tensor:
        """What rays would show, (B, 3), if there were nothing in the unit sphere."""
        near, far, hit = unit_sphere_interval(rays)
        front_alpha, front, back_alpha, back = self.outside(rays, near, far, hit, None)
        weights = section_weights(torch.cat([front_alpha, back_alpha], dim=1))
        return (torch.cat([front, back], dim=1) * weights[..., None]).sum(1)

    def _roughness(
        self, inside: _Inside, weights: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Mean squared difference of normals at each ray's heaviest sample and close beside it.

        Source: UNISURF (Oechsle et al., ICCV 2021), equation 12. Zero in evaluation.
        """
        if generator is None or self.config.roughness_weight == 0:
            return self.cache.new_zeros(())
        heaviest = weights.detach().argmax(1, keepdim=True)[..., None].expand(-1, -1, 3)
        points = inside.points.detach().gather(1, heaviest)[:, 0]
        normals = inside.normals.gather(1, heaviest)[:, 0]
        shift = torch.rand(points.shape, generator=generator, device=points.device) - 0.5
        beside = points + shift * (2 * self.config.roughness_reach)
        _, gradient, _ = self.surface(beside, self.active_levels)
        difference = normals - F.normalize(gradient, dim=1, eps=1e-6)
        return ((difference**2).sum(1) * weights.detach().sum(1)).mean()

    def _anchor_loss(self, generator: torch.Generator | None) -> Tensor:
        """See `anchor_loss`; zero in evaluation."""
        if generator is None or self.anchor_factor == 0 or not self.anchors:
            return self.cache.new_zeros(())
        draw = self.anchors.draw(_ANCHORS_PER_STEP, generator)
        points = torch.cat([draw.surface, draw.free, draw.behind])
        sdf = self.surface.sdf(points, self.active_levels)
        return anchor_loss(draw, *sdf.chunk(3)) * self.anchor_factor

    def _sample_depths(
        self, rays: RayBatch, near: Tensor, far: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Depths (B, samples) inside the sphere, ascending."""
        config, count, device = self.config, len(near), near.device

        def strata(number: int) -> Tensor:
            index = torch.arange(number, device=device)
            if generator is None:
                return ((index + 0.5) / number).expand(count, number)
            return (index + torch.rand(count, 1, generator=generator, device=device)) / number

        coarse = near + (far - near) * strata(config.proposals)
        points = rays.origins[:, None] + rays.directions[:, None] * coarse[..., None]
        cached = F.grid_sample(self.cache, points.flip(-1)[None, :, :, None], align_corners=True)
        sdf = cached.view(count, config.proposals)
        placed = config.samples - config.uniform_samples
        inv_s = min(self.inv_s_now, _PROPOSAL_INV_S_MAX)
        by_weight = importance_depths(
            rays.origins, rays.directions, coarse, sdf, count=placed, inv_s=inv_s
        )
        if generator is not None:
            noise = torch.rand(by_weight.shape, generator=generator, device=device) - 0.5
            by_weight = by_weight + noise * (2 * _DEPTH_JITTER)
        even = near + (far - near) * strata(config.uniform_samples)
        return torch.sort(torch.cat([by_weight, even], dim=1), dim=1).values

    def _shade(self, rays: RayBatch, depths: Tensor, hit: Tensor) -> _Inside:
        """Opacities and normals of the sections that begin at `depths` (NeuS, equations 10-13)."""
        count, samples = depths.shape
        length = torch.cat(
            [depths[:, 1:] - depths[:, :-1], torch.full_like(depths[:, :1], _LAST_SECTION)], dim=1
        )
        middle = depths + length * 0.5
        points = rays.origins[:, None] + rays.directions[:, None] * middle[..., None]
        flat = points.reshape(-1, 3)
        sdf, gradient, features = self.surface(flat, self.active_levels)
        sdf, gradient = sdf.view(count, samples), gradient.view(count, samples, 3)
        cosine = (rays.directions[:, None] * gradient).sum(-1)
        reach = length.clamp(max=_STRAIGHT)
        inv_s = sdf.new_full((), self.inv_s_now)  # unlike `new_tensor`, without a wait for a GPU
        alpha = section_opacity(sdf, cosine, reach, inv_s, self.anneal)
        norm = gradient.norm(dim=-1)
        return _Inside(
            alpha=alpha * hit[:, None],
            depths=middle,
            points=points,
            normals=gradient / (norm[..., None] + 1e-6),
            features=features.view(count, samples, -1),
            eikonal=((norm - 1) ** 2).mean(),
        )

    def _surface_color(self, rays: RayBatch, inside: _Inside, weights: Tensor) -> Tensor:
        """Summed weighted colours (B, 3) of each ray's heaviest samples."""
        count, samples = weights.shape
        kept = min(self.config.color_samples, samples)
        points, normals, features = inside.points, inside.normals, inside.features
        if kept < samples:
            opacity = weights.sum(1, keepdim=True)
            weights, index = weights.topk(kept, dim=1)
            # The left-out samples are taken to look like the kept ones.
            weights = weights * (opacity / (weights.sum(1, keepdim=True) + _EPSILON))
            rows = (index + torch.arange(count, device=index.device)[:, None] * samples).view(-1)
            points, normals, features = (
                part.reshape(count * samples, -1).index_select(0, rows)
                for part in (points, normals, features)
            )
        directions = rays.directions[:, None].expand(-1, kept, -1)
        color = self.surface.color(
            points.reshape(-1, 3),
            normals.reshape(-1, 3),
            directions.reshape(-1, 3),
            features.reshape(count * kept, -1),
            self.view_share,
        )
        return (color.view(count, kept, 3) * weights[..., None]).sum(1)
