"""The NeuS reference field as the trainer sees it: parameters, schedules, rendering in chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.porf.config import NeusConfig
from pipeline.porf.losses import distortion_per_ray, eikonal_mean, eikonal_samples, eikonal_sum
from pipeline.porf.neus_field import ColorField, SdfField, Variance
from pipeline.porf.neus_renderer import (
    FieldLayers,
    NeusRenderer,
    SampleCounts,
    SampledRays,
)
from pipeline.porf.rays import RayBatch, RenderOutput

# A CPU is fastest while a chunk's activations stay in its caches (8 against 32: 5 to 7% faster).
_CPU_CHUNK_RAYS = 8
_CPU_CHUNK_POINTS = 1 << 13
_CUDA_CHUNK_POINTS = 1 << 19
_CUDA_MEMORY_SHARE = 0.5
_VALUES_ONLY_GAIN = 8
"""How many more rays fit where nothing is kept for a backward pass."""

_MIN_OPACITY = 1e-8

ColorLoss = Callable[[Tensor, slice], Tensor]
"""(colours (b, 3) of some rays, which rows of the batch they are) -> their share of the loss."""


class _Summary(NamedTuple):
    """What is kept of shaded rays (b); sums where normalisation spans all chunks."""

    color: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    distortion: Tensor
    eikonal_sum: Tensor
    eikonal_count: Tensor


class NeusModel(NeusRenderer):
    """NeuS surface and colour behind the `FieldModel` protocol.

    Args:
        config: sizes, samples and schedules.
        generator: CPU generator of the initial weights; None = torch's global one.

    Attributes:
        cos_anneal: see `NeusRenderer.shade`; set by `begin_step`, 1 in a loaded model.
        chunk_rays: rays shaded at once with a gradient; None = chosen by device and free memory.
    """

    def __init__(self, config: NeusConfig, generator: torch.Generator | None = None) -> None:
        sdf_field = SdfField(
            hidden_layers=config.hidden_layers,
            hidden_width=config.hidden_width,
            feature_width=config.feature_width,
            frequencies=config.sdf_frequencies,
            skip_layer=config.skip_layer,
            init_radius=config.initial_radius,
            generator=generator,
        )
        color_field = ColorField(
            hidden_layers=config.color_layers,
            hidden_width=config.color_width,
            feature_width=config.feature_width,
            frequencies=config.view_frequencies,
            generator=generator,
        )
        counts = SampleCounts(
            coarse=config.coarse_samples,
            importance=config.importance_samples,
            upsample_steps=config.upsample_steps,
            outside=config.outside_samples,
        )
        super().__init__(sdf_field, color_field, Variance(config.initial_variance), counts)
        self.config = config
        self.cos_anneal = 1.0
        self.chunk_rays: int | None = None
        self._cuda_chunk_rays: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.variance.variance.device

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One Adam group: the original trains all three networks at one rate."""
        return [{"params": list(self.parameters()), "lr": self.config.learning_rate}]

    def begin_step(self, step: int, total_steps: int) -> None:
        """Set the cosine annealing of `step` (0-based); `total_steps` does not matter to it."""
        steps = self.config.cos_anneal_steps
        self.cos_anneal = min(1.0, step / steps) if steps else 1.0

    def sdf(self, x: Tensor) -> Tensor:
        """Signed distances (N,) at points (N, 3), normalised frame; values only."""
        with torch.no_grad():
            layers = self.sdf_field.dense_layers()
        chunks = x.split(self._chunk_points())
        return torch.cat([self.sdf_field.sdf(chunk, layers) for chunk in chunks])

    @torch.no_grad()
    def sdf_and_normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances (N,) and their gradients (N, 3), not of unit length; values only."""
        layers = self.sdf_field.dense_layers()
        samples = [self.sdf_field(chunk, layers) for chunk in x.split(self._chunk_points())]
        return torch.cat([s.sdf for s in samples]), torch.cat([s.gradient for s in samples])

    def render(self, rays: RayBatch, generator: torch.Generator | None) -> RenderOutput:
        """Render rays; differentiable, with memory bounded by recomputing chunks.

        One chunk is one plain graph. Several are recomputed in the backward pass, which costs a
        third more; `backward` avoids that.

        Args:
            generator: jitters the samples; on the rays' device. None = evenly placed samples.
        """
        layers = self.layers()
        sampled = self._sampled(rays, generator, layers)
        size = self._rays_at_once(torch.is_grad_enabled())
        recompute = torch.is_grad_enabled() and len(rays.origins) > size
        parts = []
        for rows in _slices(len(rays.origins), size):
            chunk = sampled.chunk(rows)
            if recompute:
                parts.append(
                    checkpoint(
                        self._shaded,
                        chunk,
                        layers,
                        use_reentrant=False,
                        preserve_rng_state=False,
                    )
                )
            else:
                parts.append(self._shaded(chunk, layers))
        return self._output(parts)

    def backward(
        self,
        rays: RayBatch,
        generator: torch.Generator | None,
        color_loss: ColorLoss,
        regulariser_weights: Mapping[str, float],
    ) -> tuple[RenderOutput, Tensor]:
        """Render rays chunk by chunk and add the loss' gradients to the parameters at once.

        Same gradients as ``(color_loss + weighted regularisers).backward()`` on `render`'s output,
        with one chunk's activations in memory and nothing computed twice.

        Args:
            color_loss: must divide by what spans the whole batch, since it sees chunks.
            regulariser_weights: factors of "eikonal" and "distortion".

        Returns:
            The output, detached; and a scalar whose gradient by the rays' origins and directions is
            the loss' (its value means nothing). Add it to the remaining loss before calling that
            one's ``backward()``, so that poses receive both.
        """
        layers = self.layers()
        sampled = self._sampled(rays, generator, layers)
        leaves = [tensor.detach().requires_grad_() for tensor in layers.flat()]
        leaf_layers = layers.with_tensors(leaves)
        batch = len(rays.origins)
        chunks = _slices(batch, self._rays_at_once(with_gradient=True))
        # Sample positions alone decide it, so it is known before the first chunk is shaded.
        eikonal_count = self._eikonal_count(sampled, chunks)
        by_rays = [torch.zeros_like(rays.origins), torch.zeros_like(rays.directions)]
        parts = []
        for rows in chunks:
            chunk = sampled.chunk(rows)
            ends = [chunk.origins.detach(), chunk.directions.detach()]
            origins, directions = (end.requires_grad_() for end in ends)
            part = self._shaded(chunk._replace(origins=origins, directions=directions), leaf_layers)
            loss = (
                color_loss(part.color, rows)
                + regulariser_weights["eikonal"] * eikonal_mean(part.eikonal_sum, eikonal_count)
                + regulariser_weights["distortion"] * part.distortion.sum() / batch
            )
            loss.backward()
            for total, leaf in zip(by_rays, (origins, directions), strict=True):
                if leaf.grad is not None:
                    total[rows] = leaf.grad
            parts.append(_Summary(*(tensor.detach() for tensor in part)))
        trained = [
            pair for pair in zip(layers.flat(), leaves, strict=True) if pair[0].requires_grad
        ]
        torch.autograd.backward([w for w, _ in trained], [leaf.grad for _, leaf in trained])
        ray_term = (rays.origins * by_rays[0]).sum() + (rays.directions * by_rays[1]).sum()
        return self._output(parts), ray_term

    def _sampled(
        self, rays: RayBatch, generator: torch.Generator | None, layers: FieldLayers
    ) -> SampledRays:
        size = self._rays_at_once(with_gradient=False)
        drawn = self.sample(rays.origins, rays.directions, generator, layers, chunk_rays=size)
        return SampledRays(rays.origins, rays.directions, *drawn)

    @torch.no_grad()
    def _eikonal_count(self, sampled: SampledRays, chunks: Sequence[slice]) -> Tensor:
        counts = [
            eikonal_samples(self.sections(sampled.chunk(rows)).points).sum() for rows in chunks
        ]
        return torch.stack(counts).sum()

    def _shaded(self, chunk: SampledRays, layers: FieldLayers) -> _Summary:
        rendered = self.shade(chunk, self.cos_anneal, layers)
        points, weights, depths = (
            rendered.sections.points,
            rendered.weights,
            rendered.sections.depths,
        )
        inside = weights * (points.detach().norm(dim=-1) < 1)
        opacity = inside.sum(-1)
        depth = (inside * depths).sum(-1) / opacity.clamp(min=_MIN_OPACITY)
        unit_normals = F.normalize(rendered.gradients, dim=-1)
        return _Summary(
            color=rendered.color,
            opacity=opacity,
            depth=depth,
            normal=(inside[..., None] * unit_normals).sum(1),
            distortion=distortion_per_ray(
                weights, depths, rendered.sections.near, rendered.sections.far
            ),
            eikonal_sum=eikonal_sum(rendered.gradients, points),
            eikonal_count=eikonal_samples(points).sum(),
        )

    def _output(self, parts: Sequence[_Summary]) -> RenderOutput:
        color, opacity, depth, normal, distortion = (
            torch.cat(pieces) for pieces in list(zip(*parts, strict=True))[:5]
        )
        total = torch.stack([part.eikonal_sum for part in parts]).sum()
        count = torch.stack([part.eikonal_count for part in parts]).sum()
        return RenderOutput(
            color=color,
            opacity=opacity,
            depth=depth,
            normal=normal,
            regularisers={"eikonal": eikonal_mean(total, count), "distortion": distortion.mean()},
            figures={"inv_s": self.variance().detach()},
        )

    def halve_chunk(self) -> int | None:
        """See `ChunkedFieldModel.halve_chunk`; for when memory runs out."""
        size = self._rays_at_once(with_gradient=True)
        if size < 2:
            return None
        self.chunk_rays = size // 2
        return self.chunk_rays

    def _rays_at_once(self, with_gradient: bool) -> int:
        """Rays in one chunk: as set, or what suits the device."""
        gain = 1 if with_gradient else _VALUES_ONLY_GAIN
        if self.chunk_rays is not None:
            return self.chunk_rays * gain
        if self.device.type != "cuda":
            return _CPU_CHUNK_RAYS * gain
        if self._cuda_chunk_rays is None:
            free_bytes, _ = torch.cuda.mem_get_info(self.device)
            rays = int(_CUDA_MEMORY_SHARE * free_bytes / self._bytes_per_ray())
            self._cuda_chunk_rays = max(rays, 1)
        return self._cuda_chunk_rays * gain

    def _bytes_per_ray(self) -> int:
        """Memory of a training step for one ray; measured, about six values a hidden unit."""
        config = self.config
        distance_units = config.hidden_layers * config.hidden_width + config.feature_width
        color_units = config.color_layers * config.color_width
        values = 6 * (distance_units + color_units) * self.counts.total
        return values * self.variance.variance.element_size()

    def _chunk_points(self) -> int:
        return _CUDA_CHUNK_POINTS if self.device.type == "cuda" else _CPU_CHUNK_POINTS


def _slices(length: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover `length`; one empty slice for none."""
    return [slice(start, start + size) for start in range(0, max(length, 1), size)]
