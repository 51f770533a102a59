import json

import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.metrics.clouds import Prediction, load_prediction
from pipeline.metrics.mobilebrick import (
    BrickReference,
    VisibilityGrid,
    evaluate_mobilebrick,
    load_brick_reference,
)
from pipeline.metrics.poisson_disk import poisson_disk_samples, uniform_samples

RATES = ("accuracy_2.5mm", "recall_2.5mm", "F1_2.5mm", "accuracy_5mm", "recall_5mm", "F1_5mm")
TOLERANCES = {
    20_000: {"chamfer": 0.12e-3, "2.5": (0.003, 0.004, 0.004), "5": (0.001, 0.004, 0.004)},
    100_000: {"chamfer": 0.06e-3, "2.5": (0.002, 0.002, 0.002), "5": (0.001, 0.002, 0.002)},
}


@pytest.mark.parametrize("scene", ["alpha", "beta"])
@pytest.mark.parametrize("samples", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_same_numbers_as_the_original(shared, scene, samples):
    folder = shared / "golden/eval/mobilebrick"
    runs = json.loads((folder / "expected.json").read_text())[f"n_pts_{samples}"]["runs"]
    runs = [run["sequences"][scene] for run in runs]
    reference = load_brick_reference(folder / "data" / scene)
    prediction = load_prediction(folder / f"meshes/pred/{scene}.ply", needs_faces=True)
    errors = evaluate_mobilebrick(prediction, reference, samples)
    registration = errors.registration
    assert registration.fitness == pytest.approx(runs[0]["fitness"], abs=1e-9)
    assert registration.inlier_rmse == pytest.approx(runs[0]["inlier_rmse"], abs=1e-9)
    assert np.allclose(
        registration.similarity.matrix, runs[0]["icp_transformation"], atol=1e-9, rtol=0
    )
    assert errors.applied is runs[0]["applied"]
    assert len(errors.cropped.points) == runs[0]["cropped_vertices"]
    assert len(errors.cropped.faces) == runs[0]["cropped_triangles"]
    assert errors.cropped.mesh.area == pytest.approx(runs[0]["cropped_area_m2"], abs=1e-9)
    limits = TOLERANCES[samples]
    mean = {name: np.mean([run[name] for run in runs]) for name in ("chamfer", *RATES)}
    assert errors.chamfer_m == pytest.approx(mean["chamfer"], abs=limits["chamfer"])
    for name, found, limit in zip(
        RATES, errors.rates(0.0025) + errors.rates(0.005), limits["2.5"] + limits["5"], strict=True
    ):
        assert found == pytest.approx(mean[name], abs=limit), name


def _reference(mesh: trimesh.Trimesh) -> BrickReference:
    grid = VisibilityGrid(np.ones((81, 81, 81), dtype=bool), 0.01, np.full(3, -0.4))
    truth = Prediction(np.asarray(mesh.vertices), np.asarray(mesh.faces), "truth")
    return BrickReference(truth, grid)


def _bumpy() -> trimesh.Trimesh:
    """No symmetry, so that a registration is definite."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.1)
    x, y, z = mesh.vertices.T
    mesh.vertices *= (1 + 0.2 * np.sin(9 * x + 25 * y) + 0.2 * np.cos(31 * z))[:, None]
    return mesh


def test_a_shifted_mesh_is_moved_back():
    truth = _bumpy()
    shift = np.array([0.004, -0.003, 0.002])
    moved = Prediction(np.asarray(truth.vertices) + shift, np.asarray(truth.faces), "moved")
    errors = evaluate_mobilebrick(moved, _reference(truth), samples=8000)
    assert errors.applied
    assert np.abs(errors.cropped.points - truth.vertices).max() < 1e-3
    assert errors.rates(0.005)[2] > 0.9


def test_what_no_photo_sees_is_cropped_from_the_prediction_only():
    truth = _bumpy()
    reference = _reference(truth)
    reference.visibility.mask[:, :, :40] = False  # z < 0
    prediction = Prediction(np.asarray(truth.vertices), np.asarray(truth.faces), "half")
    errors = evaluate_mobilebrick(prediction, reference, samples=4000)
    assert errors.cropped.points[:, 2].min() > -0.006
    assert errors.rates(0.005)[0] > 0.95 and errors.rates(0.005)[1] < 0.7


def test_a_mesh_elsewhere_gives_no_number():
    truth = _bumpy()
    away = Prediction(np.asarray(truth.vertices) + 5, np.asarray(truth.faces), "away.ply")
    with pytest.raises(InputError, match=r"no vertex of away.ply .* do not overlap"):
        evaluate_mobilebrick(away, _reference(truth), samples=100)


def test_missing_visibility_mask_is_named(tmp_path):
    (tmp_path / "mesh").mkdir()
    _bumpy().export(tmp_path / "mesh/gt_mesh.ply")
    with pytest.raises(InputError, match=r"visibility_mask\.npy"):
        load_brick_reference(tmp_path)
    np.save(tmp_path / "visibility_mask.npy", {"mask": np.ones(8)}, allow_pickle=True)
    with pytest.raises(InputError, match="not a visibility grid"):
        load_brick_reference(tmp_path)


def test_a_mask_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "mesh").mkdir()
    _bumpy().export(tmp_path / "mesh/gt_mesh.ply")
    np.save(tmp_path / "visibility_mask.npy", np.array(Evil(), dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"refused to load builtins\.print"):
        load_brick_reference(tmp_path)


def test_poisson_disk_samples_are_far_apart():
    ball = trimesh.creation.icosphere(subdivisions=3)
    spread = poisson_disk_samples(ball.vertices, ball.faces, 800, np.random.default_rng(0))
    random, area = uniform_samples(ball.vertices, ball.faces, 800, np.random.default_rng(0))
    assert spread.shape == random.shape == (800, 3)

    def nearest(points):
        return (np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(800)).min(
            axis=1
        )

    ideal = np.sqrt(2 * area / (np.sqrt(3) * 800))  # of a hexagonal lattice
    assert nearest(spread).min() > 0.6 * ideal > 5 * nearest(random).min()
