import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.geometry.raycast import RayScene


@pytest.fixture
def ball():
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    return RayScene(mesh.vertices, mesh.faces), mesh


def test_hits_a_sphere_where_it_is(ball):
    scene, _ = ball
    rng = np.random.default_rng(0)
    directions = -np.array([0, 0, 1.0]) + 0.1 * rng.normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origin = np.array([0.0, 0.0, 2.0])
    hits = scene.cast(origin, directions)
    half_b = directions @ origin
    discriminant = half_b**2 - (origin @ origin - 0.25)
    clear = np.abs(discriminant) > 0.01
    assert np.array_equal(hits.hit[clear], discriminant[clear] > 0)
    expected = -half_b - np.sqrt(np.maximum(discriminant, 0))
    inside = clear & hits.hit
    assert np.allclose(hits.distance[inside], expected[inside], atol=3e-3)
    assert np.isinf(hits.distance[~hits.hit]).all()
    points = origin + hits.distance[inside, None] * directions[inside]
    assert (np.sum(points * hits.normal[inside], axis=1) > 0.49).all(), "outward winding"


def test_barycentric_weights_give_the_hit_point(ball):
    scene, mesh = ball
    hits = scene.cast(np.array([0.0, 0, 2]), np.array([[0.05, 0.02, -1.0]]) / np.sqrt(1.0029))
    a, b, c = mesh.vertices[mesh.faces[hits.face[0]]]
    u, v = hits.uv[0]
    point = (1 - u - v) * a + u * b + v * c
    assert np.allclose(point[:2] / (2 - point[2]), [0.05, 0.02], atol=1e-5)


def test_sees_the_near_side_only(ball):
    scene, mesh = ball
    seen = scene.sees(np.array([0.0, 0, 2]), mesh.vertices, tolerance=1e-3)
    facing = mesh.vertices[:, 2] > 0.25 + 0.02  # the horizon of a viewpoint at distance 2
    hidden = mesh.vertices[:, 2] < 0.25 * 0.5 - 0.05
    assert seen[facing].all()
    assert not seen[hidden].any()


def test_no_rays_and_no_triangles(ball):
    assert len(ball[0].cast(np.zeros(3), np.zeros((0, 3))).face) == 0
    with pytest.raises(InputError, match="triangles"):
        RayScene(np.zeros((3, 3)), np.zeros((0, 3), dtype=int))
