"""Known meshes, known distances: a ball of radius 1 seen by a ring of cameras."""

import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.geometry.cameras import look_at
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.distance import SurfaceDistance, sample_surface, sample_triangles, thin
from pipeline.metrics.surface import SurfaceProtocol, Viewers, compare_surfaces

PROTOCOL = SurfaceProtocol(rays_per_view=4000, spacing=0.02)
SAME = Similarity.identity()


def _ball(radius: float = 1.0) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=4, radius=radius)


def _viewers(azimuths_deg=range(0, 360, 36), unit: float = 1.0) -> Viewers:
    centres = [
        4 * np.array([np.cos(a) * 0.8, np.sin(a) * 0.8, 0.6])
        for a in np.deg2rad(list(azimuths_deg))
    ]
    c2w = np.stack([look_at(c, np.zeros(3), np.array([0, 0, 1.0])) for c in centres])
    c2w[:, :3, 3] *= unit
    K = np.array([[250.0, 0, 99.5], [0, 250, 79.5], [0, 0, 1]])
    count = len(c2w)
    return Viewers(np.tile(K, (count, 1, 1)), c2w, np.tile([200, 160], (count, 1)))


def test_a_mesh_has_no_distance_to_itself():
    errors = compare_surfaces(_ball(), _ball(), SAME, _viewers(), PROTOCOL)
    assert errors.protocol == "seen surface"
    assert errors.radius == pytest.approx(1, abs=0.01)
    assert errors.chamfer < 1e-6
    assert errors.fscore == 1.0
    assert errors.missed == 0.0
    assert errors.capped == (0.0, 0.0)
    assert len(errors.accuracy) > 2000 and len(errors.completeness) > 2000


def test_an_inflated_ball_is_off_by_as_much():
    errors = compare_surfaces(_ball(1.03), _ball(), SAME, _viewers(), PROTOCOL)
    assert errors.accuracy.mean() == pytest.approx(0.03, abs=0.001)
    assert errors.completeness.mean() == pytest.approx(0.03, abs=0.001)
    assert errors.chamfer == pytest.approx(0.03, abs=0.001)
    assert errors.fscore == 0.0
    nearer = compare_surfaces(_ball(1.005), _ball(), SAME, _viewers(), PROTOCOL)
    assert nearer.fscore == 1.0


def test_the_alignment_is_applied_to_the_prediction():
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    to_truth = Similarity(0.2, turn, np.array([3.0, -1.0, 2.0]))
    predicted = _ball()
    predicted.vertices = to_truth.inverse().apply_points(predicted.vertices)
    assert compare_surfaces(predicted, _ball(), to_truth, _viewers(), PROTOCOL).chamfer < 1e-5


def test_lengths_scale_with_the_unit():
    small, true = _ball(1.02), _ball()
    for mesh in (small, true):
        mesh.apply_scale(1e-3)
    errors = compare_surfaces(small, true, SAME, _viewers(unit=1e-3), PROTOCOL)
    assert errors.chamfer == pytest.approx(2e-5, rel=0.05)
    assert errors.chamfer / errors.radius == pytest.approx(0.02, rel=0.05)


def test_a_hole_costs_completeness_and_not_accuracy():
    predicted = _ball()
    predicted.update_faces(predicted.triangles_center[:, 0] < 0.6)
    errors = compare_surfaces(predicted, _ball(), SAME, _viewers(), PROTOCOL)
    assert errors.accuracy.mean() < 1e-6, "through the hole the inner side of the back is seen"
    assert errors.completeness.mean() > 0.01
    assert errors.recall < 0.9 < errors.precision


def test_what_stands_around_the_object_does_not_count():
    table = trimesh.creation.box([8, 8, 0.1])
    table.apply_translation([0, 0, -1.2])
    errors = compare_surfaces(
        trimesh.util.concatenate([_ball(), table]), _ball(), SAME, _viewers(), PROTOCOL
    )
    assert errors.chamfer < 1e-6
    floater = trimesh.creation.icosphere(2, radius=0.2)
    floater.apply_translation([1.4, 0, 0.9])
    errors = compare_surfaces(
        trimesh.util.concatenate([_ball(), floater]), _ball(), SAME, _viewers(), PROTOCOL
    )
    assert errors.accuracy.mean() > 0.001, "but what hides the object does"
    assert errors.capped[0] > 0.001
    assert errors.completeness.mean() < 1e-6


def test_a_missing_object_costs_the_cap():
    elsewhere = _ball(0.3)
    elsewhere.apply_translation([0, 0, -1.6])
    errors = compare_surfaces(elsewhere, _ball(), SAME, _viewers(), PROTOCOL)
    assert errors.missed > 0.9
    assert errors.completeness.mean() > 0.15
    assert errors.completeness.max() == errors.cap == pytest.approx(0.2, abs=0.003)


