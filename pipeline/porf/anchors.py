"""Surface points from matches: where two views see the same thing, the surface must be.

Every training match is triangulated with the present cameras. The points steer the surface in the
first part of training, as the sparse points do in Geo-NeuS (Fu et al., NeurIPS 2022, section 3.3);
they are taken from the matches, so a case needs nothing else.
"""

import torch
from torch import Tensor

from pipeline.porf.epipolar import MatchTable, invert_intrinsics

_MIN_ANGLE_DEG = 3.0
_MAX_REPROJECTION_PX = 2.0
_PARALLEL = 1e-6


@torch.no_grad()
def triangulate_anchors(
    table: MatchTable, c2w: Tensor, K: Tensor, limit: int, generator: torch.Generator
) -> Tensor:
    """Points (P, 3) in the unit sphere, normalised frame, P ≤ `limit`.

    Kept are midpoints of two rays that meet at 3° or more, before both cameras, and within 2 pixels
    of both observations.

    Args:
        c2w: (V, 4, 4) cameras, normalised frame.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        generator: on the CPU; chooses where there are more points than `limit`.
    """
    ref = table.pair_ref[table.pair_of_match]
    src = table.pair_src[table.pair_of_match]
    K_inverse = invert_intrinsics(K)
    direction_ref = _directions(c2w, K_inverse, ref, table.points_px[:, :2])
    direction_src = _directions(c2w, K_inverse, src, table.points_px[:, 2:])
    centre_ref, centre_src = c2w[ref, :3, 3], c2w[src, :3, 3]
    baseline = centre_src - centre_ref
    cosine = (direction_ref * direction_src).sum(1)
    sine_squared = (1 - cosine * cosine).clamp(min=_PARALLEL)
    along_ref = (baseline * direction_ref).sum(1)
    along_src = (baseline * direction_src).sum(1)
    depth_ref = (along_ref - cosine * along_src) / sine_squared
    depth_src = (cosine * along_ref - along_src) / sine_squared
    on_ref = centre_ref + depth_ref[:, None] * direction_ref
    on_src = centre_src + depth_src[:, None] * direction_src
    points = 0.5 * (on_ref + on_src)
    # Half the gap between the rays, seen from a camera, is the reprojection error.
    gap = (on_ref - on_src).norm(dim=1)
    focal_px = K[:, 0, 0]
    error_px = torch.maximum(
        focal_px[ref] * gap / depth_ref.clamp(min=_PARALLEL),
        focal_px[src] * gap / depth_src.clamp(min=_PARALLEL),
    )
    wide = cosine < torch.cos(torch.deg2rad(torch.tensor(_MIN_ANGLE_DEG))).to(cosine.device)
    good = wide & (depth_ref > 0) & (depth_src > 0) & (0.5 * error_px < _MAX_REPROJECTION_PX)
    points = points[good & (points.norm(dim=1) < 1)]
    if len(points) > limit:
        chosen = torch.randperm(len(points), generator=generator)[:limit]
        points = points[chosen.to(points.device)]
    return points


def _directions(c2w: Tensor, K_inverse: Tensor, view: Tensor, xy_px: Tensor) -> Tensor:
    """Unit directions (M, 3) of pixels (M, 2) of `view` (M,)."""
    homogeneous = torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)
    turned = (c2w[:, :3, :3] @ K_inverse)[view]
    return torch.nn.functional.normalize((turned @ homogeneous[..., None])[..., 0], dim=1)
