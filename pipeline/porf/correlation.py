"""How well windows of a view look alike in other views, at depths that are tried.

Zero-mean normalised cross-correlation of small square windows; of windows three times as wide where
small ones have no texture. On a CPU a compiled kernel does it all, elsewhere torch.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf import correlation_kernels as kernels
from pipeline.porf.stereo_views import StereoViews

_DEPTHS_AT_ONCE = 8  # bounds the memory


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
    middle = views.grey[i].mean()  # around it, single precision is enough for faint shading
    reference = views.grey[i, 0, *part] - middle
    sights = [_Sight.of(views, i, j, directions, middle) for j in others]
    if reference.device.type == "cpu":
        return _compiled(reference, sights, inverse, size)
    return _in_torch(reference, sights, inverse, size)


def _compiled(reference: Tensor, sights: "list[_Sight]", inverse: Tensor, size: int) -> Tensor:
    """See `correlations`; a thread a depth."""
    grey, reach = reference.contiguous().numpy(), size // 2
    small, wide = np.empty((2, *grey.shape)), np.empty((2, *grey.shape))
    kernels.statistics(grey, reach, small)
    kernels.statistics(grey, (kernels.WIDER * size) // 2, wide)
    stacked = [
        torch.stack(parts).contiguous().numpy()
        for parts in zip(*((s.grey, s.rays, s.centre) for s in sights), strict=True)
    ]
    scores = torch.empty(len(inverse), *grey.shape)

    def fill(depth: int) -> None:
        near = inverse[depth].contiguous().numpy()
        kernels.correlate(grey, small, wide, *stacked, near, reach, scores[depth].numpy())

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(len(inverse))))
    return scores.flatten(1)


def _in_torch(reference: Tensor, sights: "list[_Sight]", inverse: Tensor, size: int) -> Tensor:
    """See `correlations`."""
    small = _Windows(reference, size, kernels.FLAT)
    wide = _Windows(reference, kernels.WIDER * size, kernels.WIDE_FLAT)
    parts = []
    for chunk in inverse.split(_DEPTHS_AT_ONCE):
        scores = []
        for sight in sights:
            warped, seen = sight.warped(chunk, size // 2)
            score = small.correlation(warped)
            score = torch.where(score > kernels.UNKNOWN, score, wide.correlation(warped))
            scores.append(score.masked_fill(~seen, kernels.UNKNOWN))
        parts.append(_best_two(scores))
    return torch.cat(parts).flatten(1)


@dataclass(frozen=True)
class _Sight:
    """A neighbour as the reference's rays meet it: its pixels are rays + inverse depth · centre.

    Attributes:
        grey: (H, W), around 0.
        rays: (3, h, w) the reference's ray directions as homogeneous pixels of the neighbour.
        centre: (3,) the reference's centre likewise.
    """

    grey: Tensor
    rays: Tensor
    centre: Tensor

    @classmethod
    def of(cls, views: StereoViews, i: int, j: int, directions: Tensor, middle: Tensor) -> "_Sight":
        projection = views.K[j] @ views.w2c[j, :3]
        rays = (directions @ projection[:, :3].T).permute(2, 0, 1)
        centre = projection[:, :3] @ views.c2w[i, :3, 3] + projection[:, 3]
        return cls(views.grey[j, 0] - middle, rays, centre)

    def warped(self, inverse: Tensor, margin: int) -> tuple[Tensor, Tensor]:
        """The neighbour seen through the reference at inverse depths (D, 1 or h, 1 or w).

        Returns:
            (D, h, w) grey, and bool where it comes from within its frame, at least `margin` pixels
            from the border.
        """
        # Scaled by the inverse depth, so that far away only the rays' directions count.
        x, y, z = (self.rays[k] + self.centre[k] * inverse for k in range(3))
        seen = z > kernels.LEAST_DEPTH
        over = z.clamp(min=kernels.LEAST_DEPTH).reciprocal()
        ends = []
        for coordinate, size in ((x, self.grey.shape[1]), (y, self.grey.shape[0])):
            end = coordinate * over * (2 / size) + (1 / size - 1)
            seen &= end.abs() < 1 - 2 * margin / size
            ends.append(end)
        grey = self.grey.expand(len(inverse), 1, -1, -1)
        grid = torch.stack(ends, dim=-1)
        warped = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
        return warped[:, 0], seen


def _best_two(scores: list[Tensor]) -> Tensor:
    """Mean of the two highest, element by element; what the others say may be hidden from them."""
    first, second = scores[0], torch.full_like(scores[0], -1.0) if len(scores) > 1 else scores[0]
    for other in scores[1:]:  # much faster than sorting
        second = torch.maximum(second, torch.minimum(first, other))
        first = torch.maximum(first, other)
    return 0.5 * (first + second)


class _Windows:
    """Correlation of square windows with those of one reference (h, w)."""

    def __init__(self, reference: Tensor, size: int, flat: float) -> None:
        self.reference, self.size, self.flat = reference, size, flat
        self.mean = self._average(reference[None])
        self.variance = self._average(reference[None] ** 2) - self.mean**2

    def correlation(self, warped: Tensor) -> Tensor:
        """(D, h, w) in [-1, 1]; -1 where one of the windows has no texture."""
        mean, square = self._average(warped), self._average(warped**2)
        covariance = self._average(warped * self.reference) - mean * self.mean
        variance = square - mean**2
        known = (variance > self.flat) & (self.variance > self.flat)
        scale = (variance.clamp(min=self.flat) * self.variance.clamp(min=self.flat)).rsqrt()
        return torch.where(known, (covariance * scale).clamp(-1.0, 1.0), kernels.UNKNOWN)

    def _average(self, images: Tensor) -> Tensor:
        """Means (D, h, w) over the window, the border continued."""
        reach = (self.size // 2,) * 4
        return F.avg_pool2d(F.pad(images[None], reach, mode="replicate"), self.size, 1)[0]
