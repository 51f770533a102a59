import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras, save_idr_cameras
from pipeline.formats.poses import save_pose_text
from pipeline.formats.views import ViewRecord, save_views
from pipeline.metrics.trajectories import load_trajectory, pair_cameras


@pytest.fixture
def c2w():
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, :3, :3] = Rotation.random(5, random_state=0).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(0).normal(size=(5, 3))
    return poses


def test_every_form_gives_the_same_poses(tmp_path, c2w):
    save_pose_text(tmp_path / "porf.txt", c2w)
    np.savetxt(tmp_path / "kitti.txt", c2w[:, :3].reshape(5, 12))
    quaternions = Rotation.from_matrix(c2w[:, :3, :3]).as_quat()
    np.savetxt(tmp_path / "tum.txt", np.c_[np.arange(5), c2w[:, :3, 3], quaternions])
    np.save(tmp_path / "array.npy", c2w)
    K = np.tile(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), (5, 1, 1))
    save_idr_cameras(tmp_path / "idr.npz", IdrCameras(K, c2w, np.eye(4)))
    for name in ("porf.txt", "kitti.txt", "tum.txt", "array.npy", "idr.npz"):
        assert np.allclose(load_trajectory(tmp_path / name).c2w, c2w, atol=1e-8), name
    found = load_trajectory(tmp_path / "idr.npz").cameras
    assert found is not None and np.allclose(found.K, K)


def test_names_pair_cameras_and_positions_where_there_are_none(tmp_path, c2w):
    K = np.tile(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), (5, 1, 1))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_idr_cameras(tmp_path / folder / "c.npz", IdrCameras(K, c2w, np.eye(4)))
    save_views(
        tmp_path / "a/views.json",
        [ViewRecord(index=i, name=f"{n}.jpg", registered=True) for i, n in enumerate("abcde")],
    )
    names = json.dumps([f"{n}.PNG" for n in "edcba"])
    (tmp_path / "b/image_names.json").write_text(names)
    a, b = load_trajectory(tmp_path / "a/c.npz"), load_trajectory(tmp_path / "b/c.npz")
    here, there = pair_cameras(a, b)
    assert here.tolist() == [0, 1, 2, 3, 4] and there.tolist() == [4, 3, 2, 1, 0]
    np.save(tmp_path / "four.npy", c2w[:4])
    with pytest.raises(InputError, match=r"5 cameras.* has 4"):
        pair_cameras(a, load_trajectory(tmp_path / "four.npy"))


def test_bad_files_are_told(tmp_path, c2w):
    np.savetxt(tmp_path / "seven.txt", np.zeros((3, 7)))
    with pytest.raises(InputError, match="rows of 7 numbers"):
        load_trajectory(tmp_path / "seven.txt")
    np.save(tmp_path / "scaled.npy", c2w * 2)
    with pytest.raises(InputError, match="no rigid transforms"):
        load_trajectory(tmp_path / "scaled.npy")
    c2w[0, 0, 3] = np.nan
    np.save(tmp_path / "nan.npy", c2w)
    with pytest.raises(InputError, match="not finite"):
        load_trajectory(tmp_path / "nan.npy")
