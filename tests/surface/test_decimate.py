import numpy as np
import pytest
import trimesh

from pipeline.surface.decimate import DisplayMesh, decimate


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(subdivisions=6)
    rgb = np.round(127 + 100 * mesh.vertices).astype(np.uint8)
    return DisplayMesh(mesh.vertices, mesh.vertex_normals, mesh.faces, rgb)


def test_a_small_mesh_stays_as_it_is(ball):
    assert decimate(ball, 100_000) is ball


@pytest.mark.parametrize("max_faces", [20_000, 3_000])
def test_budget_is_kept_and_well_used(ball, max_faces):
    small = decimate(ball, max_faces)
    assert 0.5 * max_faces < len(small.faces) <= max_faces


def test_shape_normals_and_colours_survive(ball):
    small = decimate(ball, 8_000)
    assert np.linalg.norm(small.vertices, axis=1) == pytest.approx(1.0, abs=0.01)
    assert np.allclose(small.normals, small.vertices, atol=0.1)
    assert np.abs(small.rgb - (127 + 100 * small.vertices)).max() < 8
    mesh = trimesh.Trimesh(small.vertices, small.faces, process=False)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.03)
    assert (np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center) > 0).mean() > 0.99


def test_places_in_a_texture_stay_in_their_charts(ball):
    """The two halves of a ball as charts side by side: closed at the seam, nothing mixed."""
    count = len(ball.vertices)
    upper = ball.vertices[ball.faces].mean(axis=1)[:, 2] > 0
    used, faces = np.unique(ball.faces + np.where(upper, 0, count)[:, None], return_inverse=True)
    vertices, left = ball.vertices[used % count], used < count
    split = DisplayMesh(
        vertices, vertices, faces.reshape(-1, 3), ball.rgb[used % count], _place(vertices, left)
    )
    small = decimate(split, 8_000)
    assert small.uv is not None and 4_000 < len(small.faces) <= 8_000
    left = small.uv[:, 0] < 0.5
    assert np.abs(small.uv - _place(small.vertices, left)).max() < 0.03
    assert (left[small.faces].all(axis=1) | ~left[small.faces].any(axis=1)).all()
    whole = decimate(ball, 8_000)
    assert len(np.unique(small.vertices, axis=0)) == len(whole.vertices) < len(small.vertices)


def _place(vertices: np.ndarray, left: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.where(left, 0.25, 0.75) + 0.2 * vertices[:, 0], 0.5 + 0.4 * vertices[:, 1]], axis=1
    )
