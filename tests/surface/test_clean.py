import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from pipeline.errors import InputError
from pipeline.geometry.cameras import look_at
from pipeline.surface.clean import (
    Cleaning,
    clip_to_sphere,
    count_seeing_views,
    outside_masks,
    remove_floaters,
    remove_outside_masks,
    remove_unseen,
    smooth_outline,
)
from pipeline.surface.extract import extract_mesh
from tests.surface.analytic_scene import CENTRES, RADII, balls, make_views, ring

UP = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(tmp_path_factory.mktemp("scene"), with_masks=True)


@pytest.fixture(scope="module")
def extraction():
    return extract_mesh(balls, 96)


def with_ball(centre, radius):
    extra = torch.tensor(centre)
    return lambda x: torch.minimum(balls(x), (x - extra).norm(dim=1) - radius)


def test_region_is_trimmed_to_the_unit_sphere():
    cleaning = Cleaning(extract_mesh(lambda x: x[:, 2] - 0.013, 96).mesh)
    clip_to_sphere(cleaning)
    radii = np.linalg.norm(cleaning.mesh.vertices, axis=1)
    assert radii.max() == pytest.approx(1.0, abs=1e-4)
    assert cleaning.mesh.area == pytest.approx(np.pi, rel=0.002), "the rim is a circle"
    assert cleaning.removals[0].faces > 0


def test_only_what_cameras_see_stays(views, extraction):
    cleaning = Cleaning(extraction.mesh)
    seen_by = count_seeing_views(extraction.mesh, views, 1.5 * extraction.cell)
    remove_unseen(cleaning, seen_by, 2, UP)
    z = cleaning.mesh.vertices[:, 2]
    # cameras stand at 1.0 above the centre at distance √5: the horizon of the ball's underside
    tangent = np.arcsin(0.4 / np.sqrt(5))
    lowest = -0.4 * np.cos(tangent + np.arctan2(1.0, 2.0))
    assert z.min() == pytest.approx(lowest, abs=0.05)
    assert z.max() == pytest.approx(0.4, abs=0.01)
    removal = cleaning.removals[-1]
    assert removal.step == "unseen"
    assert 0.05 < removal.area_fraction < 0.4
    assert cleaning.missed_fraction < 0.02, "the underside is nobody's fault"


def test_a_side_that_nobody_photographed_is_told_from_the_underside(extraction, tmp_path):
    half = make_views(tmp_path, poses=ring(12)[:4])
    cleaning = Cleaning(extraction.mesh)
    remove_unseen(cleaning, count_seeing_views(extraction.mesh, half, 1.5 * extraction.cell), 2, UP)
    assert 0.15 < cleaning.missed_fraction < cleaning.removals[-1].area_fraction


def test_hidden_inner_shell_is_removed(views):
    """A hollow inside the large ball: no camera can see it."""
    hollow = lambda x: torch.maximum(balls(x), 0.2 - x.norm(dim=1))  # noqa: E731
    extraction = extract_mesh(hollow, 96)
    assert (np.linalg.norm(extraction.mesh.vertices, axis=1) < 0.25).any()
    cleaning = Cleaning(extraction.mesh)
    seen_by = count_seeing_views(extraction.mesh, views, 1.5 * extraction.cell)
    remove_unseen(cleaning, seen_by, 1, UP)
    assert (np.linalg.norm(cleaning.mesh.vertices, axis=1) > 0.35).all()


def test_views_needed_counts_views(views, extraction):
    seen_by = count_seeing_views(extraction.mesh, views, 1.5 * extraction.cell)
    top = extraction.mesh.vertices[:, 2] > 0.394
    assert seen_by[top].min() >= len(views) - 2  # the small ball hides a bit
    side = np.abs(extraction.mesh.vertices[:, 2] + 0.2) < 0.02
    assert seen_by[side].max() < len(views) / 2, "each side is seen from its own side only"


