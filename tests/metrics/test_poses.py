import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.metrics.poses import Summary, compare_poses, split_rotation_error


@pytest.fixture
def golden(shared):
    folder = shared / "golden/eval/trajectory"
    return folder, np.load(folder / "poses.npz"), json.loads((folder / "evo.json").read_text())


def _matches(summary: Summary, expected: dict, tolerance: float) -> None:
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(summary, name) == pytest.approx(expected[name], abs=tolerance)


def test_golden_trajectory(golden):
    _, poses, evo = golden
    errors = compare_poses(poses["est"], poses["gt"])
    expected = evo["alignment_est_to_gt"]
    assert errors.alignment.scale == pytest.approx(expected["scale"], abs=1e-9)
    assert np.allclose(errors.alignment.rotation, expected["rotation"], atol=1e-9)
    assert np.allclose(errors.alignment.translation, expected["translation"], atol=1e-9)
    assert np.allclose(errors.translation, evo["ape_translation_per_pose"], atol=1e-9)
    assert np.allclose(errors.rotation_deg, evo["ape_rotation_deg_per_pose"], atol=1e-8)
    _matches(Summary.of(errors.translation), evo["ape_translation"], 1e-9)
    _matches(Summary.of(errors.rotation_deg), evo["ape_rotation_deg"], 1e-8)
    _matches(Summary.of(errors.relative_translation), evo["rpe_translation"], 1e-9)
    _matches(Summary.of(errors.relative_rotation_deg), evo["rpe_rotation_deg"], 1e-8)


def test_golden_without_scale(golden):
    _, poses, _ = golden
    errors = compare_poses(poses["est"], poses["gt"], with_scale=False)
    assert errors.alignment.scale == 1.0
    summary = Summary.of(errors.translation)
    assert summary.rmse == pytest.approx(1.846100535, abs=1e-9)
    assert summary.mean == pytest.approx(1.826434826, abs=1e-9)


def test_golden_mirrored_positions(golden):
    folder, _, _ = golden
    poses = np.load(folder / "poses_mirrored.npz")
    expected = json.loads((folder / "mirrored.json").read_text())
    errors = compare_poses(poses["est"], poses["gt"])
    assert np.linalg.det(errors.alignment.rotation) == pytest.approx(1)
    assert errors.alignment.scale == pytest.approx(2.658031182, abs=1e-8)
    _matches(Summary.of(errors.translation), expected["ape_translation"], 1e-9)
    _matches(Summary.of(errors.rotation_deg), expected["ape_rotation_deg"], 1e-8)


def _ring(count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(1)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, random_state=2).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(count, 3))
    return c2w


def test_common_part_and_scatter_are_told_apart():
    truth = _ring()
    shared_turn = Rotation.from_euler("y", 0.66, degrees=True).as_matrix()
    aligned = truth[:, :3, :3] @ shared_turn
    common, scatter = split_rotation_error(aligned, truth[:, :3, :3])
    assert common == pytest.approx(0.66, abs=1e-6)
    assert scatter.max() < 1e-5
    jitter = Rotation.from_rotvec(
        np.deg2rad(0.1) * np.random.default_rng(0).normal(size=(12, 3)) / np.sqrt(3)
    ).as_matrix()
    common, scatter = split_rotation_error(aligned @ jitter, truth[:, :3, :3])
    assert common == pytest.approx(0.66, abs=0.05)
    assert 0.05 < scatter.mean() < 0.15


def test_a_rotation_of_the_whole_world_is_no_error_when_rotations_align_themselves():
    truth = _ring()
    turned = truth.copy()
    turned[:, :3, :3] = Rotation.from_euler("z", 2, degrees=True).as_matrix() @ truth[:, :3, :3]
    errors = compare_poses(turned, truth)
    assert errors.rotation_deg.mean() == pytest.approx(2, abs=1e-6)
    assert errors.rotation_self_aligned_deg.max() < 1e-5


def test_equal_cameras_have_no_error():
    truth = _ring()
    errors = compare_poses(truth, truth)
    assert errors.rotation_deg.max() < 1e-5
    assert errors.translation.max() < 1e-12
    centres = truth[:, :3, 3]
    assert errors.camera_span == max(np.linalg.norm(a - b) for a in centres for b in centres)


def test_refuses_too_few_unequal_and_coincident_cameras():
    truth = _ring(5)
    with pytest.raises(InputError, match="at least 3"):
        compare_poses(truth[:2], truth[:2])
    with pytest.raises(InputError, match="5 and 4"):
        compare_poses(truth, truth[:4])
    same = truth.copy()
    same[:, :3, 3] = 1.0
    with pytest.raises(InputError, match="coincide"):
        compare_poses(truth, same)
