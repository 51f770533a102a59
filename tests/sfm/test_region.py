"""The region of interest on scenes whose object is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.geometry.cameras import look_at, project
from pipeline.sfm.frusta import (
    Frusta,
    find_focus,
    inscribed_radii,
    seen_by,
    sphere_share_of_views,
)
from pipeline.sfm.ground import find_ground
from pipeline.sfm.hull import MaskView
from pipeline.sfm.region import SparsePoints, find_region

UP = np.array([0.0, 0.0, 1.0])
AHEAD = np.array([0.0, 1.0, 0.0])
K = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])


def _frusta(c2w: NDArray[np.float64]) -> Frusta:
    count = len(c2w)
    return Frusta(np.tile(K, (count, 1, 1)), c2w, np.tile([640.0, 480.0], (count, 1)))


def _ring(count: int = 24, distance: float = 3.0, turn: float = 2 * np.pi) -> Frusta:
    angles = np.linspace(0, turn, count, endpoint=False)
    heights = 1.0 + 0.4 * np.sin(3 * angles)
    centres = np.stack([distance * np.cos(angles), distance * np.sin(angles), heights], axis=1)
    return _frusta(np.stack([look_at(c, [0, 0, 0.4], UP) for c in centres]))


def _points(xyz: NDArray[np.float64]) -> SparsePoints:
    return SparsePoints(xyz, np.full(len(xyz), 4))


def _object(count: int = 600, seed: int = 0) -> NDArray[np.float64]:
    """Points on an upright ellipsoid that stands on z = 0."""
    rng = np.random.default_rng(seed)
    sphere = rng.normal(size=(count, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    return sphere * [0.5, 0.35, 0.45] + [0.05, 0.0, 0.45]


def _table(count: int = 800, half: float = 2.5, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    flat = rng.uniform(-half, half, (count, 2))
    return np.concatenate([flat, rng.normal(0, 0.002, (count, 1))], axis=1)


def _covers(centre: NDArray[np.float64], radius: float, points: NDArray[np.float64]) -> float:
    return float((np.linalg.norm(points - centre, axis=1) <= radius).mean())


def test_the_focus_is_where_the_axes_meet() -> None:
    focus = find_focus(_ring())
    np.testing.assert_allclose(focus.point, [0, 0, 0.4], atol=1e-6)
    assert focus.conditioning > 0.3
    assert focus.in_front == 1.0


@pytest.mark.parametrize("turn", [np.pi, -2 * np.pi])
@pytest.mark.parametrize("turned_deg", [[0, 0], [90, 90], [-90, -90], [90, -90]])
def test_photos_on_their_side_know_what_is_up(turned_deg: list[int], turn: float) -> None:
    walked = _ring(turn=turn).c2w
    turns = Rotation.from_rotvec(np.outer(np.resize(turned_deg, len(walked)), UP), degrees=True)
    walked[:, :3, :3] = walked[:, :3, :3] @ turns.as_matrix()
    frusta = _frusta(walked)
    assert np.degrees(np.arccos(frusta.up @ UP)) < 20
    points = _points(np.concatenate([_object(), _table()]))
    assert find_region(frusta, points, [], 0).source == "points on ground"


def test_the_inscribed_sphere_touches_the_frame() -> None:
    frusta = _frusta(look_at([0, -4.0, 0], [0, 0, 0], UP)[None])
    radius = inscribed_radii(frusta, np.zeros(3))[0]
    half_angle = np.arctan(240 / 500)
    assert radius == pytest.approx(4 * np.sin(half_angle))


def test_shares_of_views_are_those_of_a_disc() -> None:
    frusta = _frusta(look_at([0, -40.0, 0], [0, 0, 0], UP)[None])
    share = sphere_share_of_views(frusta, np.zeros(3), 8.0, grid=256)[0]
    disc_px = 500 * np.tan(np.arcsin(8 / 40))
    assert share == pytest.approx(np.pi * disc_px**2 / (640 * 480), rel=0.02)
    assert sphere_share_of_views(frusta, np.array([0, -40.0, 0]), 1.0)[0] == 1.0


def test_frames_contain_points_in_front_only() -> None:
    frusta = _frusta(look_at([0, -4.0, 0], [0, 0, 0], UP)[None])
    points = np.array([[0, 0, 0], [0, -9.0, 0], [9.0, 0, 0]])
    assert seen_by(frusta, points).tolist() == [[True, False, False]]


def test_an_object_on_a_table_is_enclosed_without_the_table() -> None:
    scene = np.concatenate([_object(), _table()])
    region = find_region(_ring(distance=2.2), _points(scene), [], seed=0)
    assert region.source == "points on ground"
    assert region.ground is not None
    assert region.facing == "around"
    assert region.up @ UP > 0.999
    assert _covers(region.centre, region.radius, _object()) == 1.0
    extent = np.linalg.norm(_object() - [0.05, 0, 0.45], axis=1).max()
    assert region.radius < 1.5 * extent


def test_a_plain_object_falls_back_on_the_frames() -> None:
    region = find_region(_ring(), _points(_table()), [], seed=0)
    assert region.source == "frames"
    np.testing.assert_allclose(region.centre, [0, 0, 0.4], atol=0.05)
    shown = np.median(inscribed_radii(_ring(), region.centre))
    assert shown < region.radius < 1.3 * shown


def test_a_free_object_is_enclosed_by_its_points() -> None:
    region = find_region(_ring(), _points(_object()), [], seed=0)
    assert region.source == "points"
    assert _covers(region.centre, region.radius, _object()) == 1.0


def test_far_background_does_not_widen_the_region() -> None:
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(400, 3))
    far = 12 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    alone = find_region(_ring(), _points(_object()), [], seed=0)
    within = find_region(_ring(), _points(np.concatenate([_object(), far])), [], seed=0)
    assert within.radius < 1.1 * alone.radius


def test_cameras_side_by_side_get_the_middle_of_what_they_see() -> None:
    centres = np.stack([np.linspace(-0.5, 0.5, 9), np.full(9, -6.0), np.zeros(9)], axis=1)
    frusta = _frusta(np.stack([look_at(c, c + 6 * AHEAD, UP) for c in centres]))
    rng = np.random.default_rng(2)
    wall = rng.uniform([-1.5, -0.05, -1], [1.5, 0.05, 1], (500, 3))
    region = find_region(frusta, _points(wall), [], seed=0)
    assert region.facing == "forward"
    assert abs(region.centre[1]) < 0.3
    assert _covers(region.centre, region.radius, wall) > 0.9
    assert np.linalg.norm(frusta.centres - region.centre, axis=1).min() > region.radius


def test_cameras_that_look_outward_are_told_apart() -> None:
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    frusta = _frusta(np.stack([look_at(0.1 * d, 5 * d, UP) for d in directions]))
    region = find_region(frusta, _points(4 * directions.repeat(20, axis=0)), [], seed=0)
    assert region.facing == "outward"


def _mask_views(frusta: Frusta, points: NDArray[np.float64]) -> list[MaskView]:
    views = []
    for K_view, c2w in zip(frusta.K, frusta.c2w, strict=True):
        mask = np.zeros((480, 640), dtype=np.uint8)
        xy_px, _ = project(K_view, c2w, points)
        columns, rows = np.rint(xy_px).astype(int).T
        for dx in range(-12, 13):  # dots grow together to a silhouette
            for dy in range(-12, 13):
                mask[np.clip(rows + dy, 0, 479), np.clip(columns + dx, 0, 639)] = 255
        views.append(MaskView(mask, K_view, c2w))
    return views


def test_masks_decide_where_there_are_masks() -> None:
    frusta = _ring(12)
    region = find_region(frusta, _points(_table()), _mask_views(frusta, _object()), seed=0)
    assert region.source == "masks"
    assert _covers(region.centre, region.radius, _object()) == 1.0
    extent = np.linalg.norm(_object() - [0.05, 0, 0.45], axis=1).max()
    assert region.radius < 1.5 * extent


def test_a_wall_is_no_ground() -> None:
    rng = np.random.default_rng(0)
    wall = rng.uniform([-1, -0.002, -1], [1, 0.002, 1], (500, 3))
    cameras = np.array([[x, -3.0, 0.0] for x in np.linspace(-1, 1, 8)])
    assert find_ground(wall, cameras, UP, 3.0, rng) is None
    assert find_ground(_table(), cameras + 2 * UP, UP, 3.0, rng) is not None


def test_a_plane_through_the_object_is_no_ground() -> None:
    rng = np.random.default_rng(0)
    rng_below = np.random.default_rng(1)
    below = rng_below.uniform([-1, -1, -0.8], [1, 1, -0.1], (300, 3))
    crossed = np.concatenate([_table(), below])
    assert find_ground(crossed, _ring().centres, UP, 3.0, rng) is None


def test_a_ground_that_mirrors_the_object_is_one() -> None:
    """A tenth of the points beneath a plane that holds nearly all the others."""
    rng = np.random.default_rng(0)
    mirrored = np.random.default_rng(1).uniform([-0.4, -0.4, -0.7], [0.4, 0.4, -0.1], (90, 3))
    scene = np.concatenate([_table(), mirrored])
    ground = find_ground(scene, _ring().centres, UP, 3.0, rng)
    assert ground is not None
    assert ground.normal @ UP > 0.999


def test_the_same_seed_gives_the_same_region() -> None:
    scene = _points(np.concatenate([_object(), _table()]))
    first, second = (find_region(_ring(), scene, [], seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.centre, second.centre)
    assert first.radius == second.radius