def test_masks_remove_what_stands_beside_the_object(views):
    extraction = extract_mesh(with_ball([-0.6, 0.0, 0.0], 0.1), 96)
    cleaning = Cleaning(extraction.mesh)
    stays = remove_outside_masks(cleaning, views, margin_px=2)
    assert stays.sum() == len(cleaning.mesh.vertices)
    assert np.array_equal(extraction.mesh.vertices[stays], cleaning.mesh.vertices)
    assert (cleaning.mesh.vertices[:, 0] > -0.45).all()
    both = [np.linalg.norm(cleaning.mesh.vertices - c, axis=1).min() for c in CENTRES.numpy()]
    assert np.allclose(both, RADII.numpy(), atol=0.01), "the object itself stays"


def test_one_bad_mask_is_tolerated(views, extraction, tmp_path):
    views = make_views(tmp_path, with_masks=True)
    bad = np.zeros((views.height, views.width), dtype=np.uint8)
    Image.fromarray(bad).save(views.mask_paths[3])
    assert not outside_masks(extraction.mesh.vertices, views, margin_px=2).any()


def test_small_pieces_go_unless_sparse_points_back_them():
    extraction = extract_mesh(with_ball([0.0, -0.7, 0.3], 0.04), 96)
    mesh = extraction.mesh
    cleaning = Cleaning(mesh)
    remove_floaters(cleaning, 0.02, np.zeros((0, 3)), 10, reach=0.05)
    assert cleaning.mesh.body_count == 2
    assert (cleaning.mesh.vertices[:, 1] > -0.5).all()

    rng = np.random.default_rng(0)
    on_it = rng.normal(size=(12, 3))
    on_it = np.array([0.0, -0.7, 0.3]) + 0.04 * on_it / np.linalg.norm(on_it, axis=1, keepdims=True)
    backed = Cleaning(mesh)
    remove_floaters(backed, 0.02, on_it, 10, reach=0.05)
    assert backed.mesh.body_count == 3


def test_nothing_left_is_an_error_that_says_what_to_do(views):
    below = trimesh.creation.icosphere(subdivisions=3, radius=0.2)
    below.apply_translation([0, 0, -20.0])
    cleaning = Cleaning(below)
    with pytest.raises(InputError, match="unseen") as error:
        remove_unseen(cleaning, np.zeros(len(below.vertices), dtype=int), 2, UP)
    assert "views_needed" in (error.value.hint or "")


def test_seeing_respects_occlusion(extraction, tmp_path):
    """A camera behind the small ball does not see the large ball's part behind it."""
    eye = np.array([2.0, 0.0, 0.2 / 0.55 * 2.0])
    views = make_views(tmp_path, poses=look_at(eye, np.zeros(3), np.array([0.0, 0, 1]))[None])
    seen = count_seeing_views(extraction.mesh, views, 1.5 * extraction.cell)
    direction = eye / np.linalg.norm(eye)
    behind = np.linalg.norm(extraction.mesh.vertices - 0.4 * direction, axis=1) < 0.05
    assert behind.any()
    assert not seen[behind].any()


def test_ring_looks_at_the_middle():
    for c2w in ring():
        assert np.allclose(np.cross(c2w[:3, 2], -c2w[:3, 3]), 0, atol=1e-9)


def test_outline_of_the_seen_part_is_smoothed():
    """Salt and pepper goes; a clean border stays where it is."""
    mesh = extract_mesh(lambda x: x.norm(dim=1) - 0.5, 64).mesh
    half = mesh.vertices[:, 2] > 0.0
    rng = np.random.default_rng(0)
    noisy = half ^ (rng.random(len(half)) < 0.02)
    smooth = smooth_outline(mesh, noisy)
    assert (noisy != half).sum() > 50
    far = np.abs(mesh.vertices[:, 2]) > 0.1
    assert (smooth != half)[far].mean() < 0.001
    assert np.abs(mesh.vertices[smooth, 2].min()) < 0.06
