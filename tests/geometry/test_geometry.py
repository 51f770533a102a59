"""Properties of the geometry, on random inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry.cameras import (
    decompose_projection,
    invert_pose,
    look_at,
    make_pose,
    pixel_rays,
    project,
    projection_matrix,
    spread_views,
)
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from pipeline.geometry.pixels import colmap_to_idr_K, colmap_to_idr_px, idr_to_colmap_K
from pipeline.geometry.rotations import mean_rotation, rotation_angles_deg
from pipeline.geometry.similarity import Similarity, umeyama

seeds = st.integers(0, 2**31)


def random_camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    f = rng.uniform(300, 900, 2)
    K = np.array([[f[0], 0, rng.uniform(200, 400)], [0, f[1], rng.uniform(200, 400)], [0, 0, 1]])
    return K, make_pose(Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_projection_splits_into_its_parts(seed: int) -> None:
    K, c2w = random_camera(np.random.default_rng(seed))
    K_back, c2w_back = decompose_projection(projection_matrix(K, c2w)[:3] * 2.5)
    np.testing.assert_allclose(K_back, K, atol=1e-6)
    np.testing.assert_allclose(c2w_back, c2w, atol=1e-9)
    np.testing.assert_allclose(invert_pose(c2w) @ c2w, np.eye(4), atol=1e-12)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_rays_and_projection_are_inverse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    K, c2w = random_camera(rng)
    xy_px = rng.uniform(0, 600, (20, 2))
    origins, directions = pixel_rays(K, c2w, xy_px)
    back_px, depth = project(K, c2w, origins + directions * rng.uniform(1, 9, (20, 1)))
    np.testing.assert_allclose(back_px, xy_px, atol=1e-7)
    assert (depth > 0).all()


def test_points_behind_a_camera_have_no_pixel() -> None:
    xy_px, depth = project(np.eye(3), np.eye(4), np.array([[0.0, 0, -1], [0, 0, 2]]))
    assert np.isnan(xy_px[0]).all()
    assert np.isfinite(xy_px[1]).all()
    assert list(depth) == [-1, 2]


def test_look_at_puts_the_target_on_the_axis_and_up_above() -> None:
    target = np.array([0.3, -0.2, 0.1])
    c2w = look_at(np.array([2.0, 1.0, 1.5]), target, np.array([0.0, 0, 1]))
    K = np.diag([100.0, 100.0, 1.0])
    xy_px, _ = project(K, c2w, np.stack([target, target + np.array([0, 0, 0.1])]))
    np.testing.assert_allclose(xy_px[0], 0, atol=1e-9)
    assert xy_px[1, 1] < 0  # image y points down


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_umeyama_finds_the_similarity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = Similarity(
        float(rng.uniform(0.1, 9)),
        Rotation.random(random_state=rng).as_matrix(),
        rng.normal(size=3),
    )
    points = rng.normal(size=(8, 3))
    found = umeyama(points, truth.apply_points(points))
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-8)
    np.testing.assert_allclose((found.inverse().matrix @ found.matrix), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(Similarity.from_matrix(truth.matrix).matrix, truth.matrix)


def test_umeyama_refuses_what_determines_nothing() -> None:
    with pytest.raises(InputError, match="3 pairs"):
        umeyama(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(InputError, match="differ"):
        umeyama(np.ones((5, 3)), np.ones((5, 3)))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_true_matches_lie_on_their_epipolar_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (30, 3))
    K = np.array([[500.0, 0, 300], [0, 500, 200], [0, 0, 1]])
    poses = [look_at(c, np.zeros(3), np.array([0.0, 0, 1])) for c in rng.normal(0, 0.2, (2, 3)) + 3]
    (x1, _), (x2, _) = (project(K, c2w, points) for c2w in poses)
    F = fundamental_matrix(K, poses[0], K, poses[1])
    matches_px = np.concatenate([x1, x2], axis=1)
    assert symmetric_epipolar_distance_px(F, matches_px).max() < 1e-5
    matches_px[:, 3] += 3
    assert symmetric_epipolar_distance_px(F, matches_px).min() < 3 * np.sqrt(2) + 30


def test_angles_and_means_of_rotations() -> None:
    turn = Rotation.from_rotvec(np.radians([[0, 0, 10.0], [0, 0, 20.0], [0, 0, 30.0]])).as_matrix()
    np.testing.assert_allclose(rotation_angles_deg(turn[:1].repeat(3, 0), turn), [0, 10, 20])
    np.testing.assert_allclose(mean_rotation(turn), turn[1], atol=1e-9)


def test_pixel_conventions_differ_by_half_a_pixel() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    point = np.array([[0.1, 0.2, 2.0]])
    colmap_px, _ = project(K, np.eye(4), point)
    idr_px, _ = project(colmap_to_idr_K(K), np.eye(4), point)
    np.testing.assert_allclose(idr_px, colmap_to_idr_px(colmap_px))
    np.testing.assert_allclose(idr_to_colmap_K(colmap_to_idr_K(K)), K)


def test_spread_views_are_far_apart() -> None:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    centres = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    assert spread_views(centres, 4) == [0, 6, 12, 18]
    assert spread_views(centres, 100) == list(range(24))
    assert spread_views(centres, 0) == []
