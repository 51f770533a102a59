"""Stereo, anchors and the first surface, on a ball whose depth is known exactly."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.geometry.cameras import look_at, pixel_rays
from pipeline.porf import closer_look, depth_maps
from pipeline.porf.anchors import Anchors, anchor_loss
from pipeline.porf.closer_look import look_closer, traced, with_closer
from pipeline.porf.config import GridConfig, LookConfig, StereoConfig, TrainConfig
from pipeline.porf.depth_maps import DepthMaps, confirmed
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.first_shape import collect_anchors, fit_to_anchors
from pipeline.porf.grid import fill_slabs
from pipeline.porf.interruption import Interruption
from pipeline.porf.observations import Observations
from pipeline.porf.semi_global import aggregated
from pipeline.porf.stereo import compared_views, neighbours, sweep
from pipeline.porf.stereo_views import StereoViews, stereo_views
from pipeline.progress import NullProgress

WIDTH, HEIGHT, RADIUS = 96, 72, 0.6
K = np.array([[110.0, 0.0, 45.0], [0.0, 110.0, 37.0], [0.0, 0.0, 1.0]])
OPTIONS = StereoConfig(max_image_side=96, depths=64, window=5, min_views=2, consistency=0.02)


def _cameras(count: int = 7) -> NDArray:
    angles = np.deg2rad(12) * np.arange(count)
    centres = 2.4 * np.stack([np.cos(angles), np.sin(angles), np.full(count, 0.2)], axis=1)
    return np.stack([look_at(c, np.zeros(3), np.array([0.0, 0.0, 1.0])) for c in centres])


def _texture(points: NDArray) -> NDArray:
    waves = np.sin(points @ np.array([[17.0, 5, 3], [2, 21, 7], [9, 4, 26]]))
    return 0.5 + 0.15 * waves.sum(axis=1)


def _true_depths(c2w: NDArray) -> NDArray:
    """(V, H, W) along unit rays; NaN beside the ball."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    depths = []
    for pose in c2w:
        origins, directions = pixel_rays(K, pose, pixels)
        along = (origins * directions).sum(axis=1)
        inside = along**2 - (origins**2).sum(axis=1) + RADIUS**2
        with np.errstate(invalid="ignore"):
            depths.append((-along - np.sqrt(inside)).reshape(HEIGHT, WIDTH))
    return np.stack(depths)


@pytest.fixture(scope="module")
def ball() -> tuple[StereoViews, NDArray]:
    """Photos of a textured ball before black, and the true depths."""
    c2w = _cameras()
    depths = _true_depths(c2w)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    photos = []
    for pose, depth in zip(c2w, depths.reshape(len(c2w), -1), strict=True):
        origins, directions = pixel_rays(K, pose, pixels)
        grey = _texture(origins + directions * np.nan_to_num(depth)[:, None])
        grey = np.where(np.isfinite(depth), grey, 0.0)
        photos.append(np.round(255 * grey).reshape(HEIGHT, WIDTH, 1).repeat(3, axis=2))
    views = stereo_views(
        torch.from_numpy(np.stack(photos).astype(np.uint8)),
        torch.from_numpy(np.repeat(K[None], len(c2w), axis=0)).float(),
        torch.from_numpy(c2w).float(),
        96,
    )
    return views, depths


def test_depths_of_a_ball(ball: tuple[StereoViews, NDArray]) -> None:
    views, true = ball
    maps = sweep(views, OPTIONS, NullProgress())
    kept = confirmed(views, maps, OPTIONS)
    assert maps.view == list(range(7))
    errors, found = [], []
    for i, depth, good in zip(maps.view, maps.depth, kept, strict=True):
        # The rim, where windows see past the ball, is no test of depth.
        inner = torch.from_numpy(np.isfinite(true[i])) & (depth < 2.4)
        both = good & inner
        errors.append((depth - torch.from_numpy(true[i]).float())[both])
        found.append(both.sum() / np.isfinite(true[i]).sum())
    error = torch.cat(errors)
    # A pixel of disparity is 0.06 here.
    assert error.abs().median() < 0.025
    assert torch.quantile(error.abs(), 0.95) < 0.12
    assert error.median().abs() < 0.02
    assert min(found) > 0.3


