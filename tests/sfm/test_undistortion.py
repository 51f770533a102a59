"""Ideal views: no blank pixels, exact half pixels, one size for all."""

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray

from pipeline.geometry.cameras import look_at, project
from pipeline.geometry.pixels import idr_to_colmap_px
from pipeline.sfm.undistortion import (
    blank_free_window,
    plan_layout,
    resample,
    sampling_map,
    undistort_points_px,
)


def _camera(
    model: str = "RADIAL",
    width: int = 160,
    height: int = 120,
    k1: float = -0.12,
    focal: float = 150.0,
    offset: tuple[float, float] = (6.0, -4.0),
) -> pycolmap.Camera:
    radial = {"SIMPLE_PINHOLE": [], "SIMPLE_RADIAL": [k1], "RADIAL": [k1, 0.03]}[model]
    return pycolmap.Camera(
        model=model,
        width=width,
        height=height,
        params=[focal, width / 2 + offset[0], height / 2 + offset[1], *radial],
        camera_id=1,
    )


def _pattern(ideal: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth picture on the ideal plane: brightness at normalised coordinates (..., 2)."""
    x, y = ideal[..., 0], ideal[..., 1]
    return 127 + 60 * np.sin(23 * x + 4 * y) + 50 * np.cos(19 * y - 7 * x)


def _photo_of_pattern(camera: pycolmap.Camera) -> NDArray[np.uint8]:
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    centres = idr_to_colmap_px(np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float))
    ideal = np.asarray(camera.cam_from_img(centres)).reshape(camera.height, camera.width, 2)
    return np.round(_pattern(ideal)).astype(np.uint8)


def _layout(cameras: list[pycolmap.Camera]):
    c2w = np.stack([look_at([0, 0, -3.0], [0, 0, 0], [0, -1.0, 0])] * len(cameras))
    return plan_layout(cameras, np.zeros(3), c2w)


def _error_against_pattern(view: NDArray[np.uint8], K: NDArray[np.float64]) -> float:
    columns, rows = np.meshgrid(np.arange(view.shape[1]), np.arange(view.shape[0]))
    ideal = (np.stack([columns, rows], axis=-1) - K[:2, 2]) / K[[0, 1], [0, 1]]
    return float(np.abs(view - _pattern(ideal)).mean())


@pytest.mark.parametrize("k1", [-0.2, -0.05, 0.08])
def test_views_show_what_their_ideal_camera_sees(k1: float) -> None:
    camera = _camera(k1=k1)
    layout = _layout([camera])
    maps = sampling_map(camera, layout.K[0], layout.width, layout.height)
    view = resample(_photo_of_pattern(camera), maps, 1.0)
    exact = _error_against_pattern(view, layout.K[0])
    shifted = layout.K[0].copy()
    shifted[:2, 2] += 0.5
    assert exact < 1.0
    assert _error_against_pattern(view, shifted) > 2.5 * exact


@pytest.mark.parametrize("k1", [-0.25, 0.1])
def test_the_window_has_no_blank_pixels(k1: float) -> None:
    camera = _camera(k1=k1)
    layout = _layout([camera])
    x, y = sampling_map(camera, layout.K[0], layout.width, layout.height)
    assert x.min() > -0.51
    assert y.min() > -0.51
    assert x.max() < camera.width - 0.49
    assert y.max() < camera.height - 0.49


def test_without_distortion_the_pixels_stay() -> None:
    camera = _camera("SIMPLE_PINHOLE")
    layout = _layout([camera])
    assert (layout.width, layout.height) == (160, 120)
    np.testing.assert_allclose(layout.K[0][:2, 2], [85.5, 55.5])
    photo = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    view = resample(photo, sampling_map(camera, layout.K[0], 160, 120), 1.0)
    np.testing.assert_array_equal(view, photo)


def test_points_and_pixels_take_the_same_way() -> None:
    camera = _camera()
    layout = _layout([camera])
    x, y = sampling_map(camera, layout.K[0], layout.width, layout.height)
    rows, columns = np.array([5, 40, 90]), np.array([7, 100, 30])
    distorted = np.stack([x[rows, columns], y[rows, columns]], axis=1).astype(np.float64)
    back = undistort_points_px(camera, layout.K[0], idr_to_colmap_px(distorted))
    np.testing.assert_allclose(back, np.stack([columns, rows], axis=1), atol=1e-3)


def test_scene_points_land_where_the_ideal_camera_projects_them() -> None:
    camera = _camera()
    c2w = look_at([1.0, 0.4, -3.0], [0, 0, 0], [0, -1.0, 0])
    layout = plan_layout([camera], np.zeros(3), c2w[None])
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (50, 3))
    in_camera = (points - c2w[:3, 3]) @ c2w[:3, :3]
    distorted = np.asarray(camera.img_from_cam(in_camera))
    expected, _ = project(layout.K[0], c2w, points)
    np.testing.assert_allclose(
        undistort_points_px(camera, layout.K[0], distorted), expected, atol=1e-6
    )


def test_mixed_sizes_get_one_size_without_blanks() -> None:
    cameras = [
        _camera(),
        _camera(width=240, height=180, focal=230),
        _camera(width=180, height=240, focal=230),
    ]
    layout = _layout(cameras)
    for i, camera in enumerate(cameras):
        x, y = sampling_map(camera, layout.K[i], layout.width, layout.height)
        assert x.min() > -1.01
        assert x.max() < camera.width + 0.01
        assert y.min() > -1.01
        assert y.max() < camera.height + 0.01
        assert layout.K[i][0, 0] == pytest.approx(layout.K[i][1, 1])
    # two of three are landscape: they lose nothing, the upright one most of a half
    assert layout.width > layout.height
    assert layout.kept[0] == pytest.approx(1, abs=0.03)
    assert 0.4 < layout.kept[2] < 0.75


def test_a_cut_window_keeps_the_object() -> None:
    cameras = [_camera("SIMPLE_PINHOLE")] * 3 + [
        _camera("SIMPLE_PINHOLE", width=120, height=160, focal=140, offset=(0, 0))
    ]
    target = np.array([0.0, 1.1, 0.0])  # low in the upright picture
    c2w = np.stack([look_at([0, 0, -3.0], [0, 0, 0], [0, -1.0, 0])] * 4)
    layout = plan_layout(cameras, target, c2w)
    xy_px, _ = project(layout.K[3], c2w[3], target[None])
    assert 0 < xy_px[0, 1] < layout.height
    in_the_middle = plan_layout(cameras, np.zeros(3), c2w)
    xy_px, _ = project(in_the_middle.K[3], c2w[3], target[None])
    assert not 0 < xy_px[0, 1] < in_the_middle.height


def test_shrinking_views_does_not_alias() -> None:
    camera = _camera("SIMPLE_PINHOLE", width=640, height=480, focal=600, offset=(0, 0))
    stripes = np.zeros((480, 640), dtype=np.uint8)
    stripes[:, ::2] = 255
    K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
    view = resample(stripes, sampling_map(camera, K, 160, 120), 0.25)
    assert view[10:-10, 10:-10].std() < 12


def test_an_extreme_lens_still_gets_a_window() -> None:
    window = blank_free_window(_camera("SIMPLE_RADIAL", k1=0.9, focal=60.0))
    assert window.width >= 80
    assert window.height >= 60
