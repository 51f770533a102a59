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
