import numpy as np
import pytest
import trimesh

from pipeline.geometry.similarity import Similarity
from pipeline.metrics.error_map import UNCOUNTED_RGB, error_colours, save_errors, vertex_errors
from pipeline.metrics.surface import SurfaceProtocol


def test_distances_are_in_radii_of_the_truth(tmp_path):
    true = trimesh.creation.icosphere(subdivisions=4, radius=2.0)
    predicted = trimesh.creation.icosphere(subdivisions=2, radius=1.03)
    to_truth = Similarity(2.0, np.eye(3), np.zeros(3))
    everywhere = to_truth.apply_points(predicted.vertices)
    distances = vertex_errors(predicted, true, to_truth, everywhere, 0.05)
    assert distances == pytest.approx(0.03, abs=2e-3)
    save_errors(tmp_path / "e.npz", distances, SurfaceProtocol(threshold=0.02))
    with np.load(tmp_path / "e.npz") as stored:
        assert np.allclose(stored["distance"], distances) and stored["threshold"] == np.float32(
            0.02
        )


def test_what_was_not_measured_does_not_count():
    true = trimesh.creation.icosphere(subdivisions=3)
    upper = true.vertices[true.vertices[:, 2] > 0.5]
    same = Similarity.identity()
    counts = np.isfinite(vertex_errors(true, true, same, upper, 0.05))
    assert counts[true.vertices[:, 2] > 0.5].all() and not counts[true.vertices[:, 2] < 0.3].any()
    assert (error_colours(np.array([np.nan]), 0.01, 0.2) == UNCOUNTED_RGB).all()


def test_colours_grow_and_what_is_beyond_the_cap_is_grey():
    rgb = error_colours(np.array([0.0, 0.015, 0.03, 0.1, 0.2, 5.0]), 0.01, 0.2).astype(int)
    assert rgb[0, 2] > rgb[0, 0] and rgb[2, 0] > rgb[2, 2]
    assert (rgb[2] == rgb[3]).all()
    assert (rgb[4:] == UNCOUNTED_RGB).all()
