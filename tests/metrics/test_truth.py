import json

import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras, save_idr_cameras
from pipeline.metrics.truth import assign_truth, load_ground_truth_cameras, load_mesh


@pytest.fixture
def cameras():
    K = np.tile(np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]]), (4, 1, 1))
    c2w = np.tile(np.eye(4), (4, 1, 1))
    c2w[:, :3, 3] = np.random.default_rng(0).normal(size=(4, 3))
    return IdrCameras(K, c2w, np.eye(4))


@pytest.fixture
def truth_file(tmp_path, cameras):
    save_idr_cameras(tmp_path / "cameras.npz", cameras)
    return tmp_path / "cameras.npz"


def _name(truth_file, names) -> None:
    truth_file.with_name("image_names.json").write_text(json.dumps(names))


def test_names_beside_the_file_decide(truth_file, cameras):
    _name(truth_file, ["d.jpg", "b.jpg", "c.jpg", "a.jpg"])
    truth = load_ground_truth_cameras(truth_file)
    assert truth.unit == "unknown"
    found = assign_truth(truth, [], ["a.jpg", "c.jpg", "d.jpg"])
    assert found.views.tolist() == [0, 1, 2]
    assert found.truths.tolist() == [3, 2, 0]
    assert np.allclose(truth.cameras.c2w[found.truths[0]], cameras.c2w[3])


def test_without_names_sorted_photos_count_also_unregistered_ones(truth_file):
    truth = load_ground_truth_cameras(truth_file)
    found = assign_truth(truth, ["z.jpg", "b.jpg", "a.jpg", "m.jpg"], ["a.jpg", "m.jpg", "z.jpg"])
    assert found.truths.tolist() == [0, 2, 3]
    with pytest.raises(InputError, match="4 cameras for 3 photos"):
        assign_truth(truth, ["a.jpg", "b.jpg", "c.jpg"], ["a.jpg"])


def test_suffix_and_letter_case_may_differ_but_not_ambiguously(truth_file):
    _name(truth_file, ["IMG_1.HEIC", "img_2.png", "img_3.png", "IMG_3.JPG"])
    truth = load_ground_truth_cameras(truth_file)
    found = assign_truth(truth, [], ["img_1.jpg", "IMG_2.JPG", "img_3.jpeg", "IMG_3.JPG"])
    assert found.views.tolist() == [0, 1, 3]
    assert found.truths.tolist() == [0, 1, 3]


def test_truth_of_other_photos_is_refused(truth_file):
    _name(truth_file, ["x.jpg", "y.jpg", "a.jpg", "w.jpg"])
    truth = load_ground_truth_cameras(truth_file)
    with pytest.raises(InputError, match="fits only 1 of 4"):
        assign_truth(truth, [], ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "1 names"),
        (["a", "a", "b", "c"], "twice"),
        ({"a": 1}, "list"),
        ([1, 2, 3, 4], "list"),
    ],
)
def test_bad_names_are_refused(truth_file, names, message):
    _name(truth_file, names)
    with pytest.raises(InputError, match=message):
        load_ground_truth_cameras(truth_file)


def test_unit_in_the_file(truth_file, cameras):
    save_idr_cameras(truth_file, cameras, unit="mm")
    assert load_ground_truth_cameras(truth_file).unit == "mm"


def test_dtu_truth_fits_its_photos(shared):
    folder = shared / "data/dtu65"
    truth = load_ground_truth_cameras(folder / "cameras.npz")
    photos = sorted(p.name for p in (folder / "photos").iterdir())
    assert len(truth.cameras) == 49
    assert truth.cameras.radius == pytest.approx(246.40544)
    assert assign_truth(truth, photos, photos).truths.tolist() == list(range(49))


def test_meshes_that_cannot_be_measured_are_refused(tmp_path):
    ball = trimesh.creation.icosphere(2)
    ball.export(tmp_path / "ball.ply")
    assert len(load_mesh(tmp_path / "ball.ply").faces) == len(ball.faces)
    with pytest.raises(InputError, match="no mesh file"):
        load_mesh(tmp_path / "none.ply")
    trimesh.PointCloud(ball.vertices).export(tmp_path / "points.ply")
    with pytest.raises(InputError, match="no triangles"):
        load_mesh(tmp_path / "points.ply")
    (tmp_path / "text.ply").write_text("this is no mesh")
    with pytest.raises(InputError, match=r"text\.ply"):
        load_mesh(tmp_path / "text.ply")
    broken = ball.copy()
    broken.vertices[3, 1] = np.nan
    broken.export(tmp_path / "nan.ply")
    with pytest.raises(InputError, match="1 of 162 vertices"):
        load_mesh(tmp_path / "nan.ply")
    flat = trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False)
    flat.export(tmp_path / "flat.ply")
    with pytest.raises(InputError, match="area"):
        load_mesh(tmp_path / "flat.ply")
