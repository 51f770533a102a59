"""Against numbers of the original script, and where a careless reading of it would differ."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.metrics.clouds import Prediction, load_prediction
from pipeline.metrics.dtu import DtuReference, evaluate_dtu, load_dtu_reference, sample_mesh
from pipeline.metrics.thinning import thin_in_order


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden/eval/dtu"
    return folder, json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize(("kind", "file"), [("mesh", "pred_mesh.ply"), ("pcd", "pred_points.ply")])
def test_same_numbers_as_the_original(golden, kind, file):
    folder, expected = golden
    run = expected[kind]["runs"][0]
    prediction = load_prediction(folder / "pred" / file, needs_faces=False)
    errors = evaluate_dtu(prediction, load_dtu_reference(folder, 7), seed=run["seed"])
    assert errors.accuracy.mean() == pytest.approx(run["mean_d2s"], abs=1e-9)
    assert errors.completeness.mean() == pytest.approx(run["mean_s2d"], abs=1e-9)
    assert errors.overall == pytest.approx(run["over_all"], abs=1e-9)
    assert len(errors.accuracy) == run["n_d2s_counted"]
    assert len(errors.completeness) == run["n_s2d_counted"]
    assert errors.counts == {
        "points": run["n_data_pcd"],
        "thinned": run["n_data_down"],
        "in_bounds": run["n_data_in"],
        "observed": run["n_data_in_obs"],
        "reference": run["n_stl"],
        "reference_above_plane": run["n_stl_above"],
    }


def test_samples_of_the_golden_mesh(golden):
    folder, expected = golden
    run = expected["mesh"]["runs"][0]
    mesh = load_prediction(folder / "pred/pred_mesh.ply", needs_faces=True)
    samples = sample_mesh(mesh.points, mesh.faces)[run["n_vertices"] :]
    assert len(samples) == run["n_new_pts"]
    assert np.allclose(samples.sum(axis=0), run["sum_new_pts"], rtol=1e-12)


def test_thinning_leaves_no_two_points_close_and_no_gap():
    points = np.random.default_rng(0).random((3000, 3))
    kept = points[thin_in_order(points, 0.1)]
    assert np.array_equal(kept[0], points[0]), "the first in order stays"
    apart = np.linalg.norm(kept[:, None] - kept[None], axis=2) + np.eye(len(kept))
    assert apart.min() > 0.1
    assert (np.linalg.norm(points[:, None] - kept[None], axis=2).min(axis=1) <= 0.1).all()


def test_thinning_refuses_an_extent_that_cannot_be_counted():
    with pytest.raises(InputError, match="unit"):
        thin_in_order(np.array([[0.0, 0, 0], [1e9, 1e9, 1e9]]), 0.2)


def _scan() -> DtuReference:
    """A disc of radius 20 mm in the plane z = 10, seen where x < 0; the table is at z = 0."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(-20, 20, size=(20_000, 2))
    points = np.c_[xy, np.full(len(xy), 10.0)]
    below = np.c_[xy[:500], np.full(500, -5.0)]
    mask = np.zeros((41, 41, 21), dtype=bool)
    mask[:20] = True
    box = np.array([[-20, -20, 0], [20, 20, 20]], dtype=np.float32)
    return DtuReference(np.concatenate([points, below]), mask, box, 1.0, np.array([0, 0, 1.0, 0]))


def _square(z_mm: float) -> Prediction:
    corners = np.array([[-20, -20, 0], [20, -20, 0], [20, 20, 0], [-20, 20, 0]], float)
    return Prediction(corners + np.array([0, 0, z_mm]), np.array([[0, 1, 2], [0, 2, 3]]), "square")


def test_mask_counts_for_accuracy_only():
    prediction = _square(11.0)
    tilted = replace(
        prediction, points=prediction.points + np.array([0, 0, 1.0]) * [[0], [1], [1], [0]]
    )
    errors = evaluate_dtu(tilted, _scan())
    assert errors.accuracy.mean() == pytest.approx(1.25, abs=0.1), "x < 0: between 1 and 1.5 mm"
    assert errors.accuracy_unmasked.mean() == pytest.approx(1.5, abs=0.1)
    assert errors.completeness.mean() == pytest.approx(1.5, abs=0.1)
    assert errors.overall < errors.overall_unmasked
    assert len(errors.completeness) == 20_000, "what lies below the table does not count"


def test_frames_that_do_not_fit_give_no_number():
    with pytest.raises(InputError, match="frames differ"):
        evaluate_dtu(_square(500.0), _scan())
    far = replace(_scan(), points=_scan().points + np.array([0, 0, 60.0]))
    with pytest.raises(InputError, match="nowhere nearer than 20 mm"):
        evaluate_dtu(_square(11.0), far)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"ObsMask65_10\.mat"):
        load_dtu_reference(tmp_path, 65)
    (tmp_path / "ObsMask").mkdir()
    (tmp_path / "ObsMask/ObsMask65_10.mat").write_bytes(b"not MATLAB")
    with pytest.raises(InputError, match="not a readable MATLAB file"):
        load_dtu_reference(tmp_path, 65)


def test_a_triangle_without_area_adds_its_corners_only():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0.0]])
    assert len(sample_mesh(vertices, np.array([[0, 1, 2]]))) == 3
    ball = trimesh.creation.icosphere(subdivisions=3, radius=40.0)
    samples = sample_mesh(ball.vertices, ball.faces)
    assert len(samples) == pytest.approx(ball.area / 0.2**2, rel=0.3)
