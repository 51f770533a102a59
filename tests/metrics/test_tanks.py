import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.clouds import load_points
from pipeline.metrics.icp import icp
from pipeline.metrics.tanks import evaluate_tanks, load_crop_volume, refine, voxel_means


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden/eval/tanks"
    clouds = load_points(folder / "source.ply"), load_points(folder / "target.ply")
    return clouds, load_crop_volume(folder / "crop.json"), folder


def _expected(folder):
    return json.loads((folder / "expected.json").read_text())


def _check(errors, expected):
    assert errors.precision == pytest.approx(expected["precision"], abs=1e-9)
    assert errors.recall == pytest.approx(expected["recall"], abs=1e-9)
    assert errors.fscore == pytest.approx(expected["fscore"], abs=1e-9)
    assert errors.counts == {
        "source_cropped": expected["n_source_cropped"],
        "source_voxels": expected["n_source_voxel"],
        "target_cropped": expected["n_target_cropped"],
        "target_voxels": expected["n_target_voxel"],
    }


@pytest.mark.parametrize("name", ["true_transform", "no_refinement_initial_transform"])
def test_given_transforms(golden, name):
    clouds, volume, folder = golden
    expected = _expected(folder)[name]
    start = Similarity.from_matrix(np.array(expected["transform"]))
    _check(evaluate_tanks(*clouds, 0.01, volume, start, refined=False), expected)


def test_refined_from_the_given_start(golden):
    clouds, volume, folder = golden
    expected = _expected(folder)["after_three_icp_stages"]
    start = Similarity.from_matrix(np.loadtxt(folder / "initial_transform.txt"))
    errors = evaluate_tanks(*clouds, 0.01, volume, start)
    _check(errors, expected)
    matrix = errors.registration.similarity.matrix
    assert np.allclose(matrix, expected["transform"], atol=1e-9, rtol=0)


def test_a_crop_that_leaves_nothing(golden):
    clouds, volume, _ = golden
    away = Similarity(1.0, np.eye(3), np.full(3, 100.0))
    with pytest.raises(InputError, match="do not overlap"):
        evaluate_tanks(*clouds, 0.01, volume, away)
    with pytest.raises(InputError, match="inside the crop volume"):
        refine(clouds[0] + 100, clouds[1], Similarity.identity(), 0.01, volume)


def test_a_file_that_is_no_crop_volume(tmp_path):
    (tmp_path / "crop.json").write_text('{"orthogonal_axis": "W"}')
    with pytest.raises(InputError, match="not a crop volume"):
        load_crop_volume(tmp_path / "crop.json")


def test_icp_finds_a_similarity_back():
    target = np.random.default_rng(0).random((300, 3))
    turn = Rotation.from_rotvec([0.01, -0.02, 0.015]).as_matrix()
    off = Similarity(1.01, turn, np.array([0.01, 0, -0.01]))
    found = icp(off.inverse().apply_points(target), target, 0.3, iterations=60, with_scale=True)
    assert np.allclose(found.similarity.matrix, off.matrix, atol=1e-6)
    assert found.fitness == 1.0 and found.inlier_rmse < 1e-3
    nowhere = icp(target + 100, target, 0.5)
    assert nowhere.fitness == 0 and nowhere.iterations == 0


def test_voxel_means():
    points = np.array([[0, 0, 0], [0.1, 0, 0], [3, 3, 3.0]])
    assert np.allclose(np.sort(voxel_means(points, 1.0), axis=0), [[0.05, 0, 0], [3, 3, 3]])
