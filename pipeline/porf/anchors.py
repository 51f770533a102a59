"""Surface points known before training, and the lines of sight that end at them.

They come from triangulated matches and stereo depth maps. A field that is first fitted to them
starts near the true shape instead of a sphere: thin and hollow parts and the ground need not be
carved by colours, and the outside cannot explain what stands inside.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf.epipolar import MatchTable, invert_intrinsics
from pipeline.porf.rays import RayBatch, unit_sphere_interval

_MIN_ANGLE_DEG = 3.0
"""Rays that meet at less say little about depth."""
_MAX_REPROJECTION_PX = 2.0
_PARALLEL = 1e-6
_NEAR_THE_END = 3
_BEHIND_WEIGHT = 0.2
"""Every point behind is as close to the surface as can be, one in five of the free ones is: with
equal weights the nearest of contradicting anchors would win, and hollows fill up."""
_BEHIND = 0.006
"""So far behind a surface point is inside: somewhat less than a cell of the fast field's finest
grid. Leaves, which are seen from both sides, come out at least that thick."""


@dataclass(frozen=True)
class AnchorDraw:
    """Points of some anchors, normalised frame.

    Attributes:
        surface: (C, 3) on the surface where `ends` is 1, else where the line leaves the sphere.
        free: (C, 3) somewhere on the line of sight before it: not inside anything.
        behind: (C, 3) a little farther on: inside the object where `ends` is 1.
        ends: (C, 1) 1.0 where the line ends at a surface in the sphere, 0.0 where it goes on.
    """

    surface: Tensor
    free: Tensor
    behind: Tensor
    ends: Tensor


class Anchors:
    """Lines of sight through the unit sphere.

    Args:
        centres: (P, 3) of the cameras.
        points: (P, 3) that they see, normalised frame; those beyond the sphere say that the line is
            free. Lines that miss the sphere, or end before it, are dropped.
        view: of whose pixels the lines are, one index or (P,).
    """

    def __init__(self, centres: Tensor, points: Tensor, view: Tensor | int) -> None:
        offset = points - centres
        length = offset.norm(dim=1, keepdim=True)
        directions = offset / length.clamp(min=_PARALLEL)
        near, far, hit = unit_sphere_interval(RayBatch(centres, directions))
        kept = hit & (length > near)[:, 0]
        view = torch.as_tensor(view, device=length.device).expand(len(length))[:, None]
        end = torch.minimum(length, far)
        self.lines = torch.cat(
            [centres, directions, near, end, (length < far).float(), view.float()], dim=1
        )[kept]

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def of_lines(cls, lines: Tensor) -> "Anchors":
        """From the tensor that a checkpoint holds."""
        anchors = cls(lines.new_zeros(0, 3), lines.new_zeros(0, 3), 0)
        anchors.lines = lines
        return anchors

    @property
    def view(self) -> Tensor:
        """(P,) indices of the views whose pixels the lines are."""
        return self.lines[:, 9].long()

    @property
    def ends(self) -> Tensor:
        """(P,) bool: whether the lines end at a surface."""
        return self.lines[:, 8] > 0

    @property
    def points(self) -> Tensor:
        """(P, 3) where the lines end, at a surface or where they leave the sphere."""
        return self.lines[:, :3] + self.lines[:, 3:6] * self.lines[:, 7:8]

    def limited(self, limit: int, generator: torch.Generator) -> "Anchors":
        """At most `limit` of them, chosen by a generator on the CPU."""
        if len(self) <= limit:
            return self
        chosen = torch.randperm(len(self), generator=generator)[:limit]
        return Anchors.of_lines(self.lines[chosen.to(self.lines.device)])

    def draw(self, count: int, generator: torch.Generator) -> AnchorDraw:
        """Random anchors and random points on their lines; generator on the anchors' device."""
        device = self.lines.device
        chosen = torch.randint(len(self), (count,), generator=generator, device=device)
        lines = self.lines[chosen, :9]
        centres, directions, near, end, ends = lines.split([3, 3, 1, 1, 1], dim=1)
        share = torch.rand(count, 1, generator=generator, device=device)
        free = end - (end - near) * share**_NEAR_THE_END
        return AnchorDraw(
            surface=centres + directions * end,
            free=centres + directions * free,
            behind=centres + directions * (end + _BEHIND),
            ends=ends,
        )


def anchor_loss(draw: AnchorDraw, surface: Tensor, free: Tensor, behind: Tensor) -> Tensor:
    """Mean violation in units of the normalised frame, given signed distances (C,) there.

    Distances at the surface, depths below it of free points, heights above it of points behind (a
    fifth of them).
    """
    ends = draw.ends[:, 0]
    hollow = F.relu(behind) * ends
    return (surface.abs() * ends + F.relu(-free) + _BEHIND_WEIGHT * hollow).mean()


def triangulate_anchors(
    table: MatchTable, c2w: Tensor, K: Tensor, usable: Tensor | None = None
) -> Anchors:
    """Anchors from matches: each triangulated point, seen from both of its views.

    Kept are midpoints of two rays that meet at 3° or more, before both cameras, and within 2 pixels
    of both observations.

    Args:
        c2w: (V, 4, 4) cameras, normalised frame.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        usable: (M,) bool, matches that may be taken; None = all.
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
    if usable is not None:
        good &= usable
    centres = torch.cat([centre_ref[good], centre_src[good]])
    return Anchors(centres, points[good].repeat(2, 1), torch.cat([ref[good], src[good]]))


def _directions(c2w: Tensor, K_inverse: Tensor, view: Tensor, xy_px: Tensor) -> Tensor:
    """Unit directions (M, 3) of pixels (M, 2) of `view` (M,)."""
    homogeneous = torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)
    turned = (c2w[:, :3, :3] @ K_inverse)[view]
    return F.normalize((turned @ homogeneous[..., None])[..., 0], dim=1)
