"""Depth maps by plane sweep: where the photos agree about the surface before it is trained.

Every pixel tries depths along its ray, from the front of the unit sphere to infinity in equal steps
of inverse depth, and keeps the one at which small windows of a few neighbouring views look alike
(zero-mean normalised cross-correlation; wider windows where small ones have no texture), smoothly
over the image. What the neighbours' own depth maps confirm is kept.

Source: Collins, "A space-sweep approach to true multi-image matching" (CVPR 1996); consistency as
usual in multi-view stereo (Schönberger et al., ECCV 2016, section 4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf.config import LookConfig, StereoConfig
from pipeline.porf.interruption import Interruption
from pipeline.porf.observations import scaled_intrinsics
from pipeline.porf.semi_global import aggregated
from pipeline.progress import Progress

_LUMA = (0.299, 0.587, 0.114)
_FLAT = 1e-4  # variance of a small window without texture: a hundredth of the range of grey
_WIDE_FLAT = 1e-5  # of a wide one, over which noise averages out
_DEPTH_CHUNK = 4  # small enough for a processor's cache
_MIN_ANGLE_DEG, _MAX_ANGLE_DEG = 3.0, 45.0
_GOOD_ANGLE_DEG = 12.0
_PARALLEL = 1e-6
_UNKNOWN = -1.0
_NEUTRAL = 0.5  # cost of a depth about which nothing is known
_FARTHEST = 50.0  # units of the sphere's radius, in place of infinity


@dataclass(frozen=True)
class StereoViews:
    """Grey views at stereo's size.

    Attributes:
        grey: (V, 1, H, W) in [0, 1].
        K: (V, 3, 3) intrinsics at this size, pixel centres at integers.
        c2w: (V, 4, 4) cameras, normalised frame.
    """

    grey: Tensor
    K: Tensor
    c2w: Tensor

    @property
    def w2c(self) -> Tensor:
        """(V, 4, 4)."""
        return torch.linalg.inv(self.c2w)

    def directions(self, i: int) -> Tensor:
        """(H, W, 3) unit ray directions of view i, normalised frame."""
        height, width = self.grey.shape[2:]
        rows = torch.arange(height, device=self.grey.device, dtype=torch.float32)
        columns = torch.arange(width, device=self.grey.device, dtype=torch.float32)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        turned = self.c2w[i, :3, :3] @ torch.linalg.inv(self.K[i])
        return F.normalize(pixels @ turned.T, dim=-1)


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


def stereo_views(images: Tensor, K: Tensor, c2w: Tensor, max_side: int) -> StereoViews:
    """Reduce views (V, H, W, 3) uint8 with intrinsics (V, 3, 3) for the sweep."""
    height, width = images.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    luma = torch.tensor(_LUMA, device=images.device)
    grey = torch.cat(
        [
            F.interpolate((view.float() / 255 @ luma)[None, None], size, mode="area")
            for view in images
        ]
    )
    K_small = scaled_intrinsics(K.cpu().double().numpy(), size[1] / width, size[0] / height)
    small = torch.from_numpy(K_small).to(K)
    return StereoViews(grey, small, c2w)


def neighbours(c2w: Tensor, count: int) -> list[list[int]]:
    """For every view up to `count` others that see the sphere's centre from a useful angle."""
    toward = F.normalize(c2w[:, :3, 3], dim=1)
    angle = torch.rad2deg(torch.arccos((toward @ toward.T).clamp(-1, 1))).cpu()
    chosen = []
    for row in angle:
        useful = ((row >= _MIN_ANGLE_DEG) & (row <= _MAX_ANGLE_DEG)).nonzero()[:, 0].tolist()
        chosen.append(sorted(useful, key=lambda i: abs(float(row[i]) - _GOOD_ANGLE_DEG))[:count])
    return chosen


def spread_views(c2w: Tensor, limit: int) -> list[int]:
    """Up to `limit` views far from each other (farthest-point sampling of the centres)."""
    centre = c2w[:, :3, 3].cpu()
    chosen = [0]
    while len(chosen) < min(limit, len(centre)):
        distance = torch.cdist(centre, centre[chosen]).min(dim=1).values
        chosen.append(int(distance.argmax()))
    return sorted(chosen)


@torch.no_grad()
def sweep(
    views: StereoViews,
    options: StereoConfig,
    progress: Progress,
    interruption: Interruption | None = None,
) -> DepthMaps:
    """Depth maps of some of the views, by the best agreement with their neighbours."""
    others = neighbours(views.c2w, options.neighbours)
    reference = [i for i in spread_views(views.c2w, options.views) if others[i]]
    depths, scores = [], []
    for done, i in enumerate(reference):
        depth, score = _sweep_view(views, i, others[i], options)
        depths.append(depth)
        scores.append(score)
        progress.advance("stereo", done + 1, len(reference))
        if interruption is not None:
            interruption.check()
    return DepthMaps(reference, depths, scores)


