"""Depth maps of some views, and what they say of points: confirmed, or looked through."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.porf import sight_kernels
from pipeline.porf.compiled import arrays, lock, serves
from pipeline.porf.config import LookConfig, StereoConfig
from pipeline.porf.stereo_views import StereoViews

_PARALLEL = 1e-6


@dataclass(frozen=True)
class DepthMaps:
    """Depths along unit rays and how well the views agree there, for some of the views.

    Attributes:
        view: indices of the views.
        depth: one (H, W) a view, units of the normalised frame; may lie beyond the sphere.
        score: one (H, W) a view, mean correlation of the best neighbours, -1 where unknown.
    """

    view: list[int]
    depth: list[Tensor]
    score: list[Tensor]

    def points(self, views: StereoViews) -> list[Tensor]:
        """One (H, W, 3) a view, normalised frame."""
        return [
            views.c2w[i, :3, 3] + depth[..., None] * views.directions(i)
            for i, depth in zip(self.view, self.depth, strict=True)
        ]


@torch.no_grad()
def confirmed(
    views: StereoViews, maps: DepthMaps, options: StereoConfig | LookConfig
) -> list[Tensor]:
    """(H, W) bool a map: correlated well, and found again in the maps of other views."""
    found: list[Tensor] = []
    if not maps.view:
        return found
    asked = _Asked.of(views, maps)
    for m, (points, score) in enumerate(zip(maps.points(views), maps.score, strict=True)):
        kept = score >= options.min_score
        agreeing = asked.agreeing(points[kept], m, options.consistency, options.min_views)
        kept[kept.clone()] = agreeing >= options.min_views
        found.append(kept)
    return found


@torch.no_grad()
def refuted(
    views: StereoViews,
    maps: DepthMaps,
    trusted: list[Tensor],
    points: Tensor,
    view: Tensor,
    ends: Tensor,
    tolerance: float,
) -> Tensor:
    """(P,) bool: the maps know better than that there is a surface at these points.

    Either the map of the view whose pixel the point is measured that pixel, or another one sees
    something farther away there, by more than `tolerance` of its distance.

    Args:
        trusted: one (H, W) bool a map.
        points: (P, 3), normalised frame, seen in pixels of `view` (P,).
        ends: (P,) bool, whether there is a surface at the point or the line of sight goes on.
    """
    if not maps.view:
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    map_of_view = torch.full((len(views.c2w),), -1, device=points.device)
    map_of_view[maps.view] = torch.arange(len(maps.view), device=points.device)
    asked = _Asked.of(views, maps)
    return asked.refuted(torch.stack(trusted), points, map_of_view[view], ends, tolerance)


@dataclass(frozen=True)
class _Asked:
    """Depth maps (M, H, W) with their cameras, ready to be asked about points."""

    depth: Tensor
    w2c: Tensor
    K: Tensor

    @classmethod
    def of(cls, views: StereoViews, maps: DepthMaps) -> "_Asked":
        return cls(torch.stack(maps.depth), views.w2c[maps.view], views.K[maps.view])

    def agreeing(self, points: Tensor, left_out: int, tolerance: float, enough: int) -> Tensor:
        """(P,) how many maps but one have the points (P, 3) too; need not count beyond enough."""
        count = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        if serves(points):
            given = arrays(points, self.w2c, self.K, self.depth)
            with lock:
                sight_kernels.count_agreeing(*given, left_out, tolerance, enough, count.numpy())
            return count
        for m, depth in enumerate(self.depth):
            if m != left_out:
                index, seen, distance = self._look(m, points)
                theirs = depth.reshape(-1)[index]
                count += seen & ((theirs - distance).abs() < tolerance * distance)
        return count

    def refuted(
        self, trusted: Tensor, points: Tensor, own: Tensor, ends: Tensor, tolerance: float
    ) -> Tensor:
        """See `refuted`; `own` (P,) are maps, -1 where the point's view has none."""
        found = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        if serves(points):
            cameras = (self.w2c, self.K, self.depth, trusted)
            given = arrays(points, own, ends, *cameras)
            with lock:
                sight_kernels.find_refuted(*given, tolerance, found.numpy())
            return found
        for m, depth in enumerate(self.depth):
            index, seen, distance = self._look(m, points)
            measured = seen & trusted[m].reshape(-1)[index]
            beyond = depth.reshape(-1)[index] - distance > tolerance * distance
            found |= measured & ((own == m) | (ends & beyond))
        return found

    def _look(self, m: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest pixels (P,), row by row, where there is one (P,) bool, and distances (P,)."""
        height, width = self.depth.shape[1:]
        local = points @ self.w2c[m, :3, :3].T + self.w2c[m, :3, 3]
        homogeneous = local @ self.K[m].T
        z = homogeneous[:, 2]
        x, y = ((homogeneous[:, k] / z.clamp(min=_PARALLEL)).round() for k in range(2))
        seen = (z > _PARALLEL) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        index = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
        return index, seen, local.norm(dim=1)
