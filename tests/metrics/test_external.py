"""Any mesh, any cameras, any renders; and what is refused instead of measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry.cameras import look_at
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.external import Question, evaluate

TO_TRUTH = Similarity(0.2, Rotation.from_rotvec([0.1, 0.4, 0]).as_matrix(), np.array([5, 1, 0.0]))


@pytest.fixture
def files(tmp_path):
    """A true mesh, the same in another frame, cameras in both frames."""
    true = trimesh.creation.icosphere(subdivisions=3)
    true.export(tmp_path / "true.ply")
    true.export(tmp_path / "same.ply")
    moved = true.copy()
    moved.vertices = TO_TRUTH.inverse().apply_points(true.vertices)
    moved.export(tmp_path / "moved.ply")
    big = true.copy()
    big.apply_scale(1000)
    big.export(tmp_path / "millimetres.ply")
    centres = [4 * np.array([np.cos(a), np.sin(a), 0.3]) for a in np.linspace(0, 5, 8)]
    c2w = np.stack([look_at(c, np.zeros(3), np.array([0, 0, 1.0])) for c in centres])
    np.save(tmp_path / "true_cameras.npy", c2w)
    np.save(tmp_path / "cameras.npy", TO_TRUTH.inverse().apply_c2w(c2w))
    return tmp_path


def _mesh(files, name: str, **changes) -> Question:
    return replace(Question("mesh", files / name, files / "true.ply"), **changes)


def _values(answer):
    return {metric.name: metric.value for metric in answer.metrics}


def test_a_mesh_as_it_lies(files):
    answer = evaluate(_mesh(files, "same.ply"))
    assert _values(answer)["chamfer_of_radius"] < 1e-4
    assert _values(answer)["f_score"] == 100
    assert _values(answer)["normal_consistency"] == pytest.approx(1, abs=1e-3)
    assert answer.alignment.method == "none"


@pytest.mark.parametrize("align", ["auto", "poses", "icp"])
def test_cameras_carry_it_over(files, align):
    cameras = {"cameras": files / "cameras.npy", "true_cameras": files / "true_cameras.npy"}
    with pytest.raises(InputError, match=r"do not overlap|times"):
        evaluate(_mesh(files, "moved.ply"))
    answer = evaluate(_mesh(files, "moved.ply", align=align, **cameras))
    assert _values(answer)["chamfer_of_radius"] < 0.05
    assert answer.alignment.method == ("centres" if align == "auto" else align)
    assert answer.alignment.residual_rmse < 0.05
    assert "whole surfaces" in answer.notes[0], "an array of poses says nothing of what they see"


def test_a_given_transform(files):
    np.savetxt(files / "t.txt", TO_TRUTH.matrix)
    answer = evaluate(_mesh(files, "moved.ply", transform=files / "t.txt"))
    assert _values(answer)["chamfer_of_radius"] < 1e-3
    stored = answer.as_json(_mesh(files, "moved.ply"))
    assert np.allclose(stored["alignment"]["matrix"], TO_TRUTH.matrix)
    with pytest.raises(InputError, match="not both"):
        evaluate(_mesh(files, "moved.ply", transform=files / "t.txt", align="centres"))


def test_wrong_units_are_named_and_no_number_given(files):
    with pytest.raises(InputError, match="factor of about 1000: metres and millimetres"):
        evaluate(_mesh(files, "millimetres.ply"))
    cloud = trimesh.PointCloud(trimesh.load(files / "true.ply").vertices)
    cloud.export(files / "cloud.ply")
    with pytest.raises(InputError, match="not a point cloud"):
        evaluate(_mesh(files, "cloud.ply"))


def test_poses(files):
    question = Question("poses", files / "cameras.npy", files / "true_cameras.npy", unit="m")
    for align in ("auto", "poses"):
        answer = evaluate(replace(question, align=align))
        assert _values(answer)["rotation_mean_given"] < 1e-4
        assert _values(answer)["relative_translation_rmse_given"] < 1e-9
        assert answer.alignment.method == ("poses" if align == "poses" else "centres")
    with pytest.raises(InputError, match="cannot be compared"):
        evaluate(replace(question, align="none"))


def test_tanks_and_temples_takes_clouds(files):
    question = Question(
        "tanks_and_temples", files / "same.ply", files / "true.ply", tau=0.01, refine=False
    )
    assert _values(evaluate(question))["tanks_f_score"] == 100
    with pytest.raises(InputError, match="needs a threshold"):
        evaluate(replace(question, tau=None))
    with pytest.raises(InputError, match="1000"):
        evaluate(replace(question, prediction=files / "millimetres.ply"))


def test_dtu_needs_a_scan_and_its_files(files):
    with pytest.raises(InputError, match="number of the scan"):
        evaluate(Question("dtu", files / "same.ply", files))
    with pytest.raises(InputError, match=r"ObsMask65_10\.mat"):
        evaluate(Question("dtu", files / "same.ply", files, scan=65))


@pytest.mark.parametrize(
    ("protocol", "option", "value"),
    [
        ("dtu", "masks", Path("masks")),
        ("dtu", "unit", "cm"),
        ("mesh", "scan", 65),
        ("mesh", "samples", 500),
        ("poses", "transform", Path("t.txt")),
        ("images", "align", "icp"),
        ("mobilebrick", "refine", False),
        ("tanks_and_temples", "threshold", 0.02),
        ("tanks_and_temples", "align", "icp"),
    ],
)
def test_options_that_would_change_nothing_are_refused(files, protocol, option, value):
    question = Question(protocol, files / "same.ply", files / "true.ply", **{option: value})
    with pytest.raises(InputError, match=r"has no use for --|would change nothing"):
        evaluate(question)


def test_images(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("renders", "photos", "masks"):
        (tmp_path / folder).mkdir()
    photo = rng.integers(0, 255, size=(24, 32, 3), dtype=np.uint8)
    render = photo.copy()
    render[:, 16:] = 255 - render[:, 16:]
    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[:, :16] = 255
    Image.fromarray(photo).save(tmp_path / "photos/a.png")
    Image.fromarray(render).save(tmp_path / "renders/a.png")
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    question = Question("images", tmp_path / "renders", tmp_path / "photos")
    answer = evaluate(question)
    assert _values(answer)["psnr_mean"] < 10 and _values(answer)["ssim_mean"] < 1
    masked = evaluate(replace(question, masks=tmp_path / "masks"))
    assert _values(masked)["psnr_mean"] == np.inf and masked.metrics[0].as_json()["value"] is None
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/b.png")
    with pytest.raises(InputError, match=r"no mask for a\.png"):
        evaluate(replace(question, masks=tmp_path / "masks"))
    (tmp_path / "renders/a.png").rename(tmp_path / "renders/c.png")
    with pytest.raises(InputError, match="has the name of one"):
        evaluate(question)
