import numpy as np
import pytest
import trimesh

from pipeline.surface.clip import clip_below


def test_a_ball_is_cut_at_the_plane():
    ball = trimesh.creation.icosphere(subdivisions=4)
    cap = clip_below(ball, ball.vertices[:, 2], 0.3)
    assert cap.vertices[:, 2].max() == pytest.approx(0.3, abs=1e-12)
    assert cap.area == pytest.approx(2 * np.pi * 1.3, rel=5e-3)
    assert cap.is_winding_consistent
    outward = np.einsum("ij,ij->i", cap.face_normals, cap.triangles_center)
    assert outward.min() > 0


def test_the_rim_is_one_closed_line():
    ball = trimesh.creation.icosphere(subdivisions=4)
    cap = clip_below(ball, ball.vertices[:, 0], -0.123)
    edges, uses = np.unique(cap.edges_sorted, axis=0, return_counts=True)
    rim = edges[uses == 1]
    assert np.allclose(cap.vertices[rim][..., 0], -0.123)
    assert (np.bincount(rim.reshape(-1))[np.unique(rim)] == 2).all()


@pytest.mark.parametrize(("level", "faces"), [(2.0, 1280), (-2.0, 0)])
def test_nothing_or_everything(level, faces):
    ball = trimesh.creation.icosphere(subdivisions=3)
    assert len(clip_below(ball, ball.vertices[:, 2], level).faces) == faces