def test_smoothness_fills_what_has_no_texture() -> None:
    """A slanted plane with a blank patch, where every depth costs the same."""
    x = torch.arange(30).expand(20, 30)
    true = 5 + x // 6
    cost = (torch.arange(16)[:, None, None] != true).float()
    cost[:, 5:15, 8:22] = 0.5
    found = aggregated(cost, torch.zeros(20, 30), jump=1.0).argmin(dim=0)
    assert ((found - true).abs() <= 1).all()
    assert (found == true).float().mean() > 0.9


def test_paths_take_the_cheapest_way() -> None:
    """One row of three pixels and three depths, by hand."""
    cost = torch.tensor([[[0.0, 0.5, 0.9]], [[0.9, 0.5, 0.9]], [[0.9, 0.5, 0.0]]])  # D, H, W
    even = torch.zeros(1, 3)
    total = aggregated(cost, even, jump=1.0)
    slant = 0.005
    # at the middle pixel, from the left: the depth that was cheap there, or beside it
    from_left = torch.tensor([0.5, 0.5 + slant, 0.5 + 0.9])
    from_right = torch.tensor([0.5 + 0.9, 0.5 + slant, 0.5])
    column = 2 * cost[:, 0, 1]  # a single row: up and down there is nothing else
    torch.testing.assert_close(total[:, 0, 1], from_left + from_right + column)
    edge = torch.tensor([[0.0, 1.0, 1.0]])
    assert aggregated(cost, edge, jump=1.0)[2, 0, 1] < total[2, 0, 1]


def test_reduced_views_see_the_same_rays(ball: tuple[StereoViews, NDArray]) -> None:
    c2w = torch.from_numpy(_cameras()).float()
    photos = torch.zeros(7, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    whole = torch.from_numpy(np.repeat(K[None], 7, axis=0)).float()
    small = stereo_views(photos, whole, c2w, 48)
    assert small.grey.shape == (7, 1, 36, 48)
    # Pixel (0, 0) of the half-size view lies between the first four of the whole one.
    ray = torch.linalg.inv(small.K[0]) @ torch.tensor([0.0, 0.0, 1.0])
    same = torch.linalg.inv(whole[0]) @ torch.tensor([0.5, 0.5, 1.0])
    torch.testing.assert_close(ray, same)


def test_neighbours_stand_at_a_useful_angle() -> None:
    c2w = torch.from_numpy(_cameras(12)).float()
    chosen = neighbours(c2w, 4)
    assert chosen[0][0] == 1
    assert all(i not in others for i, others in enumerate(chosen))
    assert max(abs(i - j) for i, others in enumerate(chosen) for j in others) <= 3  # 36° < 45°


def test_views_far_apart_come_first() -> None:
    cameras = torch.from_numpy(_cameras(7)).float()
    assert list(compared_views(cameras, StereoConfig(views=3))) == [0, 3, 6]
    assert list(compared_views(cameras[:3], StereoConfig(views=9))) == [0, 1, 2]


def _ball_anchors(count: int = 4000) -> Anchors:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return Anchors(points * 3, points * 0.35, 0)


def test_lines_end_where_they_should() -> None:
    centre = torch.tensor([[0.0, 0.0, 3.0]]).repeat(4, 1)
    points = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, -5.0], [0.0, 4.0, 2.9], [0.0, 0.0, 2.5]])
    anchors = Anchors(centre, points, 0)
    assert len(anchors) == 2  # the third misses the sphere, the fourth ends before it
    near, end, ends = anchors.lines[:, 6], anchors.lines[:, 7], anchors.lines[:, 8]
    torch.testing.assert_close(near, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(end, torch.tensor([2.8, 4.0]))
    assert ends.tolist() == [1.0, 0.0]


def test_loss_is_zero_on_the_true_distance_and_not_beside_it() -> None:
    anchors = _ball_anchors()
    draw = anchors.draw(500, torch.Generator().manual_seed(1))

    def loss(radius: float) -> float:
        parts = (draw.surface, draw.free, draw.behind)
        return float(anchor_loss(draw, *(p.norm(dim=1) - radius for p in parts)))

    assert loss(0.35) < 1e-6
    assert loss(0.30) > 0.04
    assert loss(0.40) > 0.04


def test_first_surface_follows_the_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    config = GridConfig(resolutions=(8, 16), log2_entries=12, hidden_width=32, cache_resolution=8)
    field = GridModel(config, generator)
    direction = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1)
    before = field.sdf(direction * 0.35)
    assert before.mean() < -0.1  # the initial sphere is larger
    field.anchors = _ball_anchors()
    fit_to_anchors(field, 150, generator, NullProgress())
    with torch.no_grad():
        assert field.sdf(direction * 0.35).abs().mean() < 0.01
        assert (field.sdf(direction * 0.6) > 0).all()
        assert (field.sdf(direction * 0.3) < 0).float().mean() > 0.9