def test_only_what_two_cameras_see_must_be_complete():
    front_half = _ball()
    front_half.update_faces(front_half.triangles_center[:, 0] > -0.35)
    seen_from_front = _viewers((-20, 0, 20))
    errors = compare_surfaces(front_half, _ball(), SAME, seen_from_front, PROTOCOL)
    assert errors.chamfer < 1e-4
    one_sided = _viewers((0, 180))  # opposite cameras above the ball share only its upper part
    errors = compare_surfaces(front_half, _ball(), SAME, one_sided, PROTOCOL)
    all_round = compare_surfaces(front_half, _ball(), SAME, _viewers(), PROTOCOL)
    assert errors.recall > all_round.recall + 0.05


def test_whole_surface_without_cameras():
    errors = compare_surfaces(_ball(1.02), _ball(), SAME, None, PROTOCOL)
    assert errors.protocol == "whole surface"
    assert errors.missed is None
    assert errors.chamfer == pytest.approx(0.02, abs=0.001)


def test_mistaken_units_are_named():
    millimetres = _ball()
    millimetres.apply_scale(1000)
    with pytest.raises(InputError, match="metres and millimetres"):
        compare_surfaces(_ball(), millimetres, SAME, None, PROTOCOL)
    with pytest.raises(InputError, match="1000: metres and millimetres"):
        compare_surfaces(_ball(), millimetres, SAME, _viewers(), PROTOCOL)
    with pytest.raises(InputError, match="metres and millimetres"):
        compare_surfaces(_ball(), _ball(), SAME, _viewers(unit=1000.0), PROTOCOL)


def test_a_mesh_that_the_cameras_do_not_see_is_refused():
    aside = _ball()
    aside.apply_translation([0, 0, 12.0])
    with pytest.raises(InputError, match="hardly a ray"):
        compare_surfaces(_ball(), aside, SAME, _viewers(), PROTOCOL)


def test_intrinsics_of_other_photos_are_refused():
    viewers = _viewers()
    halved = Viewers(viewers.K, viewers.c2w, viewers.size_px // 3)
    with pytest.raises(InputError, match="outside its photo"):
        compare_surfaces(_ball(), _ball(), SAME, halved, PROTOCOL)


@pytest.mark.parametrize("whose", ["reconstructed", "ground-truth"])
def test_bad_meshes_are_refused(whose):
    def compare(bad):
        pair = (bad, _ball()) if whose == "reconstructed" else (_ball(), bad)
        compare_surfaces(*pair, SAME, None, PROTOCOL)

    with pytest.raises(InputError, match=f"{whose} mesh is empty"):
        compare(trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=int)))
    broken = _ball()
    broken.vertices[7] = np.inf
    with pytest.raises(InputError, match=rf"{whose} mesh: 1 of .* not finite"):
        compare(broken)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 500.0])
def test_distances_agree_with_brute_force(scale):
    rng = np.random.default_rng(0)
    mesh = trimesh.creation.torus(1.0, 0.3, major_sections=24, minor_sections=10)
    box = trimesh.creation.box([0.2, 3.0, 0.1])
    mesh = trimesh.util.concatenate([mesh, box])
    mesh.apply_scale(scale)
    points = scale * rng.uniform(-1.6, 1.6, (400, 3))
    points[:100] = mesh.vertices[rng.integers(len(mesh.vertices), size=100)]
    measured = SurfaceDistance(mesh.vertices, mesh.faces, 0.02 * scale).distances(points)
    every = np.repeat(mesh.triangles[None] / scale, len(points), 0).reshape(-1, 3, 3)
    repeated = np.repeat(points / scale, len(mesh.faces), axis=0)
    closest = trimesh.triangles.closest_point(every, repeated)
    expected = np.linalg.norm(closest - repeated, axis=1).reshape(len(points), -1).min(axis=1)
    assert np.allclose(measured / scale, expected, atol=1e-9)


def test_samples_are_even_and_on_the_surface():
    square = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[1, 1, 0], [0, 1, 0], [1, 0, 0]]], float)
    points, owner = sample_triangles(square, 0.1)
    assert np.allclose(points[:, 2], 0) and (points[:, :2] > 0).all() and (points[:, :2] < 1).all()
    assert np.bincount(owner).tolist() == [225, 225]
    halves = np.histogram2d(points[:, 0], points[:, 1], bins=3)[0]
    assert halves.min() > 0.8 * halves.max()
    ball = _ball()
    samples = sample_surface(ball.vertices, ball.faces, 0.1)
    assert np.abs(np.linalg.norm(samples, axis=1) - 1).max() < 0.01
    assert len(samples) == pytest.approx(1.5 * 4 * np.pi / 0.1**2, rel=0.25)


def test_thinning_keeps_one_point_a_cube():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (5000, 3))
    kept = thin(points, 0.5)
    assert len(kept) == 64
    assert len(np.unique(np.floor(points[kept] / 0.5), axis=0)) == 64
    assert len(thin(np.zeros((0, 3)), 0.1)) == 0
