"""The region of interest: a sphere around the object, found without a hand.

Three sources, the best one there is: masks (visual hull), sparse points (what stands on the ground
plane, or what most frames show), and the frames alone (the sphere that a typical view shows whole).
Too large a sphere wastes resolution, too small a one cuts the object: where the sources are weak
the frames' sphere is the least that is taken.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.sfm.frusta import Focus, Frusta, find_focus, inscribed_radii, seen_by
from pipeline.sfm.ground import Ground, find_ground
from pipeline.sfm.hull import MaskView, hull_points

MARGIN = 1.1
STANDING_MARGIN = 1.15
"""Wider: the lowest and thinnest parts of an object carry few points."""
FRAME_MARGIN = 1.15
"""Photographers fill the short side of the frame: an object a little larger than what a typical
view shows whole."""
OBJECT_FLOOR = 0.65
"""Well-textured objects on a ground may be smaller than the frames' sphere, down to this."""
CAP = 2.2
WELL_SEEN = 0.7
MIN_TRACK = 3
STRONG_POINTS = 200
FOOT = 0.2
FEW_POINTS = 30
PARALLEL_AXES = 0.02

Source = Literal["masks", "points on ground", "points", "frames", "given", "given cameras"]


@dataclass(frozen=True)
class Region:
    """A sphere in the world frame.

    Attributes:
        centre: (3,).
        radius: world units.
        source: what it was found from.
        facing: how the cameras stand: around a common focus, side by side, or looking outward.
        ground: supporting plane, if there is one.
        up: unit (3,), normal of the ground or mean up of the cameras.
    """

    centre: NDArray[np.float64]
    radius: float
    source: Source
    facing: Literal["around", "forward", "outward"]
    ground: Ground | None
    up: NDArray[np.float64]


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points.

    Attributes:
        xyz: (P, 3) world.
        track_lengths: (P,) number of photos that see each.
    """

    xyz: NDArray[np.float64]
    track_lengths: NDArray[np.int64]


def find_region(frusta: Frusta, points: SparsePoints, masks: list[MaskView], seed: int) -> Region:
    """Choose the sphere; see the module's text for the sources.

    Args:
        masks: views with a mask; may be fewer than the views, or none.
    """
    rng = np.random.default_rng(seed)
    facing, focus = _facing(frusta, points)
    frame_radius = _frame_radius(frusta, focus)
    near = points.xyz[np.linalg.norm(points.xyz - focus.point, axis=1) < CAP * frame_radius]
    ground = find_ground(near, frusta.centres, frusta.up, focus.distance, rng)
    up = ground.normal if ground is not None else frusta.up

    def region(centre: NDArray[np.float64], radius: float, source: Source) -> Region:
        return Region(centre, float(radius), source, facing, ground, up)

    hull = hull_points(masks, focus.point, CAP * frame_radius)
    if ground is not None:  # behind the object only the ground bounds what the masks leave open
        hull = hull[ground.heights(hull) > -0.02 * focus.distance]
    if len(hull):
        centre, radius = _enclosing(hull, 1.0)
        return region(centre, MARGIN * radius, "masks")
    well_seen = _well_seen(frusta, points)
    if ground is not None:
        standing = well_seen[ground.heights(well_seen) > 0.02 * focus.distance]
        if len(standing) >= STRONG_POINTS:
            centre, radius = _standing_sphere(standing, ground)
            floor, cap = OBJECT_FLOOR * frame_radius, CAP * frame_radius
            return region(centre, np.clip(STANDING_MARGIN * radius, floor, cap), "points on ground")
    elif len(well_seen) >= FEW_POINTS:
        centre, radius = _enclosing(well_seen, 0.98)
        return region(centre, np.clip(MARGIN * radius, frame_radius, CAP * frame_radius), "points")
    return region(focus.point, FRAME_MARGIN * frame_radius, "frames")


def _facing(
    frusta: Frusta, points: SparsePoints
) -> tuple[Literal["around", "forward", "outward"], Focus]:
    focus = find_focus(frusta)
    if focus.conditioning >= PARALLEL_AXES and focus.in_front > 0.8:
        return "around", focus
    well_seen = _well_seen(frusta, points, share=0.4)
    target = well_seen if len(well_seen) >= FEW_POINTS else points.xyz
    middle = np.median(target, axis=0)
    distance = float(np.median(np.linalg.norm(frusta.centres - middle, axis=1)))
    depth = ((middle - frusta.centres) * frusta.directions).sum(axis=1)
    in_front = float((depth > 0).mean())
    facing: Literal["forward", "outward"] = "forward" if in_front > 0.8 else "outward"
    return facing, Focus(middle, focus.conditioning, in_front, distance)


def _frame_radius(frusta: Frusta, focus: Focus) -> float:
    """Radius that a typical view shows whole; a share of the distance if none shows the focus."""
    shown = inscribed_radii(frusta, focus.point)
    shown = shown[shown > 0]
    return float(np.median(shown)) if len(shown) else 0.3 * focus.distance


def _well_seen(
    frusta: Frusta, points: SparsePoints, share: float = WELL_SEEN
) -> NDArray[np.float64]:
    """Points of sound tracks that lie in the frames of most views."""
    sound = points.xyz[points.track_lengths >= MIN_TRACK]
    return sound[seen_by(frusta, sound).mean(axis=0) >= share]


def _enclosing(points: NDArray[np.float64], quantile: float) -> tuple[NDArray[np.float64], float]:
    """Centre between the outermost points along the principal axes, and radius, both robust."""
    tail = (1 - quantile) / 2
    mean = points.mean(axis=0)
    axes = np.linalg.svd(points - mean, full_matrices=False)[2]
    along = (points - mean) @ axes.T
    low, high = np.quantile(along, tail, axis=0), np.quantile(along, 1 - tail, axis=0)
    centre = mean + ((low + high) / 2) @ axes
    return centre, float(np.quantile(np.linalg.norm(points - centre, axis=1), quantile))


def _standing_sphere(
    standing: NDArray[np.float64], ground: Ground
) -> tuple[NDArray[np.float64], float]:
    """Sphere around what stands on the ground, its foot included.

    The foot itself hides its points: the lowest fifth is taken to go straight down.
    """
    heights = ground.heights(standing)
    top = float(np.quantile(heights, 0.99))
    footprint = standing - heights[:, None] * ground.normal
    middle, reach = _enclosing(footprint, 0.97)
    centre = middle + ground.normal * top / 2
    low = footprint[heights < FOOT * top]
    if len(low) >= FEW_POINTS:
        reach = min(reach, float(np.quantile(np.linalg.norm(low - middle, axis=1), 0.97)))
    body = float(np.quantile(np.linalg.norm(standing - centre, axis=1), 0.98))
    return centre, max(body, float(np.hypot(reach, top / 2)))
