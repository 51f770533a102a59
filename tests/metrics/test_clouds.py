import numpy as np
import pytest
import trimesh

from pipeline.errors import InputError
from pipeline.metrics.clouds import check_frames_fit, load_points, load_prediction


def _ball(scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return trimesh.creation.icosphere().vertices * scale + shift


@pytest.mark.parametrize(("factor", "units"), [(1000, "millimetres"), (100, "centimetres")])
def test_wrong_units_are_named(factor, units):
    with pytest.raises(InputError, match=rf"factor of about {factor}: metres and {units}"):
        check_frames_fit(_ball(factor), _ball(), "the mesh")
    with pytest.raises(InputError, match=f"{factor} times larger than the mesh"):
        check_frames_fit(_ball(), _ball(factor), "the mesh")


def test_other_factors_are_told_without_a_guess():
    with pytest.raises(InputError, match="35 times larger") as caught:
        check_frames_fit(_ball(), _ball(35), "the mesh")
    assert "factor" not in str(caught.value)


def test_frames_that_do_not_overlap():
    with pytest.raises(InputError, match="do not overlap"):
        check_frames_fit(_ball(shift=10), _ball(), "the mesh")
    check_frames_fit(_ball(shift=1), _ball(), "the mesh")


def test_files_that_give_no_number(tmp_path):
    with pytest.raises(InputError, match="no mesh file"):
        load_points(tmp_path / "none.ply")
    trimesh.PointCloud(_ball()).export(tmp_path / "cloud.ply")
    assert load_prediction(tmp_path / "cloud.ply", needs_faces=False).faces is None
    with pytest.raises(InputError, match="not a point cloud"):
        load_prediction(tmp_path / "cloud.ply", needs_faces=True)
    header = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
    header += (
        "property float z\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n"
    )
    (tmp_path / "empty.ply").write_text(header)
    with pytest.raises(InputError, match="is empty: it has no vertices"):
        load_prediction(tmp_path / "empty.ply", needs_faces=True)
    mesh = trimesh.creation.icosphere()
    mesh.vertices[3] = np.nan
    (tmp_path / "nan.ply").write_bytes(mesh.export(file_type="ply"))
    with pytest.raises(InputError, match="1 of 642 vertices are not finite"):
        load_prediction(tmp_path / "nan.ply", needs_faces=True)


def test_a_scene_of_several_meshes_is_one(tmp_path):
    scene = trimesh.Scene([trimesh.creation.icosphere(), trimesh.creation.box()])
    scene.export(tmp_path / "scene.glb")
    loaded = load_prediction(tmp_path / "scene.glb", needs_faces=True)
    assert len(loaded.points) == 642 + 24 or len(loaded.points) == 642 + 8