@torch.no_grad()
def confirmed(
    views: StereoViews, maps: DepthMaps, options: StereoConfig | LookConfig
) -> list[Tensor]:
    """(H, W) bool a map: correlated well, and found again in the maps of other views."""
    w2c = views.w2c
    found = []
    for i, points, score in zip(maps.view, maps.points(views), maps.score, strict=True):
        kept = score >= options.min_score
        candidates = points[kept]
        agreeing = torch.zeros_like(candidates[:, 0])
        for j, other in zip(maps.view, maps.depth, strict=True):
            if j != i:
                agreeing += _agrees(candidates, w2c[j], views.K[j], other, options.consistency)
        kept[kept.clone()] = agreeing >= options.min_views
        found.append(kept)
    return found


def _agrees(points: Tensor, w2c: Tensor, K: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """(P,) 1.0 where another view's depth map (H, W) has the points (P, 3) too."""
    local = points @ w2c[:3, :3].T + w2c[:3, 3]
    index, seen = nearest_pixels(local, K, depth.shape)
    theirs = depth.reshape(-1)[index]
    distance = local.norm(dim=-1)
    return (seen & ((theirs - distance).abs() < tolerance * distance)).float()


def nearest_pixels(local: Tensor, K: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Where a view of `size` (H, W) sees points (P, 3) of its own frame.

    Returns:
        (P,) indices of the nearest pixels, row by row, and (P,) bool where there is one.
    """
    height, width = size
    homogeneous = local @ K.T
    z = homogeneous[:, 2]
    x, y = ((homogeneous[:, k] / z.clamp(min=_PARALLEL)).round() for k in range(2))
    seen = (z > 0) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long(), seen


def _sweep_view(
    views: StereoViews, i: int, others: list[int], options: StereoConfig
) -> tuple[Tensor, Tensor]:
    """Depth (H, W) along unit rays and score (H, W) of one view."""
    height, width = views.grey.shape[2:]
    inverse = _inverse_depths(views.c2w[i, :3, 3], options.depths)
    volume = correlations(views, i, others, inverse[:, None, None], options.window)
    worth = volume
    if options.smoothness > 0:
        cost = torch.where(volume > _UNKNOWN, 0.5 - 0.5 * volume, _NEUTRAL)
        grey = views.grey[i, 0]
        worth = -aggregated(cost.view(-1, height, width), grey, options.smoothness).flatten(1)
    index = worth.max(dim=0).indices
    score = volume.gather(0, index[None])[0]
    step = inverse[0] - inverse[1]
    depth = 1 / (inverse[0] - between_steps(worth, index) * step)
    return depth.view(height, width), score.view(height, width)


def correlations(
    views: StereoViews,
    i: int,
    others: list[int],
    inverse: Tensor,
    size: int,
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> Tensor:
    """How well windows of view i look alike in the best two of some others.

    Args:
        inverse: (D, 1 or h, 1 or w) inverse depths that are tried, along unit rays.
        size: side of the windows, pixels.
        part: h rows and w columns of the view, if not all.

    Returns:
        (D, h·w) in [-1, 1]; -1 where nothing is known.
    """
    directions = views.directions(i)[part]
    window = _Window(views.grey[i : i + 1, :, *part], size)
    sights = [_Sight.of(views, i, j, directions) for j in others]
    parts = []
    for chunk in inverse.split(_DEPTH_CHUNK):
        scores = [window.correlation(*sight.warped(chunk, size // 2)) for sight in sights]
        parts.append(_best_two(scores))
    return torch.cat(parts)


def _inverse_depths(centre: Tensor, count: int) -> Tensor:
    """(count,) 1/depth, descending: from the sphere's front side to far behind it."""
    distance = float(centre.norm())
    nearest = max(distance - 1.0, 0.1 * distance, 0.05)
    return torch.linspace(1 / nearest, 1 / (_FARTHEST + distance), count, device=centre.device)


@dataclass(frozen=True)
class _Sight:
    """A neighbour as the reference's rays meet it: its pixels are rays + inverse depth · centre.

    Attributes:
        grey: (1, 1, H, W).
        rays: (3, H, W) the reference's ray directions as homogeneous pixels of the neighbour.
        centre: (3,) the reference's centre likewise.
    """

    grey: Tensor
    rays: Tensor
    centre: Tensor

    @classmethod
    def of(cls, views: StereoViews, i: int, j: int, directions: Tensor) -> "_Sight":
        projection = views.K[j] @ views.w2c[j, :3]
        rays = (directions @ projection[:, :3].T).permute(2, 0, 1).contiguous()
        centre = projection[:, :3] @ views.c2w[i, :3, 3] + projection[:, 3]
        return cls(views.grey[j : j + 1], rays, centre)

    def warped(self, inverse: Tensor, margin: int) -> tuple[Tensor, Tensor]:
        """The neighbour seen through the reference at inverse depths (D, 1 or H, 1 or W).

        Returns:
            (D, 1, H, W) grey, and (D, H·W) bool where it comes from within its frame, at least
            `margin` pixels from the border.
        """
        height, width = self.grey.shape[2:]
        # Scaled by the inverse depth, so that far away only the rays' directions count.
        x, y, z = (self.rays[k] + self.centre[k] * inverse for k in range(3))
        seen = z > _PARALLEL
        over = z.clamp_(min=_PARALLEL).reciprocal_()
        for coordinate, size in ((x, width), (y, height)):
            coordinate.mul_(over).mul_(2 / size).add_(1 / size - 1)
            seen &= coordinate.abs() < 1 - 2 * margin / size
        grid = torch.stack([x, y], dim=-1)
        grey = self.grey.expand(len(inverse), -1, -1, -1)
        return F.grid_sample(grey, grid, align_corners=False), seen.flatten(1)


def _best_two(scores: list[Tensor]) -> Tensor:
    """Mean of the two highest, element by element; what the others say may be hidden from them."""
    first, second = scores[0], torch.full_like(scores[0], -1.0) if len(scores) > 1 else scores[0]
    for other in scores[1:]:  # much faster than sorting
        second = torch.maximum(second, torch.minimum(first, other))
        first = torch.maximum(first, other)
    return 0.5 * (first + second)


def between_steps(volume: Tensor, index: Tensor) -> Tensor:
    """(P,) positions of the maxima over dimension 0: of parabolas through the steps at `index`."""
    last = len(volume) - 1
    inner = index.clamp(1, last - 1)
    left, middle, right = (volume.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = (0.5 * (left - right) / bend.clamp(max=-1e-6)).clamp(-0.5, 0.5)
    return torch.where(inner == index, index + shift, index.float())


@dataclass(frozen=True)
class _MeanAndVariance:
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, mean: Tensor, mean_square: Tensor) -> "_MeanAndVariance":
        return cls(mean, mean_square - mean**2)


class _Window:
    """Correlation of square windows with those of one reference view (1, 1, H, W).

    Windows without texture give way to windows three times as wide.
    """

    def __init__(self, reference: Tensor, size: int) -> None:
        self.size = size
        self.reference = reference
        moments = [self._average(reference), self._average(reference**2)]
        self.small = _MeanAndVariance.of(*moments)
        self.wide = _MeanAndVariance.of(*(self._widened(moment) for moment in moments))

    def correlation(self, warped: Tensor, seen: Tensor) -> Tensor:
        """(D, H·W) in [-1, 1]; -1 where the window is not seen or has no texture."""
        moments = [self._average(m) for m in (warped, warped * warped, warped * self.reference)]
        widened = [self._widened(moment) for moment in moments]
        wide = self._score(widened, self.wide, _WIDE_FLAT)
        small = self._score(moments, self.small, _FLAT)
        score = torch.where(small > _UNKNOWN, small, wide).flatten(1)
        return score.masked_fill_(~seen, _UNKNOWN)

    @staticmethod
    def _score(moments: list[Tensor], reference: "_MeanAndVariance", flat: float) -> Tensor:
        """From the means of a warped view, its square, and its product with the reference."""
        mean, square, product = moments
        variance = square - mean * mean
        covariance = product - mean * reference.mean
        known = (variance > flat) & (reference.variance > flat)
        scale = variance.clamp_(min=flat).mul_(reference.variance.clamp(min=flat)).rsqrt_()
        score = covariance.mul_(scale).clamp_(-1.0, 1.0)
        return score.masked_fill_(~known, _UNKNOWN)

    def _widened(self, mean: Tensor) -> Tensor:
        """Means over windows three times as wide, from nine small ones."""
        height, width = mean.shape[2:]
        size = self.size
        padded = F.pad(mean, (size, size, size, size), mode="replicate")
        first, middle, last = (padded[:, :, k * size : k * size + height] for k in range(3))
        down = first + middle + last
        left, middle, right = (down[..., k * size : k * size + width] for k in range(3))
        return (left + middle + right) / 9

    def _average(self, image: Tensor) -> Tensor:
        """Means over the window; sums of shifted images are faster than pooling on a CPU."""
        reach = self.size // 2
        height, width = image.shape[2:]
        padded = F.pad(image, (reach, reach, reach, reach), mode="replicate")
        down = padded[:, :, :height].clone()
        for k in range(1, self.size):
            down += padded[:, :, k : k + height]
        both = down[..., :width].clone()
        for k in range(1, self.size):
            both += down[..., k : k + width]
        return both.div_(self.size**2)
