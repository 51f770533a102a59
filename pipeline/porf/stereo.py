"""Depth maps by plane sweep: where the photos agree about the surface before it is trained.

Every pixel tries depths along its ray, from the front of the unit sphere to infinity in equal steps
of inverse depth, and keeps the one at which small windows of a few neighbouring views look alike
(zero-mean normalised cross-correlation; wider windows where small ones have no texture), smoothly
over the image. What the neighbours' own depth maps confirm is kept (`depth_maps`).

Source: Collins, "A space-sweep approach to true multi-image matching" (CVPR 1996); consistency as
usual in multi-view stereo (Schönberger et al., ECCV 2016, section 4).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.geometry.cameras import spread_views
from pipeline.porf.config import StereoConfig
from pipeline.porf.correlation import correlations
from pipeline.porf.correlation_kernels import UNKNOWN
from pipeline.porf.depth_maps import DepthMaps
from pipeline.porf.interruption import Interruption
from pipeline.porf.semi_global import aggregated
from pipeline.porf.stereo_views import StereoViews
from pipeline.progress import Progress

_MIN_ANGLE_DEG, _MAX_ANGLE_DEG = 3.0, 45.0
_GOOD_ANGLE_DEG = 12.0
_NEUTRAL = 0.5  # cost of a depth about which nothing is known
_FARTHEST = 50.0  # units of the sphere's radius, in place of infinity


def neighbours(c2w: Tensor, count: int) -> list[list[int]]:
    """For every view up to `count` others that see the sphere's centre from a useful angle."""
    toward = F.normalize(c2w[:, :3, 3], dim=1)
    angle = torch.rad2deg(torch.arccos((toward @ toward.T).clamp(-1, 1))).cpu()
    chosen = []
    for row in angle:
        useful = ((row >= _MIN_ANGLE_DEG) & (row <= _MAX_ANGLE_DEG)).nonzero()[:, 0].tolist()
        chosen.append(sorted(useful, key=lambda i: abs(float(row[i]) - _GOOD_ANGLE_DEG))[:count])
    return chosen


def compared_views(c2w: Tensor, options: StereoConfig) -> dict[int, list[int]]:
    """The views that get a depth map, each with the others that it is compared with."""
    others = neighbours(c2w, options.neighbours)
    chosen = spread_views(c2w[:, :3, 3].cpu().numpy(), options.views)
    return {i: others[i] for i in chosen if others[i]}


@torch.no_grad()
def sweep(
    views: StereoViews,
    options: StereoConfig,
    progress: Progress,
    interruption: Interruption | None = None,
) -> DepthMaps:
    """Depth maps of some of the views, by the best agreement with their neighbours."""
    compared = compared_views(views.c2w, options)
    depths, scores = [], []
    for done, (i, others) in enumerate(compared.items()):
        depth, score = _sweep_view(views, i, others, options)
        depths.append(depth)
        scores.append(score)
        progress.advance("stereo", done + 1, len(compared))
        if interruption is not None:
            interruption.check()
    return DepthMaps(list(compared), depths, scores)


def _sweep_view(
    views: StereoViews, i: int, others: list[int], options: StereoConfig
) -> tuple[Tensor, Tensor]:
    """Depth (H, W) along unit rays and score (H, W) of one view."""
    height, width = views.grey.shape[2:]
    inverse = _inverse_depths(views.c2w[i, :3, 3], options.depths)
    volume = correlations(views, i, others, inverse[:, None, None], options.window)
    worth = volume
    if options.smoothness > 0:
        cost = torch.where(volume > UNKNOWN, 0.5 - 0.5 * volume, _NEUTRAL)
        grey = views.grey[i, 0]
        worth = -aggregated(cost.view(-1, height, width), grey, options.smoothness).flatten(1)
    index = worth.max(dim=0).indices
    score = volume.gather(0, index[None])[0]
    step = inverse[0] - inverse[1]
    depth = 1 / (inverse[0] - between_steps(worth, index) * step)
    return depth.view(height, width), score.view(height, width)


def _inverse_depths(centre: Tensor, count: int) -> Tensor:
    """(count,) 1/depth, descending: from the sphere's front side to far behind it."""
    distance = float(centre.norm())
    nearest = max(distance - 1.0, 0.1 * distance, 0.05)
    return torch.linspace(1 / nearest, 1 / (_FARTHEST + distance), count, device=centre.device)


def between_steps(volume: Tensor, index: Tensor) -> Tensor:
    """(P,) positions of the maxima over dimension 0: of parabolas through the steps at `index`."""
    last = len(volume) - 1
    inner = index.clamp(1, last - 1)
    left, middle, right = (volume.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = (0.5 * (left - right) / bend.clamp(max=-1e-6)).clamp(-0.5, 0.5)
    return torch.where(inner == index, index + shift, index.float())
