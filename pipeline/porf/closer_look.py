"""Depths measured again, closely around the surface as it is by now.

The first plane sweep compares square windows as if the surface faced the camera, over all depths,
in small images. Once there is a surface, windows can follow it: every pixel moves along its own ray
around its own depth. Then large windows are as sharp as small ones, so the faint shading of a
surface without texture tells its depth too, and few depths in larger images suffice.

Source: the idea of refining depth by windows that follow the surface is Furukawa and Ponce's
"Accurate, dense, and robust multi-view stereopsis" (TPAMI 2010), section 3; here for all pixels of
a view at once.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf import sight_kernels
from pipeline.porf.anchors import Anchors
from pipeline.porf.compiled import arrays, lock, serves
from pipeline.porf.config import LookConfig, StereoConfig
from pipeline.porf.correlation import correlations
from pipeline.porf.depth_maps import DepthMaps, confirmed, refuted
from pipeline.porf.interruption import Interruption
from pipeline.porf.rays import RayBatch, unit_sphere_interval
from pipeline.porf.stereo import between_steps, compared_views
from pipeline.porf.stereo_views import StereoViews
from pipeline.progress import Progress

_TRACE_STEPS = 40
_STEP_SHARE = 0.9  # of the distance: a trained field is not exactly one
_ON_SURFACE = 0.01


@torch.no_grad()
def look_closer(
    distances: Tensor,
    views: StereoViews,
    stereo: StereoConfig,
    options: LookConfig,
    progress: Progress,
    interruption: Interruption | None = None,
) -> tuple[DepthMaps, list[Tensor]]:
    """Depth maps near a surface, and where they are to be trusted (H, W) bool.

    Args:
        distances: (1, 1, N, N, N) signed distances of the surface, see `fill_slabs`.
        stereo: says which views, which neighbours and which windows.
    """
    compared = compared_views(views.c2w, stereo)
    depths, scores = [], []
    for done, (i, others) in enumerate(compared.items()):
        depth, hit = traced(distances, views, i)
        best, score = _around(views, i, others, depth, hit, stereo.window, options)
        depths.append(best)
        scores.append(score)
        progress.advance("closer look", done + 1, len(compared))
        if interruption is not None:
            interruption.check()
    maps = DepthMaps(list(compared), depths, scores)
    trusted = confirmed(views, maps, options)
    return maps, trusted


def traced(distances: Tensor, views: StereoViews, i: int) -> tuple[Tensor, Tensor]:
    """Depths (H, W) along view i's unit rays of the first surface, and whether one was met.

    Every other pixel of every other row is traced; a start for windows need not know more.
    """
    directions = views.directions(i)
    some = directions[::2, ::2]
    rays = some.reshape(-1, 3)
    centre = views.c2w[i, :3, 3]
    near, far, hit = unit_sphere_interval(RayBatch(centre.expand_as(rays), rays))
    depth, left = _trace(distances, centre, rays, near[:, 0], far[:, 0])
    hit = hit & (left.abs() < _ON_SURFACE) & (depth < far[:, 0])
    traced = torch.stack([depth, hit.float()]).view(1, 2, *some.shape[:2])
    whole = _between(traced, directions.shape[:2])
    return whole[0], whole[1] > 0.999  # all around it were met


def _trace(
    distances: Tensor, centre: Tensor, rays: Tensor, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """Depths (P,) of the first surface along unit rays (P, 3), at most `far`; distances there."""
    if serves(rays):
        depth, left = near.clone(), torch.empty_like(near)
        given = arrays(distances[0, 0], centre, rays, far)
        with lock:
            sight_kernels.trace(
                *given,
                _TRACE_STEPS,
                np.float32(_STEP_SHARE),
                depth.numpy(),
                left.numpy(),
            )
        return depth, left

    def distance(depth: Tensor) -> Tensor:
        points = (centre + rays * depth[:, None]).flip(-1)[None, None, None]
        return F.grid_sample(distances, points, align_corners=True).view(-1)

    depth = near
    for _ in range(_TRACE_STEPS):
        depth = torch.minimum(depth + _STEP_SHARE * distance(depth), far)
    return depth, distance(depth)


def _between(image: Tensor, size: torch.Size) -> Tensor:
    """(C, H, W) from every other pixel (1, C, ⌈H/2⌉, ⌈W/2⌉) of every other row."""
    rows, columns = image.shape[2:]
    between = F.interpolate(
        image, (2 * rows - 1, 2 * columns - 1), mode="bilinear", align_corners=True
    )
    missing = (0, size[1] - between.shape[3], 0, size[0] - between.shape[2])
    return F.pad(between, missing, mode="replicate")[0]


def _around(
    views: StereoViews,
    i: int,
    others: list[int],
    depth: Tensor,
    hit: Tensor,
    window: int,
    options: LookConfig,
) -> tuple[Tensor, Tensor]:
    """Best depth (H, W) within the reach and its score; 0 and -1 where there is none."""
    best, scores = torch.zeros_like(depth), torch.full_like(depth, -1.0)
    if not hit.any():
        return best, scores
    part = _bounds(hit)
    count, reach = options.depths, options.reach
    offsets = torch.linspace(-reach, reach, count, device=depth.device)
    start = depth[part]
    inverse = 1 / (start + offsets[:, None, None]).clamp(min=1e-3)
    volume = correlations(views, i, others, inverse, window, part)
    index = volume.max(dim=0).indices
    score = volume.gather(0, index[None])[0]
    offset = 2 * reach * between_steps(volume, index) / (count - 1) - reach
    good = ((index > 0) & (index < count - 1)).view_as(start) & hit[part]
    best[part] = torch.where(good, start + offset.view_as(start), 0.0)
    scores[part] = torch.where(good, score.view_as(start), -1.0)
    return best, scores


def _bounds(pixels: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold all pixels (H, W) bool."""
    rows, columns = pixels.any(1).nonzero()[:, 0], pixels.any(0).nonzero()[:, 0]
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def with_closer(
    anchors: Anchors,
    views: StereoViews,
    maps: DepthMaps,
    trusted: list[Tensor],
    tolerance: float,
) -> Anchors:
    """Anchors of the closer depths, and the old ones that these say nothing about.

    Old ones go where their own pixel has a closer depth, and where another view looks through their
    point: it sees something farther away there, by more than `tolerance` of its distance.
    """
    found = []
    for i, points, good in zip(maps.view, maps.points(views), trusted, strict=True):
        seen = points[good]
        found.append(Anchors(views.c2w[i, :3, 3].expand_as(seen), seen, i).lines)
    gone = refuted(views, maps, trusted, anchors.points, anchors.view, anchors.ends, tolerance)
    return Anchors.of_lines(torch.cat([anchors.lines[~gone], *found]))
