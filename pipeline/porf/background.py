"""What lies outside the unit sphere: everything a real photo shows besides the object.

All of space is contracted into the ball of radius 2 (mip-NeRF 360, equation 10, as NeuS and PoRF
use it); a small grid there gives density and colour. Density is per contracted length, so that near
and far things weigh alike.
"""

import torch
from torch import Tensor, nn

from pipeline.porf.hash_grid import HashGrid
from pipeline.porf.networks import SmallNetwork, direction_features
from pipeline.porf.neus_field import contract
from pipeline.porf.rays import RayBatch

_DENSITY_SHIFT = -1.0  # starts thin, so that the surface inside is not hidden behind fog


class VolumeBackground(nn.Module):
    """Density and colour of the contracted outside.

    Args:
        resolutions, log2_entries: of the grid over the contracted ball.
        hidden_width: of the network behind the grid.
        samples_behind: samples beyond the sphere; the last one is opaque.
        samples_before: samples between camera and sphere.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        resolutions: tuple[int, ...],
        log2_entries: int,
        hidden_width: int,
        samples_behind: int,
        samples_before: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.samples_behind, self.samples_before = samples_behind, samples_before
        self.grid = HashGrid(resolutions, 2, log2_entries, generator)
        self.network = SmallNetwork([3 + self.grid.width + 9, hidden_width, 4], generator)

    def forward(
        self,
        rays: RayBatch,
        near: Tensor,
        far: Tensor,
        hit: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Opacities and colours before and behind the unit sphere.

        Args:
            near, far: (B, 1) where the rays enter and leave the sphere.
            hit: (B,) rays that cross it; the others have no "before", all is "behind".

        Returns:
            alpha (B, F) and colour (B, F, 3) of the samples before the sphere, front to back;
            then alpha (B, S) and colour (B, S, 3) of those behind it; the last is opaque.
        """
        count = len(near)
        before = _edges(count, self.samples_before, generator, near) * near
        # Rays that miss the sphere have nothing before it; theirs starts at the camera.
        start = torch.where(hit[:, None], far, torch.zeros_like(far))
        share = _edges(count, self.samples_behind, generator, near).clamp(max=1 - 1e-3)
        behind = start + share / (1 - share)
        both = [e for e in (before, behind) if e.shape[1] > 1]
        alphas, colors = [], []
        points = [_section_points(rays, edges) for edges in both]
        density, color = self._field(rays, torch.cat([middle for middle, _ in points], dim=1))
        begin = 0
        for (_, length), edges in zip(points, both, strict=True):
            end = begin + edges.shape[1] - 1
            alphas.append(1 - torch.exp(-density[:, begin:end] * length))
            colors.append(color[:, begin:end])
            begin = end
        if len(both) == 1:
            alphas.insert(0, near.new_zeros(count, 0))
            colors.insert(0, near.new_zeros(count, 0, 3))
        front = alphas[0] * hit[:, None]
        back = torch.cat([alphas[1][:, :-1], torch.ones_like(alphas[1][:, -1:])], dim=1)
        return front, colors[0], back, colors[1]

    def _field(self, rays: RayBatch, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (B, S) and colour (B, S, 3) at contracted points (B, S, 3)."""
        flat = points.reshape(-1, 3) * 0.5
        directions = direction_features(rays.directions)[:, None].expand(-1, points.shape[1], -1)
        inputs = [flat, self.grid(flat), directions.reshape(len(flat), -1)]
        raw = self.network(torch.cat(inputs, dim=1)).view(*points.shape[:2], 4)
        density = nn.functional.softplus(raw[..., 0] * 4 + _DENSITY_SHIFT)
        return density, torch.sigmoid(raw[..., 1:])


class ColorBackground(nn.Module):
    """One colour a viewing direction: enough for a plain backdrop."""

    def __init__(self, hidden_width: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.network = SmallNetwork([9, hidden_width, 3], generator)

    def forward(
        self,
        rays: RayBatch,
        near: Tensor,
        far: Tensor,
        hit: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `VolumeBackground.forward`, with a single opaque sample behind the sphere."""
        color = torch.sigmoid(self.network(direction_features(rays.directions)))[:, None]
        empty = near.new_zeros(len(near), 0)
        return empty, empty[..., None].expand(-1, 0, 3), torch.ones_like(near), color


def _edges(count: int, sections: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """(count, sections + 1) ascending in [0, 1]; inner edges jittered by half a section."""
    edges = torch.linspace(0, 1, sections + 1, device=like.device, dtype=like.dtype)
    edges = edges.expand(count, sections + 1) if sections else edges[:1].expand(count, 1)
    if generator is None or sections < 2:
        return edges
    jitter = torch.rand(count, sections - 1, generator=generator, device=like.device) - 0.5
    inner = edges[:, 1:-1] + jitter / sections
    return torch.cat([edges[:, :1], inner, edges[:, -1:]], dim=1)


def _section_points(rays: RayBatch, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Contracted midpoints (B, S, 3) of ray sections, and their contracted lengths (B, S)."""
    at_edges = contract(rays.origins[:, None] + rays.directions[:, None] * edges[..., None])
    length = (at_edges[:, 1:] - at_edges[:, :-1]).norm(dim=-1)
    return 0.5 * (at_edges[:, 1:] + at_edges[:, :-1]), length
