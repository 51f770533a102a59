"""PoRF's epipolar loss over all matches of a scene at once.

Bian et al., "PoRF" (ICLR 2024), section 3.2, in the form of the original code: symmetric epipolar
distance in pixels (not squared), inliers below a threshold, Huber mean over a pair's inliers times
the pair's squared inlier rate, summed over pairs and divided by a constant.

All matches lie concatenated in one table, so that a loss over thousands of pairs is a handful of
batched operations, without a loop over pairs and without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.formats.matches import ViewMatches
from pipeline.porf.so3 import skew

ORIGINAL_PAIRS_A_STEP = 20
"""Source views a step, and the divisor of the summed loss, in the original's configuration."""

ORIGINAL_MATCHES_A_PAIR = 5000
"""Matches a pair and step at most, in the original."""

_HUBER_DELTA_PX = 1.0
# Keeps the root differentiable at a perfect match; the original's (kornia's) value, in px².
_ERROR_EPSILON_PX2 = 1e-8
# Only two cameras at one place have epipolar lines this degenerate; their error then reads zero.
_MIN_LINE_NORM_SQUARED = 1e-20


@dataclass(frozen=True)
class MatchTable:
    """Matches of many view pairs, concatenated pair by pair. Every pair has at least one match.

    Attributes:
        points_px: (M, 4) x_ref, y_ref, x_src, y_src in undistorted pixels (IDR), float32.
        pair_of_match: (M,) pair that a match belongs to, ascending.
        pair_ref, pair_src: (P,) views of a pair.
        pair_counts: (P,) matches of a pair, float32 like the points.
        host_ref, host_counts: (P,) copies on the CPU, so that choosing pairs never waits for a GPU.
    """

    points_px: Tensor
    pair_of_match: Tensor
    pair_ref: Tensor
    pair_src: Tensor
    pair_counts: Tensor
    host_ref: Tensor
    host_counts: Tensor

    @property
    def num_matches(self) -> int:
        return len(self.points_px)

    @property
    def num_pairs(self) -> int:
        return len(self.pair_ref)

    @property
    def device(self) -> torch.device:
        return self.points_px.device

    @classmethod
    def from_matches(
        cls,
        matches: Sequence[ViewMatches],
        *,
        heldout: bool | None = False,
        both_directions: bool = True,
        max_matches_per_pair: int | None = ORIGINAL_MATCHES_A_PAIR,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> MatchTable:
        """Concatenate the matches of all views.

        Args:
            matches: one entry a view, index = position among the views.
            heldout: False leaves held-out matches out, True takes only them, None takes all.
            both_directions: False drops pair (i, j), i > j, where its mirror (j, i) is present: the
                distance is symmetric, so an all-pairs loss loses nothing but half of its work.
            max_matches_per_pair: larger pairs are cut to a random choice, without repetition.
            generator: CPU generator of that choice; None = seed 0.
            device: where the table is kept.

        Raises:
            InputError: matches that are not finite, or a view matched with itself or one that
                does not exist.
        """
        generator = generator or torch.Generator().manual_seed(0)
        present = {(i, j) for i, view in enumerate(matches) for j in view.sources}
        ref: list[int] = []
        src: list[int] = []
        points: list[Tensor] = []
        for i, view in enumerate(matches):
            rows_of = zip(view.sources, view.matches_px, view.heldout, strict=True)
            for j, pixels, marks in rows_of:
                if not both_directions and i > j and (j, i) in present:
                    continue
                _check_pair(i, j, pixels, len(matches))
                rows = _rows(pixels, marks, heldout, max_matches_per_pair, generator)
                if len(rows):
                    ref.append(i)
                    src.append(j)
                    points.append(rows)
        counts = torch.tensor([len(p) for p in points], dtype=torch.long)
        all_points = torch.cat(points) if points else torch.zeros(0, 4)
        host_ref = torch.tensor(ref, dtype=torch.long)
        return cls(
            points_px=all_points.to(device),
            pair_of_match=torch.repeat_interleave(torch.arange(len(ref)), counts).to(device),
            pair_ref=host_ref.to(device),
            pair_src=torch.tensor(src, dtype=torch.long).to(device),
            pair_counts=counts.to(device, all_points.dtype),
            host_ref=host_ref,
            host_counts=counts,
        )

    def pairs_of_view(self, view: int) -> Tensor:
        """Pairs (on the CPU) whose reference view is `view`; empty if it has no matches."""
        return torch.nonzero(self.host_ref == view).flatten()

    def sample_pairs_of_view(
        self, view: int, generator: torch.Generator, max_pairs: int = ORIGINAL_PAIRS_A_STEP
    ) -> Tensor:
        """The original's choice of a step: `view` with up to `max_pairs` random source views."""
        pairs = self.pairs_of_view(view)
        return pairs[torch.randperm(len(pairs), generator=generator)[:max_pairs]]

    def sample_pairs(self, max_pairs: int, generator: torch.Generator) -> Tensor:
        """Up to `max_pairs` random pairs of the whole table (on the CPU), none twice."""
        return torch.randperm(self.num_pairs, generator=generator)[:max_pairs]

    def select(
        self,
        pairs: Tensor,
        max_matches_per_pair: int | None = None,
        generator: torch.Generator | None = None,
    ) -> MatchTable:
        """The table of only `pairs`, in that order; indices on the CPU keep it free of waits.

        Args:
            pairs: (P',) pair indices, repetition allowed.
            max_matches_per_pair: larger pairs are cut to a random choice *with* repetition, as the
                original does at every step; None keeps all.
            generator: CPU generator of that choice; None = torch's global one.
        """
        pairs = pairs.cpu()
        offsets = torch.cumsum(self.host_counts, 0) - self.host_counts
        available = self.host_counts[pairs]
        kept = available
        if max_matches_per_pair is not None:
            kept = available.clamp(max=max_matches_per_pair)
        total = int(kept.sum())
        pair_of_match = torch.repeat_interleave(torch.arange(len(pairs)), kept, output_size=total)
        first_row = torch.cumsum(kept, 0) - kept
        within = torch.arange(total) - first_row[pair_of_match]
        if bool((kept < available).any()):
            size = available[pair_of_match]
            draw = (torch.rand(total, generator=generator) * size).long().clamp(max=size - 1)
            within = torch.where(size > kept[pair_of_match], draw, within)
        rows = (within + offsets[pairs][pair_of_match]).to(self.device, non_blocking=True)
        on_device = pairs.to(self.device, non_blocking=True)
        return MatchTable(
            points_px=self.points_px[rows],
            pair_of_match=pair_of_match.to(self.device, non_blocking=True),
            pair_ref=self.pair_ref[on_device],
            pair_src=self.pair_src[on_device],
            pair_counts=kept.to(self.device, self.pair_counts.dtype, non_blocking=True),
            host_ref=self.host_ref[pairs],
            host_counts=kept,
        )


class EpipolarLoss(NamedTuple):
    """`loss` (scalar, differentiable) and `inlier_rate` (scalar, mean over pairs, detached)."""

    loss: Tensor
    inlier_rate: Tensor


def epipolar_loss(
    table: MatchTable,
    c2w: Tensor,
    K: Tensor,
    pairs: Tensor | None = None,
    *,
    inlier_px: float = 20.0,
    normaliser: float = ORIGINAL_PAIRS_A_STEP,
) -> EpipolarLoss:
    """Sum over pairs of (inlier rate)² × (Huber mean of the inliers' distances) / `normaliser`.

    A pair without inliers, and a table without matches, contribute zero with a zero gradient.

    Args:
        c2w: (V, 4, 4) camera-to-world poses, any frame.
        K: (V, 3, 3) intrinsics in pixels, upper triangular; may require a gradient.
        pairs: pair indices to use; None = all, without any wait for the device.
        inlier_px: matches at or above this distance are ignored (paper: 20).
        normaliser: divisor of the sum. The original always divides by 20, however many pairs a
            view has.
    """
    if pairs is not None:
        table = table.select(pairs)
    errors_px = symmetric_epipolar_errors_px(table, c2w, K)
    inlier = (errors_px < inlier_px).to(errors_px.dtype)
    quadratic = 0.5 * errors_px**2
    linear = _HUBER_DELTA_PX * (errors_px - 0.5 * _HUBER_DELTA_PX)
    # `where` and not a product: a distance that is far off must not reach the sum as inf * 0.
    huber = torch.where(errors_px < _HUBER_DELTA_PX, quadratic, linear)
    huber = torch.where(errors_px < inlier_px, huber, torch.zeros_like(huber))

    zeros = errors_px.new_zeros(table.num_pairs)
    inliers_of_pair = zeros.index_add(0, table.pair_of_match, inlier)
    huber_of_pair = zeros.index_add(0, table.pair_of_match, huber)
    rate = inliers_of_pair / table.pair_counts.to(errors_px.dtype)
    loss = (rate**2 * huber_of_pair / inliers_of_pair.clamp(min=1)).sum() / normaliser
    return EpipolarLoss(loss, rate.sum() / max(table.num_pairs, 1))


def symmetric_epipolar_errors_px(table: MatchTable, c2w: Tensor, K: Tensor) -> Tensor:
    """Symmetric epipolar distance (M,) of every match, pixels (Hartley and Zisserman, 11.4).

    The root of the summed squared distances of both points to their epipolar lines. Arguments as
    in `epipolar_loss`; differentiable in poses and intrinsics.
    """
    F = fundamental_matrices(table.pair_ref, table.pair_src, c2w, K)
    # index_select's backward is an index_add, several times cheaper on a CPU than F[...]'s.
    per_match = F.reshape(-1, 9).index_select(0, table.pair_of_match).unbind(1)
    f00, f01, f02, f10, f11, f12, f20, f21, f22 = per_match
    x1, y1, x2, y2 = table.points_px.to(F.dtype).unbind(1)
    # Line of the reference point in the source view (F x1) and the reverse (Fᵀ x2).
    line2_x = f00 * x1 + f01 * y1 + f02
    line2_y = f10 * x1 + f11 * y1 + f12
    line2_w = f20 * x1 + f21 * y1 + f22
    line1_x = f00 * x2 + f10 * y2 + f20
    line1_y = f01 * x2 + f11 * y2 + f21
    residual = x2 * line2_x + y2 * line2_y + line2_w
    norm2 = (line2_x**2 + line2_y**2).clamp(min=_MIN_LINE_NORM_SQUARED)
    norm1 = (line1_x**2 + line1_y**2).clamp(min=_MIN_LINE_NORM_SQUARED)
    return (residual**2 * (1 / norm1 + 1 / norm2) + _ERROR_EPSILON_PX2).sqrt()


def fundamental_matrices(ref: Tensor, src: Tensor, c2w: Tensor, K: Tensor) -> Tensor:
    """F (P, 3, 3) with ``x_srcᵀ F x_ref = 0`` for views `ref` and `src` (P,) of `c2w` and `K`."""
    rotation, centre = c2w[:, :3, :3], c2w[:, :3, 3]
    world_to_src = rotation[src].transpose(1, 2)
    relative_rotation = world_to_src @ rotation[ref]
    baseline = (world_to_src @ (centre[ref] - centre[src])[..., None]).squeeze(-1)
    K_inverse = invert_intrinsics(K.to(c2w.dtype))
    essential = skew(baseline) @ relative_rotation
    return K_inverse[src].transpose(1, 2) @ essential @ K_inverse[ref]


def invert_intrinsics(K: Tensor) -> Tensor:
    """Inverse of upper triangular K (..., 3, 3) with K[2, 2] = 1.

    In closed form, because a general inverse makes the host wait for the GPU to report success.
    """
    fx, skewness, cx = K[..., 0, 0], K[..., 0, 1], K[..., 0, 2]
    fy, cy = K[..., 1, 1], K[..., 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    entries = [
        *(1 / fx, -skewness / (fx * fy), (skewness * cy - cx * fy) / (fx * fy)),
        *(zero, 1 / fy, -cy / fy),
        *(zero, zero, one),
    ]
    return torch.stack(entries, dim=-1).reshape(K.shape)


def _check_pair(ref: int, src: int, pixels: np.ndarray, num_views: int) -> None:
    if src == ref or not 0 <= src < num_views:
        raise InputError(
            f"Matches of view {ref} name view {src} as their source; "
            f"expected another view of 0 to {num_views - 1}."
        )
    if not np.isfinite(pixels).all():
        raise InputError(f"Matches of views {ref} and {src} hold coordinates that are not finite.")


def _rows(
    pixels: np.ndarray,
    marks: np.ndarray,
    heldout: bool | None,
    limit: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Wanted rows (m, 4) of one pair: held out or not, and at most `limit`."""
    if heldout is not None:
        pixels = pixels[marks == heldout]
    rows = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
    if limit is not None and len(rows) > limit:
        chosen = torch.randperm(len(rows), generator=generator)[:limit]
        rows = rows[chosen.sort().values]
    return rows
