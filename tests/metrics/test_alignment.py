import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.alignment import align_cameras, align_surfaces, load_transform

TO_TRUTH = Similarity(
    2.5, Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix(), np.array([1, 2, 3.0])
)


def _cameras(count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, random_state=1).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(count, 3))
    return c2w


@pytest.mark.parametrize("method", ["centres", "poses"])
def test_exact_cameras_are_laid_on_exactly(method):
    truth = _cameras()
    found = align_cameras(TO_TRUTH.inverse().apply_c2w(truth), truth, method)
    assert np.allclose(found.similarity.matrix, TO_TRUTH.matrix)
    assert found.residual_rmse < 1e-9 and found.residual_deg < 1e-5 and found.pairs == 12
    stored = found.as_json()
    assert stored["method"] == method and np.allclose(stored["matrix"], TO_TRUTH.matrix)


def test_rotations_decide_where_centres_cannot():
    """Cameras in one line: centres leave the turn about it open."""
    truth = _cameras()
    truth[:, :3, 3] = np.linspace(0, 1, 12)[:, None] * [1, 0, 0]
    truth[:, :3, 3] += 1e-6 * np.random.default_rng(2).normal(size=(12, 3))
    estimate = truth.copy()
    estimate[:, :3, 3] += 1e-5 * np.random.default_rng(3).normal(size=(12, 3))
    assert align_cameras(estimate, truth, "centres").residual_deg > 1
    assert align_cameras(estimate, truth, "poses").residual_deg < 1e-3


def test_wrong_axes_are_told():
    truth = _cameras()
    estimate = truth.copy()
    estimate[:, :3, 3] *= -1  # a mirrored world cannot be turned back
    with pytest.raises(InputError, match="contradict each other"):
        align_cameras(estimate, truth, "poses")


def test_surfaces_by_icp():
    ball = trimesh.creation.icosphere(subdivisions=4)
    points = ball.vertices * (1 + 0.3 * np.sin(3 * ball.vertices[:, :1])) * [1, 0.8, 0.6]
    shift = Similarity(1.0, np.eye(3), np.array([0.02, -0.01, 0.01]))
    found = align_surfaces(points - shift.translation, points, 1.0, Similarity.identity(), False)
    assert np.allclose(found.similarity.translation, shift.translation, atol=1e-4)
    assert found.method == "icp"
    assert found.similarity.scale == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(InputError, match="too far apart"):
        align_surfaces(points + 5, points, 1.0, Similarity.identity(), False)


def test_given_transforms(tmp_path):
    np.savetxt(tmp_path / "t.txt", TO_TRUTH.matrix)
    assert np.allclose(load_transform(tmp_path / "t.txt").similarity.matrix, TO_TRUTH.matrix)
    np.save(tmp_path / "shear.npy", np.triu(np.ones((4, 4))))
    with pytest.raises(InputError, match="not a similarity"):
        load_transform(tmp_path / "shear.npy")
    np.savetxt(tmp_path / "three.txt", np.eye(3))
    with pytest.raises(InputError, match="4×4"):
        load_transform(tmp_path / "three.txt")
    (tmp_path / "words.txt").write_text("no numbers")
    with pytest.raises(InputError, match="not a readable matrix"):
        load_transform(tmp_path / "words.txt")