def test_anchors_are_limited_by_the_seed() -> None:
    anchors = _ball_anchors(1000)
    few = [anchors.limited(50, torch.Generator().manual_seed(3)).lines for _ in range(2)]
    assert len(few[0]) == 50
    assert torch.equal(few[0], few[1])
    assert len(anchors.limited(5000, torch.Generator())) == 1000


def test_masks_keep_anchors_on_the_object_and_empty_the_rest(
    ball: tuple[StereoViews, NDArray],
) -> None:
    views, true = ball
    count = len(views.K)
    photos = (views.grey * 255).round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    masks = torch.from_numpy(np.isfinite(true))
    half = masks.clone()
    half[:, HEIGHT // 2 :] = False  # as if only the ball's upper half were the object
    observations = Observations(
        images=photos,
        masks=half,
        K=views.K,
        K_inv=torch.linalg.inv(views.K),
        box_px=torch.tensor([[0, 0, WIDTH, HEIGHT]]).repeat(count, 1),
        heldout=torch.zeros(count, 5, 6, dtype=torch.bool),
    )
    table = MatchTable.from_matches([], generator=torch.Generator())
    with Interruption() as interruption:
        anchors = collect_anchors(
            TrainConfig(stereo=OPTIONS),
            observations,
            table,
            views.K,
            views.c2w,
            torch.Generator().manual_seed(0),
            NullProgress(),
            interruption,
        )
    assert anchors is not None
    ends = anchors.lines[:, 8]
    surface = anchors.points[ends == 1]
    assert len(surface) > 1000
    assert (surface[:, 2] > -0.1).float().mean() > 0.97  # nothing from below the middle
    assert (ends == 0).sum() > 1000  # background is free


def _ball_distances(radius: float) -> Tensor:
    distances = torch.empty(1, 1, 64, 64, 64)
    fill_slabs(distances, lambda x: x.norm(dim=1) - radius)
    return distances


def test_rays_meet_the_surface_of_the_field(ball: tuple[StereoViews, NDArray]) -> None:
    views, true = ball
    distances = _ball_distances(RADIUS)
    for i in (0, 3):
        depth, hit = traced(distances, views, i)
        there = torch.from_numpy(np.isfinite(true[i]))
        assert (hit == there).float().mean() > 0.98
        error = (depth - torch.from_numpy(true[i]).float())[hit & there]
        assert error.abs().median() < 0.003


def test_a_closer_look_finds_the_true_ball(ball: tuple[StereoViews, NDArray]) -> None:
    """The field is a tenth too small; windows follow it, and find the depths of the photos."""
    views, true = ball
    options = LookConfig(reach=0.12, depths=17, consistency=0.02)
    distances = _ball_distances(0.9 * RADIUS)
    maps, trusted = look_closer(distances, views, OPTIONS, options, NullProgress())
    before, after = [], []
    for i, depth, good in zip(maps.view, maps.depth, trusted, strict=True):
        truth = torch.from_numpy(true[i]).float()
        assert good.sum() > 0.4 * truth.isfinite().sum()
        before.append((traced(distances, views, i)[0] - truth)[good])
        after.append((depth - truth)[good])
    assert torch.cat(before).median() > 0.05
    assert torch.cat(after).abs().median() < 0.02


def test_closer_depths_replace_the_anchors_of_their_pixels(
    ball: tuple[StereoViews, NDArray],
) -> None:
    views, true = ball
    truth = torch.from_numpy(true[3]).float()
    good = truth.isfinite()
    upper = good.clone()
    upper[HEIGHT // 2 :] = False
    seen = (views.c2w[3, :3, 3] + (truth - 0.1)[..., None] * views.directions(3))[good]
    old = Anchors(views.c2w[3, :3, 3].expand_as(seen), seen, 3)
    maps = DepthMaps([3], [truth], [truth])
    renewed = with_closer(old, views, maps, [upper], 0.01)
    assert len(renewed) == good.sum()  # one a pixel, as before
    radius = renewed.points.norm(dim=1)
    assert ((radius - RADIUS).abs() < 1e-3).sum() == upper.sum()


def test_a_closer_look_removes_what_it_looks_through(ball: tuple[StereoViews, NDArray]) -> None:
    """Another view's anchors before the measured surface go, those at it or behind it stay."""
    views, true = ball
    truth = torch.from_numpy(true[3]).float()
    good = truth.isfinite()
    maps = DepthMaps([3], [truth], [truth])
    for offset, stay in ((-0.1, False), (-0.01, True), (0.1, True)):
        seen = (views.c2w[3, :3, 3] + (truth + offset)[..., None] * views.directions(3))[good]
        old = Anchors(views.c2w[3, :3, 3].expand_as(seen), seen, 2)
        renewed = with_closer(old, views, maps, [good], 0.01)
        assert len(renewed) == int(good.sum()) * (1 + stay)


def test_sight_is_the_same_compiled_and_in_torch(
    ball: tuple[StereoViews, NDArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rays meet the surface, what is confirmed, and which anchors are refuted."""
    views, true = ball
    distances = _ball_distances(0.97 * RADIUS)
    seen = [torch.from_numpy(depth).float().nan_to_num(posinf=50.0) for depth in true]
    shift = 0.02 * torch.sin(torch.arange(WIDTH) * 0.7)  # some are confirmed, some are not
    maps = DepthMaps(list(range(7)), [d + shift * (i % 3) for i, d in enumerate(seen)], seen)
    points = 0.98 * maps.points(views)[2].reshape(-1, 3)
    some = Anchors(views.c2w[2, :3, 3].expand_as(points), points, 2)

    def all_of_it() -> list[Tensor]:
        depth, hit = traced(distances, views, 3)
        good = confirmed(views, maps, OPTIONS)
        kept = with_closer(some, views, maps, good, 0.01)
        return [depth * hit, hit, *good, kept.lines]

    compiled = all_of_it()
    with monkeypatch.context() as patch:
        for module in (closer_look, depth_maps):
            patch.setattr(module, "serves", lambda tensor: False)
        in_torch = all_of_it()
    assert 100 < compiled[2].sum() < compiled[2].numel() - 100
    torch.testing.assert_close(compiled[0], in_torch[0], atol=2e-4, rtol=0)
    for ours, theirs in zip(compiled[1:-1], in_torch[1:-1], strict=True):
        assert (ours == theirs).float().mean() > 0.998  # but where a pixel's edge is met
    assert len(compiled[-1]) == pytest.approx(len(in_torch[-1]), rel=0.002)


def test_a_grid_that_is_no_number_does_no_harm() -> None:
    """Large enough that a row outside of it would not be the process's own."""
    grid = torch.full((1, 1, 144, 144, 144), torch.nan)
    rays = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    ends = torch.full((200,), 1.0), torch.full((200,), 4.0)
    depth, left = closer_look._trace(grid, torch.tensor([0.0, 0.0, 2.5]), rays, *ends)
    assert depth.shape == left.shape
    assert left.isnan().all()
